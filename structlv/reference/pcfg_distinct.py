"""Trees of the dense PCFG without replacement. :mod:`structlv.reference.pcfg` exports the function."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from structlv.reference import distinct, semiring
from structlv.reference._grammar import detached, inside
from structlv.reference._potentials import Maybe
from structlv.reference._trees import whole

_Node: TypeAlias = tuple[int, int, int]


def sample_distinct(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    k: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """``k`` different trees ``(k, *b, max(2n - 1, 0), 3)`` without replacement, and their perturbed
    log-probabilities ``(k, *b)``.

    The symbol of the whole is chosen first; then, node by node in pre-order, the split, the left child, the
    right child; see :mod:`structlv.reference.distinct`.
    """
    s, n = detached(root, rules, unary, spans, lengths), unary.shape[-2]
    batch, items, rows = unary.shape[:-2], s.lengths.numel(), (max(2 * n - 1, 0), 3)
    if n < 2:
        return distinct.stacked([[] for _ in range(items)], k, s.lengths, rows)

    def flat(x: Tensor, core: int) -> Tensor:
        return x.expand(*batch, *x.shape[x.dim() - core :]).reshape(items, *x.shape[x.dim() - core :]).cpu()

    chart = inside(s)
    tops = flat(s.root + whole(chart, s.lengths)[..., : root.shape[-1]], 1)
    table, grammar = [flat(x, 2) for x in chart], flat(s.rules, 3)
    found: list[list[tuple[Tensor, float]]] = []
    for item, length in enumerate(s.lengths.flatten().tolist()):
        choices = _Tree(tops[item], grammar[item], [x[item] for x in table], length)
        trees = distinct.gumbel_top_k(choices, k, seed, item) if length > 1 else []
        # pre-order: by beginning, the widest first
        ordered = [(sorted(tree.nodes, key=lambda x: (x[0], -x[1])), value) for tree, value in trees]
        found.append([(torch.tensor(nodes), value) for nodes, value in ordered])
    return distinct.stacked(found, k, s.lengths, rows)


class _State(NamedTuple):
    nodes: tuple[_Node, ...] = ()  # that the tree has so far
    open: tuple[_Node, ...] = ()  # of those, the ones that are yet to be divided
    split: int | None = None  # of the first of them, where that is chosen
    left: int | None = None  # its left symbol


class _Tree:
    """Choices of a sentence's tree. A symbol is chosen among those that a node of its width can have."""

    start = _State()

    def __init__(self, tops: Tensor, rules: Tensor, chart: list[Tensor], length: int) -> None:
        self.tops, self.rules, self.chart, self.length = tops, rules, chart, length

    def symbols(self, i: int, j: int) -> range:
        nonterminals, symbols = self.rules.shape[:2]
        return range(nonterminals, symbols) if i == j else range(nonterminals)

    def pairs(self, node: _Node, split: int) -> Tensor:
        """Log-weights of the pairs of children at a split."""
        i, j, a = node
        y, z = self.symbols(i, split), self.symbols(split + 1, j)
        left, right = self.chart[split - i][i, y.start : y.stop], self.chart[j - split - 1][split + 1]
        rules = self.rules[a, y.start : y.stop, z.start : z.stop]
        return left[:, None] + (rules + right[z.start : z.stop])

    def weigh(self, state: _State) -> Tensor | None:
        if not state.nodes:
            return self.tops
        if not state.open:
            return None
        node = state.open[0]
        if state.split is None:
            splits = [self.pairs(node, split).flatten() for split in range(node[0], node[1])]
            return torch.stack([semiring.logsumexp(x, -1) for x in splits])
        pairs = self.pairs(node, state.split)
        return semiring.logsumexp(pairs, -1) if state.left is None else pairs[state.left]

    def enter(self, state: _State, choice: int) -> _State:
        if not state.nodes:
            top = (0, self.length - 1, choice)
            return _State((top,), (top,))
        (i, j, _), *rest = state.open
        if state.split is None:
            return state._replace(split=i + choice)
        if state.left is None:
            return state._replace(left=choice)
        left = (i, state.split, self.symbols(i, state.split)[state.left])
        right = (state.split + 1, j, self.symbols(state.split + 1, j)[choice])
        inner = tuple(x for x in (left, right) if x[0] < x[1])
        return _State((*state.nodes, left, right), (*inner, *rest))
