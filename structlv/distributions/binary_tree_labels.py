"""Labels of a binary tree's constituents: independent of one another once the spans are known.

Events are (*s, *b, m, 3), scores (*b, n, n, labels).
"""

from __future__ import annotations

import torch
from torch import Tensor

from structlv.distributions.seeding import nth_seed
from structlv.distributions.traces import Choices, log_softmax
from structlv.distributions.tree_events import is_binary_tree
from structlv.ops.noise import gumbel
from structlv.reference import philox, semiring
from structlv.reference.distinct import given_maximum


def places(event: Tensor, n: int, count: int) -> Tensor:
    """(*s, *b, m): where the rows are in a flattened chart (n, n, count); -1 for rows of -1."""
    i, j, label = event.unbind(-1)
    return torch.where(i < 0, -1, (i * n + j) * count + label)


def total(event: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """The sum (*s, *b) of the scores of events without padding; -inf where one is no tree."""
    n, _, count = scores.shape[-3:]
    i, j, label = event.unbind(-1)
    known = (label >= 0) & (label < count)
    proper = is_binary_tree(event, lengths) & (known | (i < 0)).all(-1)
    inside = known & (i >= 0) & (i <= j) & (j < n)
    batch = scores.shape[:-3]
    item = torch.arange(batch.numel(), device=event.device).reshape(batch).unsqueeze(-1)
    index = torch.where(inside, places(event, n, count) + item * (n * n * count), 0)
    # one flat table, not a copy of it for each sample
    parts = scores.flatten().gather(0, index.flatten()).view(index.shape) if n else index.double()
    return torch.where(proper, torch.where(inside, parts, 0.0).sum(-1), -torch.inf)


def labels_of(event: Tensor, scores: Tensor) -> Tensor:
    """(*s, *b, m, labels): the scores of the labels of each row; of a row of -1, of no matter what."""
    n, count = scores.shape[-2:]
    i, j, _ = event.clamp_min(0).unbind(-1)
    table = scores.flatten(-3, -2)
    table = table.expand(*event.shape[:-2], *table.shape[-2:])
    return table.gather(-2, (i * n + j).unsqueeze(-1).expand(*i.shape, count))


def relabelled(event: Tensor, label: Tensor | int) -> Tensor:
    """``event`` with these labels (*s, *b, m); rows of -1 stay."""
    i, j, _ = event.unbind(-1)
    return torch.stack([i, j, torch.where(i < 0, -1, label)], -1)


def best(event: Tensor, scores: Tensor) -> Tensor:
    """``event`` with the best label of each constituent, the lowest among equals."""
    return relabelled(event, labels_of(event, scores).argmax(-1))


def drawn(event: Tensor, scores: Tensor, seed: int, dtype: torch.dtype) -> Tensor:
    """``event`` (s, *b, m, 3) with a label for each constituent, drawn with probability exp(score) over sum.

    A label is a function of (seed, item, sample, row) alone: stream 0 of Philox, which trees leave free.
    """
    samples, *batch, rows, _ = event.shape
    items = torch.Size(batch).numel()
    u = philox.uniform(seed, samples, items, rows, dtype, event.device).reshape(event.shape[:-1])
    return relabelled(event, philox.draw(labels_of(event, scores), u))


def k_best(events: Tensor, scores: Tensor, k: int) -> Tensor:
    """The k best labelled trees (k, *b, m, 3), given the k best trees ``events`` under their best labels.

    No other spans can occur among them: each of those k trees has one labelling that is at least as good.
    Each tree's k best labellings are found row by row, and all of them are ranked together.
    """
    values, order = labels_of(events, scores).sort(dim=-1, descending=True, stable=True)
    values, order = values[..., :k], order[..., :k]
    used = events[..., 0] >= 0
    first = torch.arange(values.shape[-1], device=values.device) == 0
    values = torch.where(used.unsqueeze(-1), values, torch.where(first, 0.0, -torch.inf))
    total = torch.where(used[..., :1], 0.0, -torch.inf)  # (k, *b, labellings so far)
    chosen = order.new_empty(*total.shape, 0)
    for row in range(events.shape[-2]):
        total, parent, label = _best(total.unsqueeze(-1) + values[..., row, None, :], k)
        chosen = _continued(chosen, parent, order[..., row, :].gather(-1, label))
    return _ranked(events, total, chosen, k)[0]


def distinct(
    events: Tensor, perturbed: Tensor, log_prob: Tensor, scores: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """k labelled trees without replacement (k, *b, m, 3) and their perturbed log-probabilities (k, *b), from
    those of k trees without replacement, ``events``, under the sums over labels.

    A tree's perturbed log-probability is the largest of its labellings'. No other spans can occur. Labels are
    chosen row by row: a stochastic beam search, Kool, van Hoof and Welling (2019), section 4.2. Noise is a
    function of (seed, row), item, tree, labelling so far and label, the second and third by their ranks.
    """
    k, *batch, rows, _ = events.shape
    values = semiring.log_normalize(labels_of(events, scores))
    count, used = values.shape[-1], events[..., 0] >= 0
    first = torch.arange(count, device=values.device) == 0
    values = torch.where(used.unsqueeze(-1), values, torch.where(first, 0.0, -torch.inf))
    total, log_prob = perturbed.unsqueeze(-1), log_prob.unsqueeze(-1)  # (k, *b, labellings so far)
    chosen = events.new_empty(*total.shape, 0)
    for row in range(rows):
        like = values.new_empty(()).expand(*batch, total.shape[-1], count)
        noise = gumbel(like, event_dims=2, num_samples=k, seed=nth_seed(seed, 1 + row))
        phi = log_prob.unsqueeze(-1) + values[..., row, None, :]
        total, parent, label = _best(given_maximum(phi + noise, total), k)
        log_prob = phi.flatten(-2).gather(-1, parent * count + label)
        chosen = _continued(chosen, parent, label)
    return _ranked(events, total, chosen, k)


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best of ``scores`` (*, q, labels), (*, k), and of which of the q and which label they are."""
    total, place = scores.flatten(-2).sort(dim=-1, descending=True, stable=True)
    total, place = total[..., :k], place[..., :k]
    return total, place // scores.shape[-1], place % scores.shape[-1]


def _continued(chosen: Tensor, parent: Tensor, label: Tensor) -> Tensor:
    """Labellings (*, q, rows) ``parent`` (*, k) of ``chosen``, each with one label more."""
    chosen = chosen.gather(-2, parent.unsqueeze(-1).expand(*parent.shape, chosen.shape[-1]))
    return torch.cat([chosen, label.unsqueeze(-1)], -1)


def _ranked(events: Tensor, total: Tensor, chosen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best (k, *b, m, 3), and their scores (k, *b), of labellings ``chosen`` (k, *b, q, m) of score
    ``total`` (k, *b, q) of ``events``.
    """
    count = total.shape[-1]
    total, place = total.movedim(0, -2).flatten(-2).sort(dim=-1, descending=True, stable=True)
    total, place = (x[..., :k].movedim(-1, 0) for x in (total, place))  # (k, *b)
    all_labels = chosen.movedim(0, -3).flatten(-3, -2)  # (*b, k q, m)
    rows = torch.arange(events.shape[-2], device=events.device)
    labels = all_labels[None].expand(len(place), *all_labels.shape)
    labels = labels.gather(-2, place[..., None, None].expand(*place.shape, 1, len(rows))).squeeze(-2)
    tree = (place // count)[..., None, None].expand(*place.shape, *events.shape[-2:])
    found = relabelled(events.gather(0, tree), labels)
    found = found.masked_fill((total == -torch.inf)[..., None, None], -1)
    missing = k - len(found)
    rest = (
        found.new_full((missing, *found.shape[1:]), -1),
        total.new_full((missing, *total.shape[1:]), -torch.inf),
    )
    return torch.cat([found, rest[0]]), torch.cat([total, rest[1]])


def as_grammar(event: Tensor) -> Tensor:
    """``event`` as of a grammar of one nonterminal, 0, and one preterminal, 1; it has no tree of one row."""
    i, j, _ = event.unbind(-1)
    symbol = torch.where(i < j, 0, 1)
    tree = (i[..., :1] >= 0) & (i[..., :1] < j[..., :1])
    return torch.where(((i >= 0) & tree).unsqueeze(-1), torch.stack([i, j, symbol], -1), -1)


def choices(event: Tensor, scores: Tensor) -> Choices:
    """The choice of a label for every row."""
    used = event[..., 0] >= 0
    logits = log_softmax(labels_of(event, scores)).masked_fill(~used.unsqueeze(-1), -torch.inf)
    return Choices(logits, torch.where(used, event[..., 2], -1))


def spread(event: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """Weights (*s, *b, m, labels) of the rows of events as a chart (*s, *b, n, n, labels); elsewhere, and
    where no label has a weight, their probabilities.
    """
    n = scores.shape[-2]
    i, j, _ = event.unbind(-1)
    place = torch.where((i < 0) | (weights == 0).all(-1), n * n, i * n + j).unsqueeze(-1)
    others = torch.nn.functional.pad(semiring.softmax(scores, -1).flatten(-3, -2), (0, 0, 0, 1))
    chart = others.expand(*weights.shape[:-2], *others.shape[-2:])
    chart = chart.scatter(-2, place.expand(weights.shape), weights)
    return chart[..., :-1, :].unflatten(-2, (n, n))
