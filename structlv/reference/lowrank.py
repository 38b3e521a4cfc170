r"""The PCFG whose rules are sums of rank-one terms, in plain torch and in the space of ranks.

.. math:: rules[A,y,z] = \log \sum_q \exp(head[A,q] + left[q,y] + right[q,z])

Trees, symbols, events and scores are those of :mod:`structlv.reference.pcfg` with these rules; they are never
formed. Without a head the rank is the nonterminal itself: its children are drawn independently of each
other. Arguments of every function:

* ``root (*b, NT)``, ``head (*b, NT, r)`` or None (then r = NT), ``left (*b, r, S)`` and ``right (*b, r, S)``,
  whose batch dimensions broadcast;
* ``unary (*b, n, T)``, ``spans`` and ``lengths`` as for the PCFG.

A sum over splits costs r, not S^2: time O(b (n^3 r + n^2 r NT + n r T)); memory O(b n^2 r), and O(b n^2 r NT)
for marginals. Everything but samples is differentiable to any order.

Sources: Cohen, Satta and Collins (2013), "Approximate PCFG parsing using tensor decomposition", section 4;
Yang, Zhao and Tu (2021), "PCFGs can do better: inducing probabilistic context-free grammars with many
symbols", section 3; Liu et al. (2023), "Simple hardware-efficient PCFGs with independent left and right
productions", section 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from structlv.reference import philox, semiring
from structlv.reference._lowrank import Charts, Descent, Flow, Sentences, inside, prepare
from structlv.reference._potentials import Maybe, narrow
from structlv.reference._trees import by_ends, children, descend, events, links, no_trees

__all__ = ["has_nan", "hvp", "log_partition", "marginals", "sample", "score", "to_dense"]


def to_dense(head: Maybe, left: Tensor, right: Tensor) -> Tensor:
    """``rules (*b, NT, S, S)``: O(NT r S^2) time, and memory where a gradient is wanted."""
    pairs = left.unsqueeze(-1) + right.unsqueeze(-2)  # (*b, r, S, S)
    if head is None:
        return pairs
    return torch.stack([semiring.logsumexp(row[..., None, None] + pairs, -3) for row in head.unbind(-2)], -3)


def log_partition(
    root: Tensor,
    head: Maybe,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all trees, ``(*b)`` nats; ``-inf`` if none is possible."""
    s = prepare(root, head, left, right, unary, spans, lengths)
    if unary.shape[-2] < 2:  # zeros: what is unused has a gradient, of zeros
        tables = [x.sum((-2, -1)) for x in (s.head, s.left, s.right, s.words) if x is not None]
        used = [s.root.sum(-1), *tables]
        used += [] if s.spans is None else [s.spans.sum((-3, -2, -1))]
        total = torch.stack(torch.broadcast_tensors(*used)).sum(0)
    else:
        total = semiring.logsumexp(inside(s).top(s), -1)
    total = torch.where(s.lengths > 1, total, -torch.inf)
    return total if as_double else narrow(total, unary)


def marginals(
    root: Tensor,
    head: Maybe,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    with_rules: bool = True,
    with_spans: bool = True,
) -> tuple[Tensor, Maybe, Maybe, Maybe, Tensor, Maybe]:
    """Posterior expectations; 0 in padding or if nothing is possible. None for an absent head, and for what
    is not asked for: rules (head, left and right), spans.

    The symbol at the top ``(*b, NT)``; how often a nonterminal takes a rank ``(*b, NT, r)``, a rank a left
    and a right symbol ``(*b, r, S)``; the preterminal of a word ``(*b, n, T)``; whether a nonterminal covers
    the words i..j, i < j, ``(*b, n, n, NT)``.
    """
    s, n = prepare(root, head, left, right, unary, spans, lengths), unary.shape[-2]
    if n < 2:
        masses, covers = _no_parts(root, head, left, right, unary)
    else:
        flows = Descent(s).run()
        found = (flows.root, flows.head, flows.left, flows.right, flows.words)
        masses = [None if x is None else x.mass.to(unary.dtype) for x in found]
        covers = _covers([x.mass for x in flows.spans]).to(unary.dtype) if with_spans else None
    if not with_rules:
        masses[1:4] = [None] * 3
    return (*masses, covers if with_spans else None)


def _covers(spans: list[Tensor]) -> Tensor:
    """Spans by width from 2 as ``(*b, n, n, NT)``."""
    n = len(spans) + 1
    words = torch.zeros_like(spans[-1]).expand(*spans[-1].shape[:-2], n, spans[-1].shape[-1])
    return by_ends([words, *spans], 0.0)


def _no_parts(root: Tensor, head: Maybe, left: Tensor, right: Tensor, unary: Tensor) -> tuple:
    batch, n, nonterminals = unary.shape[:-2], unary.shape[-2], root.shape[-1]
    sides = [None if x is None else unary.new_zeros(*batch, *x.shape[-2:]) for x in (head, left, right)]
    masses = [unary.new_zeros(*batch, nonterminals), *sides, torch.zeros_like(unary)]
    return masses, unary.new_zeros(*batch, n, n, nonterminals)


def hvp(
    grad: Maybe,
    v_root: Tensor,
    v_head: Maybe,
    v_left: Tensor,
    v_right: Tensor,
    v_unary: Tensor,
    v_spans: Maybe,
    root: Tensor,
    head: Maybe,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Maybe,
    lengths: Maybe,
) -> tuple[Tensor, ...]:
    """``(<v, marginals> (*b), gradients)`` of the sum over items of ``grad <v, marginals>``.

    Gradients come in the shapes of root, head, left, right, unary and spans (size 0 where absent). They are
    covariances of parts with the sum of v over all parts, by conditional expectations: no autograd.
    """
    given = (root, head, left, right, unary, spans)
    if unary.shape[-2] < 2:
        zeros = [unary.new_zeros(0 if x is None else x.shape) for x in given]
        return unary.new_zeros(unary.shape[:-2]), *zeros
    s = prepare(root, head, left, right, unary, spans, lengths)
    descent = Descent(s, prepare(v_root, v_head, v_left, v_right, v_unary, v_spans, lengths))
    flows = descent.run()
    covers = _covers([_cov(x) for x in flows.spans]) if spans is not None else None
    found = [x and _cov(x) for x in (flows.root, flows.head, flows.left, flows.right)]
    gradients = [
        unary.new_zeros(0) if like is None or x is None else _weighted(x, grad, s.lengths.dim(), like)
        for x, like in zip([*found, _cov(flows.words), covers], given, strict=True)
    ]
    return descent.mean_score.to(unary.dtype), *gradients


def _cov(flow: Flow) -> Tensor:
    assert flow.cov is not None
    return flow.cov


def _weighted(x: Tensor, grad: Maybe, batch_dims: int, like: Tensor) -> Tensor:
    """The sum over items of ``grad`` times ``x (*b, ...)``, in the shape of ``like``."""
    if grad is not None:
        x = x * grad.to(x.dtype).reshape(grad.shape + (1,) * (x.dim() - batch_dims))
    return x.sum_to_size(like.shape).to(like.dtype)


def score(
    event: Tensor,
    root: Tensor,
    head: Maybe,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
) -> Tensor:
    """The score of ``event (*s, *b, m, 3)``: ``(*s, *b)`` float64 nats; ``-inf`` if it is no tree.
    Reads the rows of the grammar that the tree uses: O(s b n r) time and memory.
    """
    s, n, nonterminals = (
        prepare(root, head, left, right, unary, spans, lengths),
        unary.shape[-2],
        root.shape[-1],
    )
    if n < 2:
        return s.words.new_full(event.shape[:-2], -torch.inf)
    inner, first_child, second_child, proper = links(event, s.lengths)
    used = torch.arange(2 * n - 1, device=event.device) < 2 * s.lengths[..., None] - 1
    first, last, symbol = torch.where(used[..., None], event, 0).unbind(-1)
    above = (symbol >= 0) & (symbol < nonterminals)
    below = (symbol >= nonterminals) & (symbol < s.left.shape[-1])
    legal = proper & (torch.where(inner, above, below) | ~used).all(-1)
    first, last, symbol = first.clamp(0, n - 1), last.clamp(0, n - 1), symbol.clamp(0, s.left.shape[-1] - 1)
    label = symbol.clamp(max=nonterminals - 1)
    y, z = symbol.gather(-1, first_child), symbol.gather(-1, second_child)
    nodes = rule_scores(s, label, y, z)
    if s.spans is not None:
        labels = s.spans.shape[-1]
        nodes = nodes + _pick(s.spans.flatten(-3), (first * n + last) * labels + label.clamp(max=labels - 1))
    words = _pick(s.words.flatten(-2), first * unary.shape[-1] + (symbol - nonterminals).clamp(min=0))
    parts = torch.where(inner, nodes, torch.where(used, words, 0.0))
    total = _pick(s.root, label[..., :1])[..., 0] + parts.sum(-1)
    return torch.where(legal, total, -torch.inf)


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Entries ``index (*s, *b, m)`` of ``table (*b, q)``."""
    return table.expand(*index.shape[:-1], table.shape[-1]).gather(-1, index)


def rule_scores(s: Sentences, symbol: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The scores of rules ``symbol -> y z``, each ``(*s, *b, m)``, by the rows of the grammar they need."""
    if s.head is None:
        symbols = s.left.shape[-1]
        return _pick(s.left.flatten(-2), symbol * symbols + y) + _pick(
            s.right.flatten(-2), symbol * symbols + z
        )
    return semiring.logsumexp(_rows(s.head, symbol) + _rows(s.left.mT, y) + _rows(s.right.mT, z), -1)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows ``index (*s, *b, m)`` of ``table (*b, rows, q)``: ``(*s, *b, m, q)``."""
    table = table.expand(*index.shape[:-1], *table.shape[-2:])
    return table.gather(-2, index[..., None].expand(*index.shape, table.shape[-1]))


def sample(
    root: Tensor,
    head: Maybe,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples: events ``(num_samples, *b, max(2n - 1, 0), 3)``, from the top down.

    A node draws its rank, then the split, then the left and the right symbol, each the first whose cumulative
    weight exceeds u times the total. The uniforms depend on (seed, item, sample, span) alone:
    :func:`structlv.reference.philox.uniforms` at j (j + 1) / 2 + i of stream 1, whose last word draws the
    rank; of stream 2 for the top.
    """
    given = (root, head, left, right, unary, spans)
    s = prepare(*[x if x is None else x.detach() for x in given], lengths)  # type: ignore
    n, batch = unary.shape[-2], unary.shape[:-2]
    if n < 2 or s.lengths.numel() == 0 or num_samples == 0:
        return no_trees((num_samples, *batch), n, unary.device)

    def uniforms(place: Tensor, stream: int) -> Tensor:
        u = philox.uniforms(seed, num_samples, s.lengths.numel(), place, stream, unary.dtype)
        return u.unflatten(1, batch) if batch else u.squeeze(1)  # (s, *b, p, 4)

    charts = inside(s)
    tops = charts.top(s)
    zero = torch.zeros(1, dtype=torch.long, device=unary.device)
    top = philox.draw(tops, uniforms(zero, 2)[..., 0, 0])
    top = torch.where(tops.amax(-1) > -torch.inf, top, -1)
    return events(descend(top, s.lengths, n, _chooser(s, charts, uniforms)), n)


def _chooser(s: Sentences, charts: Charts, uniforms: Callable[[Tensor, int], Tensor]) -> Callable:
    nonterminals, preterminals = s.root.shape[-1], s.words.shape[-1]
    pad = torch.nn.functional.pad
    symbols = [pad(charts.symbol[0], (nonterminals, 0), value=-torch.inf)]
    symbols += [pad(x, (0, preterminals), value=-torch.inf) for x in charts.symbol[1:]]

    def choose(width: int, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = torch.arange(node.shape[-1], device=node.device)
        last = first + width - 1
        u = uniforms(torch.div(last * (last + 1), 2, rounding_mode="floor") + first, 1)
        rank = node
        if s.head is not None:
            rank = philox.draw(_rows(s.head, node) + charts.rank[width - 2], u[..., 3])
        split = philox.draw(_at(charts.pairs(width).mT, rank), u[..., 0])
        below = children(symbols, width)
        y = philox.draw(_rows(s.left, rank) + _at(below[0], split), u[..., 1])
        z = philox.draw(_rows(s.right, rank) + _at(below[1], split), u[..., 2])
        return split, y, z

    return choose


def _at(table: Tensor, index: Tensor) -> Tensor:
    """Row ``index (*s, *b, p)`` of each ``table (*b, p, rows, q)``: ``(*s, *b, p, q)``."""
    table = table.expand(*index.shape, *table.shape[-2:])
    return table.gather(-2, index[..., None, None].expand(*index.shape, 1, table.shape[-1])).squeeze(-2)


def has_nan(
    root: Tensor,
    head: Maybe,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
) -> bool:
    """Is there a NaN in a potential that some tree can use? Padding is ignored."""
    potentials = prepare(root, head, left, right, unary, spans, lengths)[:-1]
    return any(x is not None and bool(x.isnan().any()) for x in potentials)
