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

    The symbol of the whole is chosen first; then, node by node in pre-order, which of its children are words,
    the two children, the split, as :func:`structlv.reference.pcfg.sample` does; see
    :mod:`structlv.reference.distinct`.
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
    made: tuple[int, ...] = ()  # choices at the first of them: the kind, a child, the other, the split


class _Tree:
    """Choices of a sentence's tree. A symbol is chosen among those that a node of its width can have."""

    start = _State()

    def __init__(self, tops: Tensor, rules: Tensor, chart: list[Tensor], length: int) -> None:
        self.tops, self.rules, self.chart, self.length = tops, rules, chart, length

    def symbols(self, word: bool) -> range:
        nonterminals, symbols = self.rules.shape[:2]
        return range(nonterminals, symbols) if word else range(nonterminals)

    def splits(self, node: _Node, kind: int) -> range:
        """Last words of left children. Kinds 2 and 3 have a word on the left, 1 and 3 on the right."""
        i, j, _ = node
        if (kind == 3) != (j == i + 1):  # two words have this kind alone
            return range(0)
        return (range(i + 1, j - 1), range(j - 1, j), range(i, i + 1), range(i, i + 1))[kind]

    def pairs(self, node: _Node, kind: int) -> Tensor:
        """Log-weights of the pairs of children of a kind at each split, (splits, y, z)."""
        (i, j, a), y, z = node, self.symbols(kind >= 2), self.symbols(kind % 2 == 1)
        rules = self.rules[a, y.start : y.stop, z.start : z.stop]
        splits = self.splits(node, kind)
        if not splits:
            return torch.full((1, *rules.shape), -torch.inf, dtype=rules.dtype)
        left = torch.stack([self.chart[k - i][i, y.start : y.stop] for k in splits])
        right = torch.stack([self.chart[j - k - 1][k + 1, z.start : z.stop] for k in splits])
        return left[:, :, None] + right[:, None] + rules

    def weigh(self, state: _State) -> Tensor | None:
        if not state.nodes:
            return self.tops
        if not state.open:
            return None
        node = state.open[0]
        if not state.made:
            return torch.stack([semiring.logsumexp(self.pairs(node, k).flatten(), 0) for k in range(4)])
        kind, *made = state.made
        pairs = self.pairs(node, kind)
        if kind != 1:  # the right child first
            pairs = pairs.mT
        if len(made) == 2:
            return pairs[:, made[0], made[1]]
        pairs = semiring.logsumexp(pairs, 0)
        return pairs[made[0]] if made else semiring.logsumexp(pairs, -1)

    def enter(self, state: _State, choice: int) -> _State:
        if not state.nodes:
            top = (0, self.length - 1, choice)
            return _State((top,), (top,))
        made = (*state.made, choice)
        if len(made) < (4 if made[0] == 0 else 3):
            return state._replace(made=made)
        (i, j, _), *rest = state.open
        kind, first, second = made[:3]
        split = self.splits(state.open[0], kind)[made[3] if kind == 0 else 0]
        y, z = (first, second) if kind == 1 else (second, first)
        left = (i, split, self.symbols(kind >= 2)[y])
        right = (split + 1, j, self.symbols(kind % 2 == 1)[z])
        inner = tuple(x for x in (left, right) if x[0] < x[1])
        return _State((*state.nodes, left, right), (*inner, *rest))
