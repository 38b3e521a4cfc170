r"""The PCFG whose rules are a list, with unary rules, in plain torch: for grammars of thousands of symbols.

A structure is a tree over the words of a sentence; each of its nodes is built by a binary rule A -> y z or a
unary rule A -> y, and its leaves, one a word, are preterminals. Its score, in nats:

.. math:: root[A_{0,l-1}] + \sum_{rules\ used} scores[rule] + \sum_i unary[i, y_i]
          + \sum_{(i,j,A),\ i<j} spans[i, j, A].

Symbols 0..NT-1 are the nonterminals and NT..S-1 the T preterminals, S = NT + T. Arguments of every function:

* ``root (*b, NT)`` and ``scores (*b, r)``, whose batch dimensions broadcast;
* ``index (r, 3)`` int64, rows (A, y, z), each once; z = -1 is a unary rule, and unary rules have no cycle;
* ``unary (*b, n, T)``, with the full batch shape: symbol NT + t at a word has the score ``unary[..., t]``;
* ``spans (*b, n, n, NT)``: the score of a nonterminal over words i..j, both included, read for i < j alone;
  or ``(*b, n, n, 1)``: that of a constituent, counted once for all symbols that cover it; or None;
* ``lengths (*b)`` int64 or None, clamped to ``0..n``. Padding is never read into a result, not even a NaN.

An event is int64 ``(*b, m, 3)``: rows (i, j, symbol) in pre-order, leaves included, a unary parent right
above its child with the same span; -1 behind the tree and, everywhere, where no tree is possible. With c
the number of unary rules in the longest chain of them, m = (1 + c)(2n - 1). An empty sentence has no tree.

The ways to build a node have one order, which breaks ties and along which samples count: binary rules by
split, left symbol, right symbol; then unary rules by symbol.

Sums are formed in float64 where the device has it and returned in the dtype of ``unary`` (scalars of
half-precision input in float32). log_partition, marginals and score are differentiable to any order. Time and
memory O(b n^3 r): the kernels visit what is possible only.

Sources: Lari and Young (1990), section 3; Stolcke (1995), section 4.5, for unary rules; Huang and Chiang
(2005), algorithm 1, for k best; Johnson, Griffiths and Goldwater (2007), section 3, for samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.reference import semiring
from structlv.reference._forest import used_parts
from structlv.reference._potentials import Maybe, narrow
from structlv.reference._sparse import CORES, Sentences, inside, layers, prepare, tops
from structlv.reference._sparse_join import lean_join
from structlv.reference.sparse_search import argmax, max_marginals, sample, sample_distinct, topk

__all__ = [
    "argmax",
    "depth",
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


def depth(index: Tensor) -> int:
    """How many unary rules the longest chain of them has; ``ValueError`` where they have a cycle."""
    return len(layers(index))


def log_partition(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all trees, ``(*b)`` nats; ``-inf`` if none is possible."""
    total = _total(prepare(root, index, scores, unary, spans, lengths))
    return total if as_double else narrow(total, unary)


def _total(s: Sentences) -> Tensor:
    n = s.leaves.shape[-2]
    total = (
        semiring.logsumexp(tops(s, inside(s)), -1)
        if n > 0
        else s.leaves.new_full(s.lengths.shape, -torch.inf)
    )
    if n > 1:
        return total
    for x, core in zip(s.tables(), CORES, strict=True):  # what is unused has a gradient, of zeros
        if x is not None:
            total = total + torch.where(torch.zeros_like(x, dtype=torch.bool), x, 0.0).flatten(-core).sum(-1)
    return total


def inside_scores(
    root: Tensor, index: Tensor, scores: Tensor, unary: Tensor, spans: Maybe = None, lengths: Maybe = None
) -> Tensor:
    """The log of the sum over the trees of the words i..j with a symbol at the top.

    ``(*b, n (n + 1) / 2, S)``, by the number of words and then by i; what lies in the padding means nothing.
    Differentiable once. Time O(b n^3 r), memory O(b n^2 S + b n r).
    """
    s = prepare(root, index, scores, unary, spans, lengths)
    return torch.cat(inside(s, join=lean_join), -2)


def marginals(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    with_rules: bool = True,
    labels: int = 1,
) -> tuple[Tensor, Maybe, Tensor, Maybe]:
    """Posterior expectations; 0 in padding or if nothing is possible. None for what is not asked for.

    The symbol at the top ``(*b, NT)``; how often a rule is used ``(*b, r)``; the preterminal of a word
    ``(*b, n, T)``; for ``labels`` = 1 whether words i..j, i < j, are a constituent ``(*b, n, n, 1)``, for NT
    whether a nonterminal covers them ``(*b, n, n, NT)``, for 0 None. They are the gradient of log Z.
    """
    batch, n = unary.shape[:-2], unary.shape[-2]
    zero = unary.new_zeros((*batch, n, n, max(labels, 1)))
    cells, covers = (spans, None) if spans is None or spans.shape[-1] == 1 else (None, spans)

    def total(root: Tensor, scores: Tensor, unary: Tensor, extra: Tensor) -> Tensor:
        both = [extra if x is None else x + extra for x in (cells, covers)]
        given = (both[0], covers) if labels < 2 else (cells, both[1])
        return _total(prepare(root, index, scores, unary, given[0], lengths, given[1]))

    own = (root.expand(*batch, -1), scores.expand(*batch, -1), unary, zero)
    pull: Any
    value, pull = torch.func.vjp(total, *own)  # type: ignore[misc]
    top, rule, words, node = pull(torch.ones_like(value))
    return top, rule if with_rules else None, words, node if labels else None


def score(
    event: Tensor,
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
) -> Tensor:
    """The score of ``event (*s, *b, m, 3)``: ``(*s, *b)`` float64 nats; ``-inf`` if it is no tree.

    Linear in the potentials: the gradient counts how often the tree uses each part. Rows behind the
    tree are not looked at.
    """
    s, batch = prepare(root, index, scores, unary, spans, lengths), unary.shape[:-2]
    used, legal = used_parts(event, s)
    total = s.root.new_zeros(event.shape[:-2])
    for table, core, places in zip(s.tables(), CORES, used, strict=True):
        if table is not None:
            flat = table.expand(*batch, *table.shape[table.dim() - core :]).flatten(-core)
            flat = torch.nn.functional.pad(flat, (1, 0))  # place 0: nothing
            found = flat.expand(*places.shape[:-1], -1).gather(-1, places + 1)
            total = total + torch.where(places < 0, 0.0, found).sum(-1)
    return torch.where(legal, total, -torch.inf)


def has_nan(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
) -> bool:
    """Is there a NaN in a potential that some tree can use? Padding is ignored."""
    s = prepare(root, index, scores, unary, spans, lengths)
    return any(bool(x.isnan().any()) for x in s.tables() if x is not None)
