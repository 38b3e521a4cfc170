"""Choosing trees of the dense PCFG: Viterbi, max-marginals, k best, exact samples; and of scored spans.

Arguments are those of :mod:`structlv.reference.pcfg`, which exports these functions. None is differentiable.
Among equals the first alternative wins: at the top by symbol, below by split, left symbol, right symbol.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from structlv.reference import philox, semiring
from structlv.reference._grammar import Sentences, detached, inside, join
from structlv.reference._potentials import Maybe
from structlv.reference._trees import (
    by_ends,
    children,
    descend,
    events,
    inner_spans,
    no_trees,
    of_width,
    shifted,
    tree_lengths,
    whole,
)


def argmax(root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe = None, lengths: Maybe = None) -> Tensor:
    """The best tree, an event ``(*b, max(2n - 1, 0), 3)``."""
    return topk(root, rules, unary, spans, lengths, k=1)[0]


def topk(
    root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe = None, lengths: Maybe = None, *, k: int
) -> Tensor:
    """The k best trees, best first: events ``(k, *b, max(2n - 1, 0), 3)``, -1 where fewer than k exist.

    Every node keeps its k best subtrees, each with a pointer to its children's slots (symbol * k + rank). A
    node looks at all pairs k times: time O(b n^3 NT S^2 k^3).
    """
    s, n = detached(root, rules, unary, spans, lengths), unary.shape[-2]
    if n < 2 or k == 0:
        return no_trees((k, *unary.shape[:-2]), n, unary.device)
    chart, pointers = _beams(s, k)
    tops = whole(chart, s.lengths).unflatten(-1, (-1, k))[..., : root.shape[-1], :] + s.root[..., None]
    scores, slot = _best(tops.flatten(-2), k)
    top = torch.where(scores > -torch.inf, slot, -1).movedim(-1, 0)

    def choose(width: int, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pointer = pointers[width - 2].expand(*node.shape, -1).gather(-1, node[..., None])[..., 0]
        return _unpack(pointer, s.leaves.shape[-1], k)

    slots = descend(top, s.lengths, n, choose)
    return events(torch.where(slots >= 0, slots // k, -1), n)


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of the last dimension and where they are, equals in the order of their places."""
    best, index = scores.max(-1, keepdim=True)  # the first of equals
    bests, indices = [best], [index]
    for _ in range(k - 1):
        scores = scores.scatter(-1, index, -torch.inf)
        best, index = scores.max(-1, keepdim=True)
        bests.append(best)
        indices.append(index)
    return torch.cat(bests, -1), torch.cat(indices, -1)


def _beams(s: Sentences, k: int) -> tuple[list[Tensor], list[Tensor]]:
    """The chart of the slots' scores ``(*b, p, S * k)``, and for every width the pointers of nonterminals."""
    symbols, nonterminals = s.leaves.shape[-1], s.root.shape[-1]
    rest = (symbols - nonterminals) * k
    none = s.leaves.new_full((*s.leaves.shape, k - 1), -torch.inf)
    chart, pointers = [torch.cat([s.leaves[..., None], none], -1).flatten(-2)], []
    for width in range(2, s.leaves.shape[-2] + 1):
        left, right = (x.unflatten(-1, (symbols, k)) for x in children(chart, width))
        best = left.new_full((*left.shape[:-3], nonterminals, k), -torch.inf)
        pointer = torch.zeros_like(best, dtype=torch.long)
        for split in range(width - 1):
            a, b = left[..., split, :, :], right[..., split, :, :]
            pairs = a[..., :, None, :, None] + b[..., None, :, None, :]  # symbols, then ranks
            scores = s.rules[..., None, :, :, :, None, None] + pairs.unsqueeze(-5)
            new, index = _best(scores.flatten(-4), k)
            best, order = _best(torch.cat([best, new], -1), k)
            offset = split * (symbols * k) ** 2
            pointer = torch.cat([pointer, index + offset], -1).gather(-1, order)
        best = (best + torch.as_tensor(s.span(width), device=best.device)[..., None]).flatten(-2)
        chart.append(torch.nn.functional.pad(best, (0, rest), value=-torch.inf))
        pointers.append(pointer.flatten(-2))
    return chart, pointers


def _unpack(pointer: Tensor, symbols: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(((split * S + y) * S + z) * k + rank of y) * k + rank of z`` to the split and both slots."""
    pair, ranks = pointer // (k * k), pointer % (k * k)
    split, y, z = pair // symbols**2, pair // symbols % symbols, pair % symbols
    return split, y * k + ranks // k, z * k + ranks % k


def max_marginals(
    root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe = None, lengths: Maybe = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best score of any tree that uses a part; ``-inf`` where none does. Detached.

    A top symbol ``(*b, NT)``, a rule anywhere ``(*b, NT, S, S)``, a preterminal at a word ``(*b, n, T)``, a
    nonterminal over the words i..j, i < j, ``(*b, n, n, NT)``.
    """
    s, n, nonterminals = detached(root, rules, unary, spans, lengths), unary.shape[-2], root.shape[-1]
    some = (s.lengths > 1)[..., None]
    if n < 2:
        parts = [torch.full_like(x, -torch.inf) for x in (s.root, s.rules, unary)]
        parts.append(unary.new_full((*unary.shape[:-2], n, n, nonterminals), -torch.inf))
    else:
        chart = inside(s, _max)
        top = torch.where(some, s.root + whole(chart, s.lengths)[..., :nonterminals], -torch.inf)
        rule, outer = _max_outside(s, chart)
        nodes = [a + b for a, b in zip(chart, outer, strict=True)]
        covers = by_ends([x[..., :nonterminals] for x in nodes], -torch.inf)
        parts = [top, rule, nodes[0][..., nonterminals:], covers]
    top, rule, words, covers = (x.to(unary.dtype) for x in parts)
    return top, rule, words, covers


def _max(x: Tensor, dim: int) -> Tensor:
    return x.amax(dim)


def _max_outside(s: Sentences, chart: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The best tree with each rule, and the best score around every node (its own subtree left out)."""
    nonterminals, symbols, n = s.root.shape[-1], s.leaves.shape[-1], len(chart)
    best, outer = torch.full_like(s.rules, -torch.inf), []
    for width in range(1, n + 1):
        here = torch.where((s.lengths == width)[..., None], s.root, -torch.inf)
        here = torch.nn.functional.pad(here, (0, symbols - nonterminals), value=-torch.inf)
        outer.append(shifted(here.unsqueeze(-2), 0, n - width + 1, -torch.inf))
    for width in range(n, 1, -1):
        left, right = children(chart, width)
        above = (outer[width - 1][..., :nonterminals] + s.span(width))[..., None, None]
        around = above + s.rules.unsqueeze(-4)
        used = around + join(left, right).amax(-3).unsqueeze(-3)
        best, around = torch.maximum(best, used.amax(-4)), around.amax(-3)  # (*b, p, S, S)
        for k in range(width - 1):
            other = width - 2 - k
            to_left = (around + right[..., k, None, :]).amax(-1)
            to_right = (around + left[..., k, :, None]).amax(-2)
            outer[k] = torch.maximum(outer[k], shifted(to_left, 0, n - k, -torch.inf))
            outer[other] = torch.maximum(outer[other], shifted(to_right, k + 1, n - other, -torch.inf))
    return best, outer


def sample(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples: events ``(num_samples, *b, max(2n - 1, 0), 3)``, from the top down.

    A node draws which of its children are words (neither, the right one, the left one, both), then the right
    symbol and the left one given it (the left one first where the right child alone is a word), and where
    neither is a word the split; each the first whose cumulative weight exceeds u times the total. The
    uniforms depend on (seed, item, sample, span) alone:
    :func:`structlv.reference.philox.uniforms` at j (j + 1) / 2 + i of stream 1, its words for the kind, the
    left symbol, the right one, the split; of stream 2 for the top.
    """
    s, n, batch = detached(root, rules, unary, spans, lengths), unary.shape[-2], unary.shape[:-2]
    if n < 2 or s.lengths.numel() == 0 or num_samples == 0:
        return no_trees((num_samples, *batch), n, unary.device)

    def uniforms(position: Tensor, stream: int) -> Tensor:
        shape = (seed, num_samples, s.lengths.numel())
        u = philox.uniforms(*shape, position, stream, unary.dtype)
        return u.unflatten(1, batch) if batch else u.squeeze(1)  # (s, *b, p, 4)

    chart = inside(s)
    tops = s.root + whole(chart, s.lengths)[..., : root.shape[-1]]
    zero = torch.zeros(1, dtype=torch.long, device=unary.device)
    top = philox.draw(tops, uniforms(zero, 2)[..., 0, 0])
    top = torch.where(tops.amax(-1) > -torch.inf, top, -1)
    slots = descend(top, s.lengths, n, _chooser(s, chart, uniforms))
    return events(slots, n)


def _chooser(s: Sentences, chart: list[Tensor], uniforms: Callable[[Tensor, int], Tensor]) -> Callable:
    nonterminals, symbols = s.root.shape[-1], s.leaves.shape[-1]
    words = (torch.arange(symbols, device=s.leaves.device) >= nonterminals).long()
    kinds = 2 * words[:, None] + words  # of a pair of children (y, z)

    def choose(width: int, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right = children(chart, width)
        first = torch.arange(node.shape[-1], device=node.device)
        last = first + width - 1
        u = uniforms(torch.div(last * (last + 1), 2, rounding_mode="floor") + first, 1)
        rules = _rows(s.rules.flatten(-2).unsqueeze(-3), node).unflatten(-1, (symbols, symbols))
        pairs = rules + semiring.logsumexp(join(left, right), -3)  # (s, *b, p, y, z)
        of_kind = [torch.where(kinds == k, pairs, -torch.inf) for k in range(4)]
        kind = philox.draw(
            torch.stack([semiring.logsumexp(x.flatten(-2), -1) for x in of_kind], -1), u[..., 0]
        )
        pairs = torch.where(kinds == kind[..., None, None], pairs, -torch.inf)
        right_word = kind == 1
        y = philox.draw(semiring.logsumexp(pairs, -1), u[..., 1])
        z = philox.draw(semiring.logsumexp(pairs, -2), u[..., 2])
        y, z = (
            torch.where(right_word, y, philox.draw(_rows(pairs.mT, z), u[..., 1])),
            torch.where(right_word, philox.draw(_rows(pairs, y), u[..., 2]), z),
        )
        split = philox.draw(_rows(left.mT, y) + _rows(right.mT, z), u[..., 3])
        return split, y, z

    return choose


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Row ``index (*s, *b, p)`` of ``table (*b, p, rows, q)``: ``(*s, *b, p, q)``."""
    table = table.expand(*index.shape, *table.shape[-2:])
    return table.gather(-2, index[..., None, None].expand(*index.shape, 1, table.shape[-1])).squeeze(-2)


def decode(spans: Tensor, lengths: Maybe = None) -> Tensor:
    """The binary tree whose spans ``(*b, n, n)`` have the largest sum: an event in which all symbols are 0.

    Spans of one word do not count; a single word is its own tree. Ties go to the lowest split.
    """
    n = spans.shape[-1]
    lengths = tree_lengths(spans, lengths, 1)
    if n == 0:
        return no_trees(spans.shape[:-2], n, spans.device)
    scores = spans.detach().to(semiring.wide_dtype(spans.device))
    scores = torch.where(inner_spans(lengths, n), scores, 0.0).unsqueeze(-1)
    chart, splits = [torch.zeros_like(scores[..., 0, :])], []
    for width in range(2, n + 1):
        left, right = children(chart, width)
        best, split = (left + right).max(-2)
        chart.append(best + of_width(scores, width))
        splits.append(split)
    tops = whole(chart, lengths)[..., 0]
    top = torch.where((tops > -torch.inf) & (lengths > 0), 0, -1)

    def choose(width: int, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return splits[width - 2][..., 0].expand(node.shape), node, node

    return events(descend(top, lengths, n, choose), n)
