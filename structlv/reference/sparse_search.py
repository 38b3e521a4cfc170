"""Choosing trees of the sparse PCFG: Viterbi, max-marginals, k best, exact samples.

Arguments are those of :mod:`structlv.reference.sparse_pcfg`, which exports these functions. None is
differentiable. Sentences are parsed one by one, in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, groupby, product
from math import exp
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv.reference import distinct, philox
from structlv.reference._forest import Forest, Node, Rows, Way, as_event, forests
from structlv.reference._potentials import Maybe
from structlv.reference._sparse import LOG, MAX

_NONE = -float("inf")


def argmax(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
) -> Tensor:
    """The best tree, an event ``(*b, m, 3)``; all -1 where none is possible. Ties go to the first way."""
    s, items = forests((root, index, scores, unary, spans, lengths), MAX)

    def best(ways: list[Way]) -> tuple[Node, ...]:
        return max(ways, key=lambda way: way.score).children

    def tree(f: Forest) -> Rows:
        return f.tree(best(f.tops)[0], lambda node: best(f.ways(node))) if f.tops else []

    return as_event([[tree(forest)] for forest in items], 1, s)[0]


class Derivation(NamedTuple):
    """A tree: its score, the number of the way to build its top, the ranks of the children's trees."""

    score: float
    way: int
    ranks: tuple[int, ...]


def topk(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    k: int,
) -> Tensor:
    """The k best trees, best first: events ``(k, *b, m, 3)``, -1 where fewer than k exist."""
    s, items = forests((root, index, scores, unary, spans, lengths), MAX)
    return as_event([_best(forest, k) for forest in items], k, s)


def _best(forest: Forest, k: int) -> list[Rows]:
    lists: dict[Node, list[Derivation]] = {}
    for node in forest.nodes():
        if node[2] >= forest.grammar.nonterminals:
            lists[node] = [Derivation(forest.at(node), 0, ())]
        else:
            own = forest.own(node)
            merged = _merge(forest.ways(node), lists, k)
            lists[node] = [Derivation(d.score + own, d.way, d.ranks) for d in merged]
    trees = []
    for d in _merge(forest.tops, lists, k):
        rows: Rows = []
        stack = [(forest.tops[d.way].children[0], d.ranks[0])]
        while stack:
            node, rank = stack.pop()
            rows.append(node)
            if node[2] < forest.grammar.nonterminals:
                below = lists[node][rank]
                ranked = zip(forest.ways(node)[below.way].children, below.ranks, strict=True)
                stack.extend(reversed(list(ranked)))
        trees.append(rows)
    return trees


def _merge(ways: list[Way], lists: dict[Node, list[Derivation]], k: int) -> list[Derivation]:
    """The k best over all ways and all ranks of their children; among equals the first."""
    found = []
    for number, way in enumerate(ways):
        for ranks in product(*[range(len(lists[child])) for child in way.children]):
            below = sum(lists[child][rank].score for child, rank in zip(way.children, ranks, strict=True))
            found.append(Derivation(way.own + below + way.cell, number, ranks))
    return sorted(found, key=lambda d: (-d.score, d.way, d.ranks))[:k]


def sample(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples: events ``(num_samples, *b, m, 3)``, from the top down.

    A node draws the split or a unary rule, then the left symbol given the split, then the right one, each the
    first whose cumulative weight exceeds u times the total. The uniforms are those of
    :func:`structlv.reference.philox.uniforms` at j (j + 1) / 2 + i: of stream 1 for the top node of a span,
    of stream 2 + d for the d-th below it on the same span, d >= 1; and of stream 2, at 0, for the root.
    """
    s, items = forests((root, index, scores, unary, spans, lengths), LOG)
    n, streams = s.leaves.shape[-2], range(1, 3 + len(s.layers))
    places = torch.arange(max(n * (n + 1) // 2, 1))
    shape = (seed, num_samples, len(items), places)
    uniforms = [philox.uniforms(*shape, stream, unary.dtype).tolist() for stream in streams]
    trees = [
        [_draw(forest, [u[k][item] for u in uniforms]) for k in range(num_samples)]
        for item, forest in enumerate(items)
    ]
    return as_event(trees, num_samples, s)


def _draw(forest: Forest, uniforms: list[list[list[float]]]) -> Rows:
    """One tree, from ``uniforms[stream - 1][place]``."""
    if not forest.tops:
        return []
    above: list[Any] = [None, 0]  # the span of the node before, and the nodes over it

    def choose(node: Node) -> tuple[Node, ...]:
        i, j, _ = node
        above[:] = [(i, j), above[1] + 1 if above[0] == (i, j) else 0]
        u = uniforms[above[1] + 1 if above[1] else 0][j * (j + 1) // 2 + i]
        ways = _narrow(forest.ways(node), u[0], _split)
        if len(ways[0].children) > 1:
            ways = _narrow(ways, u[1], lambda way: way.children[0])
            ways = _narrow(ways, u[2], lambda way: way)
        return ways[0].children

    top = _narrow(forest.tops, uniforms[1][0][0], lambda way: way)[0]
    return forest.tree(top.children[0], choose)


def _split(way: Way) -> Any:
    return way.children[0][1] if len(way.children) > 1 else way


def _narrow(ways: list[Way], u: float, key: Callable[[Way], Any]) -> list[Way]:
    """The first run of ways of one key whose cumulative weight exceeds u times the total."""
    top = max(way.score for way in ways)
    runs = [list(run) for _, run in groupby(ways, key)]
    weights = [sum(exp(way.score - top) for way in run) for run in runs]
    target = u * sum(weights)
    for run, seen in zip(runs, accumulate(weights), strict=True):
        if seen > target:
            return run
    return runs[-1]


def sample_distinct(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    k: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """``k`` different trees ``(k, *b, m, 3)`` without replacement, and their perturbed log-probabilities.

    The symbol of the whole is chosen first; then, node by node in pre-order, one of the ways to build it; see
    :mod:`structlv.reference.distinct`.
    """
    s, items = forests((root, index, scores, unary, spans, lengths), LOG)
    rows = (1 + len(s.layers)) * max(2 * s.leaves.shape[-2] - 1, 0), 3
    found: list[list[tuple[Tensor, float]]] = []
    for item, forest in enumerate(items):
        trees = distinct.gumbel_top_k(_Tree(forest), k, seed, item)
        found.append([(torch.tensor(nodes), value) for (nodes, _), value in trees])
    return distinct.stacked(found, k, s.lengths, rows)


class _Tree:
    """Choices of a sentence's tree; a state is its rows so far, and the nodes that are yet to be added."""

    start: tuple[tuple[Node, ...], tuple[Node, ...]] = ((), ())

    def __init__(self, forest: Forest) -> None:
        self.forest = forest

    def weigh(self, state: tuple[tuple[Node, ...], tuple[Node, ...]]) -> Tensor | None:
        if state[0] and not state[1]:
            return None
        ways = self.forest.ways(state[1][0]) if state[0] else self.forest.tops
        return torch.tensor([way.score for way in ways], dtype=torch.float64)

    def enter(self, state: tuple[tuple[Node, ...], tuple[Node, ...]], choice: int) -> Any:
        rows, nodes = state
        ways = self.forest.ways(nodes[0]) if rows else self.forest.tops
        nodes = (*ways[choice].children, *nodes[1:])
        while nodes and nodes[0][2] >= self.forest.grammar.nonterminals:
            rows, nodes = (*rows, nodes[0]), nodes[1:]
        return (*rows, *nodes[:1]), nodes


def max_marginals(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe = None,
    lengths: Maybe = None,
    *,
    labels: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Maybe]:
    """The best score of any tree that uses a part; ``-inf`` where none does. Detached.

    Parts are those of :func:`structlv.reference.sparse_pcfg.marginals`.
    """
    s, items = forests((root, index, scores, unary, spans, lengths), MAX)
    n, nonterminals = s.leaves.shape[-2], s.root.shape[-1]
    sizes = [(nonterminals,), (len(index),), (n, unary.shape[-1]), (n, n, max(labels, 1))]
    found = [torch.full((len(items), *size), -torch.inf, dtype=torch.float64) for size in sizes]
    for item, forest in enumerate(items):
        _raise(forest, *(x[item] for x in found))
    parts = [x.reshape(*s.lengths.shape, *size).to(unary) for x, size in zip(found, sizes, strict=True)]
    return parts[0], parts[1], parts[2], parts[3] if labels else None


def _raise(forest: Forest, top: Tensor, rule: Tensor, words: Tensor, spans: Tensor) -> None:
    """Raises the best scores of the parts to those of the trees of a sentence."""
    around: dict[Node, float] = {}  # the best score of all but what is below a node

    def best(table: Tensor, place: Any, score: float) -> None:
        table[place] = max(float(table[place]), score)

    for way in forest.tops:
        around[way.children[0]] = forest.root[way.children[0][2]]
        best(top, way.children[0][2], way.score)
    for node in reversed(list(forest.nodes())):
        if node not in around:
            continue
        i, j, symbol = node
        whole = around[node] + forest.at(node)
        if symbol >= forest.grammar.nonterminals:
            best(words, (i, symbol - forest.grammar.nonterminals), whole)
        elif i < j:
            best(spans, (i, j, symbol if spans.shape[-1] > 1 else 0), whole)
        for way in forest.ways(node):
            score = around[node] + forest.own(node) + way.score
            best(rule, way.rule, score)
            for child in way.children:
                around[child] = max(around.get(child, _NONE), score - forest.at(child))
