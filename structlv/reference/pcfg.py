r"""The PCFG with dense binary rules in plain torch: log-partition, marginals, trees, samples, scores.

A structure is a binary tree over the words of a sentence; its inner nodes are nonterminals, its leaves, one a
word, preterminals. Its score, in nats:

.. math:: root[A_{0,l-1}] + \sum_{(i,j,A) \to y z} (rules[A,y,z] + spans[i,j,A]) + \sum_i unary[i, y_i].

Symbols 0..NT-1 are the nonterminals and NT..S-1 the T preterminals, S = NT + T. Arguments of every function:

* ``root (*b, NT)`` and ``rules (*b, NT, S, S)``, whose batch dimensions broadcast;
* ``unary (*b, n, T)``, with the full batch shape: symbol NT + t at a word has the score ``unary[..., t]``;
* ``spans (*b, n, n, NT)`` or ``(*b, n, n, 1)`` or None: the score of a nonterminal over words i..j, both
  included, read for i < j alone; its batch dimensions broadcast;
* ``lengths (*b)`` int64 or None, clamped to ``0..n``. Padding is never read into a result, not even a NaN.

An event is int64 ``(*b, max(2n - 1, 0), 3)``: rows (i, j, symbol) in pre-order, leaves included, -1 in the
padding and, everywhere, where no tree is possible. A sentence of fewer than two words has no tree.

Sums are formed in float64 where the device has it and returned in the dtype of ``unary`` (scalars of
half-precision input in float32). Everything but the integer results and ``max_marginals`` is differentiable
to any order. Time O(b n^3 S^2 + b n^2 NT S^2); a gradient takes as much memory.

Sources: Lari and Young (1990), section 3, for inside and outside; Huang and Chiang (2005), algorithm 1, for
k best; Johnson, Griffiths and Goldwater (2007), section 3, for samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structlv.reference import semiring
from structlv.reference._grammar import Sentences, inside, join, prepare
from structlv.reference._potentials import Maybe, narrow
from structlv.reference._trees import by_ends, children, inner_spans, links, shifted, tree_lengths, whole
from structlv.reference.pcfg_distinct import sample_distinct
from structlv.reference.pcfg_search import argmax, decode, max_marginals, sample, topk

__all__ = [
    "argmax",
    "decode",
    "has_nan",
    "inside_scores",
    "log_partition",
    "marginals",
    "max_marginals",
    "sample",
    "sample_distinct",
    "score",
    "topk",
]


def log_partition(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all trees, ``(*b)`` nats; ``-inf`` if none is possible."""
    s = prepare(root, rules, unary, spans, lengths)
    if unary.shape[-2] < 2:
        total = s.root.sum(-1) + s.rules.sum((-3, -2, -1))  # zeros: what is unused has a gradient, of zeros
        total = total + s.leaves[..., root.shape[-1] :].sum((-2, -1))
        total = total if s.spans is None else total + s.spans.sum((-3, -2, -1))
    else:
        total = semiring.logsumexp(_tops(s, inside(s)), -1)
    total = torch.where(s.lengths > 1, total, -torch.inf)
    return total if as_double else narrow(total, unary)


def _tops(s: Sentences, chart: list[Tensor]) -> Tensor:
    """The sum over the trees of a sentence with a given nonterminal at the top, ``(*b, NT)``."""
    return s.root + whole(chart, s.lengths)[..., : s.root.shape[-1]]


def inside_scores(
    root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe = None, lengths: Maybe = None
) -> Tensor:
    """The log of the sum over the trees of the words i..j with a symbol at the top: ``(*b, n, n, S)``;
    -inf where i > j. Differentiable to any order.
    """
    s, n = prepare(root, rules, unary, spans, lengths), unary.shape[-2]
    if n == 0:
        return s.leaves.new_empty((*s.leaves.shape[:-2], 0, 0, s.leaves.shape[-1]))
    inner = by_ends(inside(s), -torch.inf)
    words = torch.eye(n, dtype=torch.bool, device=unary.device)[..., None]
    return torch.where(words, s.leaves.unsqueeze(-2), inner)


def marginals(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    with_rules: bool = True,
    with_spans: bool = True,
) -> tuple[Tensor, Maybe, Tensor, Maybe]:
    """Posterior expectations; 0 in padding or if nothing is possible. None for what is not asked for.

    The symbol at the top ``(*b, NT)``; how often a rule is used ``(*b, NT, S, S)``; the preterminal of a word
    ``(*b, n, T)``; whether a nonterminal covers the words i..j, i < j, ``(*b, n, n, NT)``. A node's mass goes
    down along p(pair of children | node) and p(split | pair), so that large numbers are never subtracted.
    """
    s, n, nonterminals = prepare(root, rules, unary, spans, lengths), unary.shape[-2], root.shape[-1]
    if n < 2:
        top, counts, words = torch.zeros_like(s.root), torch.zeros_like(s.rules), torch.zeros_like(unary)
        covers = unary.new_zeros((*unary.shape[:-2], n, n, nonterminals))
    else:
        chart = inside(s)
        top = torch.where((s.lengths > 1)[..., None], semiring.softmax(_tops(s, chart), -1), 0.0)
        counts, mass = _outside(s, chart, top)
        words = mass[0][..., nonterminals:]
        covers = by_ends([x[..., :nonterminals] for x in mass], 0.0)
    return (
        top.to(unary.dtype),
        counts.to(unary.dtype) if with_rules else None,
        words.to(unary.dtype),
        covers.to(unary.dtype) if with_spans else None,
    )


def _outside(s: Sentences, chart: list[Tensor], top: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Expected counts of the rules, and the probability of every node as a chart."""
    nonterminals, symbols, n = top.shape[-1], s.leaves.shape[-1], len(chart)
    counts, mass = torch.zeros_like(s.rules), []
    for width in range(1, n + 1):
        here = torch.where((s.lengths == width)[..., None], top, 0.0)
        here = torch.nn.functional.pad(here, (0, symbols - nonterminals))
        mass.append(shifted(here.unsqueeze(-2), 0, n - width + 1, 0.0))
    for width in range(n, 1, -1):
        splits = join(*children(chart, width))
        used = semiring.softmax(s.apply(semiring.logsumexp(splits, -3)), -1)
        used = (used * mass[width - 1][..., :nonterminals, None]).unflatten(-1, (symbols, symbols))
        counts = counts + used.sum(-4)
        splits = semiring.softmax(splits, -3) * used.sum(-3).unsqueeze(-3)
        for k, pairs in enumerate(splits.unbind(-3)):
            other = width - 2 - k  # the children have k + 1 and other + 1 words
            mass[k] = mass[k] + shifted(pairs.sum(-1), 0, n - k, 0.0)
            mass[other] = mass[other] + shifted(pairs.sum(-2), k + 1, n - other, 0.0)
    return counts, mass


def score(
    event: Tensor,
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
) -> Tensor:
    """The score of ``event (*s, *b, m, 3)``: ``(*s, *b)`` float64 nats; ``-inf`` if it is no tree.

    A tree has the sentence's words as leaves, preterminals there and nonterminals above, rows in pre-order.
    Linear in the potentials: the gradient counts how often the tree uses each part.
    """
    s, n, nonterminals = prepare(root, rules, unary, spans, lengths), unary.shape[-2], root.shape[-1]
    if n < 2:
        return s.leaves.new_full(event.shape[:-2], -torch.inf)
    inner, left, right, proper = links(event, s.lengths)
    used = torch.arange(2 * n - 1, device=event.device) < 2 * s.lengths[..., None] - 1
    first, last, symbol = torch.where(used[..., None], event, 0).unbind(-1)
    above = (symbol >= 0) & (symbol < nonterminals)
    below = (symbol >= nonterminals) & (symbol < s.leaves.shape[-1])
    legal = proper & (torch.where(inner, above, below) | ~used).all(-1)
    symbol = symbol.clamp(0, s.leaves.shape[-1] - 1)
    rows = (first.clamp(0, n - 1), last.clamp(0, n - 1), symbol.clamp(max=nonterminals - 1))
    nodes = _nodes(s, rows, symbol.gather(-1, left), symbol.gather(-1, right))
    words = _pick(s.leaves.flatten(-2), rows[0] * s.leaves.shape[-1] + symbol)
    parts = torch.where(inner, nodes, torch.where(used, words, 0.0))
    total = _pick(s.root, rows[2][..., :1])[..., 0] + parts.sum(-1)
    return torch.where(legal, total, -torch.inf)


def _nodes(s: Sentences, rows: tuple[Tensor, ...], left: Tensor, right: Tensor) -> Tensor:
    """Scores of rows (i, j, nonterminal) with these symbols as children, ``(*s, *b, m)``."""
    first, last, symbol = rows
    symbols, n = s.leaves.shape[-1], s.leaves.shape[-2]
    rules = _pick(s.rules.flatten(-3), (symbol * symbols + left) * symbols + right)
    if s.spans is None:
        return rules
    labels = s.spans.shape[-1]
    return rules + _pick(s.spans.flatten(-3), (first * n + last) * labels + symbol.clamp(max=labels - 1))


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Entries ``index (*s, *b, m)`` of ``table (*b, q)``."""
    return table.expand(*index.shape[:-1], table.shape[-1]).gather(-1, index)


def has_nan(root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe = None, lengths: Maybe = None) -> bool:
    """Is there a NaN among the potentials? Padding is ignored, and spans that are not i < j."""
    n, lengths = unary.shape[-2], tree_lengths(unary, lengths, 1)
    words = torch.arange(n, device=unary.device) < lengths[..., None]
    read = [root, rules, torch.where(words[..., None], unary, 0.0)]
    if spans is not None:
        read.append(torch.where(inner_spans(lengths, n)[..., None], spans, 0.0))
    return any(bool(x.isnan().any()) for x in read)
