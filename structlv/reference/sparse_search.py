"""Choosing trees of the sparse PCFG: Viterbi, max-marginals, k best, samples; and the parts of given trees.

Arguments are those of :mod:`structlv.reference.sparse_pcfg`, which exports these functions. None is
differentiable. Sentences are parsed one by one, in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate, groupby, product
from math import exp
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from structlv.reference import philox
from structlv.reference._potentials import Maybe
from structlv.reference._sparse import LOG, MAX, Semiring, Sentences, inside, prepare

_NONE = -float("inf")
Node: TypeAlias = tuple[int, int, int]  # first word, last word, symbol
Rows: TypeAlias = list[Node]


class Way(NamedTuple):
    """One way to build a node: its score, that of the best (or of all) trees below included; its rule."""

    score: float
    own: float  # of the rule alone
    cell: float  # of the constituent that it makes
    rule: int
    children: tuple[Node, ...]


class Grammar:
    """Rules to look up, as Python lists."""

    def __init__(self, s: Sentences) -> None:
        self.nonterminals, self.symbols = s.root.shape[-1], s.leaves.shape[-1]
        self.rules = [tuple(row) for row in s.rules.tolist()]
        self.number = {rule: number for number, rule in enumerate(self.rules)}
        self.below: list[list[int]] = [[] for _ in range(self.symbols)]  # binary by (y, z), then unary by y
        order = sorted(range(len(self.rules)), key=lambda r: (self.rules[r][2] < 0, self.rules[r][1:]))
        for r in order:
            self.below[self.rules[r][0]].append(r)
        heights = s.heights().tolist()
        self.upward = sorted(range(self.symbols), key=lambda a: heights[a])


class Forest:
    """The trees of one sentence: the chart of its spans, and the ways to build a node, in order."""

    def __init__(self, grammar: Grammar, s: Sentences, chart: list[Tensor], item: int) -> None:
        def flat(x: Tensor, core: int) -> Any:
            shape = (*s.lengths.shape, *x.shape[x.dim() - core :])
            return x.expand(shape).flatten(0, -core - 1)[item].tolist() if s.lengths.dim() else x.tolist()

        self.grammar, self.length = grammar, int(s.lengths.flatten()[item])
        self.value = [flat(x, 2) for x in chart]
        self.scores, self.root = flat(s.scores, 1), flat(s.root, 1)
        self.cells = None if s.cells is None else flat(s.cells, 3)
        self.covers = None if s.covers is None else flat(s.covers, 3)
        self._ways: dict[Node, list[Way]] = {}

    def at(self, node: Node) -> float:
        i, j, symbol = node
        return self.value[j - i][i][symbol]

    def own(self, node: Node) -> float:
        """The score of the node itself, whatever is below it."""
        i, j, symbol = node
        inner = self.covers is not None and i < j and symbol < self.grammar.nonterminals
        return self.covers[i][j][symbol] if inner and self.covers is not None else 0.0

    @cached_property
    def tops(self) -> list[Way]:
        if self.length == 0:
            return []
        nodes = [(0, self.length - 1, a) for a in range(self.grammar.nonterminals)]
        ways = [Way(self.root[a[2]] + self.at(a), self.root[a[2]], 0.0, -1, (a,)) for a in nodes]
        return [way for way in ways if way.score > _NONE]

    def ways(self, node: Node) -> list[Way]:
        if node not in self._ways:
            self._ways[node] = [way for way in self._all_ways(*node) if way.score > _NONE]
        return self._ways[node]

    def _all_ways(self, i: int, j: int, symbol: int) -> Iterator[Way]:
        below = self.grammar.below[symbol]
        for split in range(i, j):
            cell = 0.0 if self.cells is None else self.cells[i][j][0]
            for r in below:
                _, y, z = self.grammar.rules[r]
                if z >= 0:
                    left, right = (i, split, y), (split + 1, j, z)
                    score = self.scores[r] + (self.at(left) + self.at(right)) + cell
                    yield Way(score, self.scores[r], cell, r, (left, right))
        for r in below:
            _, y, z = self.grammar.rules[r]
            if z < 0:
                yield Way(self.scores[r] + self.at((i, j, y)), self.scores[r], 0.0, r, ((i, j, y),))

    def nodes(self) -> Iterator[Node]:
        """All possible nodes, children before parents."""
        for width in range(self.length):
            for i in range(self.length - width):
                for symbol in self.grammar.upward:
                    if self.value[width][i][symbol] > _NONE:
                        yield i, i + width, symbol

    def tree(self, top: Node, choose: Callable[[Node], tuple[Node, ...]]) -> Rows:
        """The rows of a tree in pre-order; ``choose`` gives the children of a node that is no leaf."""
        rows, stack = [], [top]
        while stack:
            rows.append(stack.pop())
            if rows[-1][2] < self.grammar.nonterminals:
                stack.extend(reversed(choose(rows[-1])))
        return rows


def forests(potentials: tuple, add: Semiring) -> tuple[Sentences, list[Forest]]:
    s = prepare(*(x.detach() if x is not None and x.is_floating_point() else x for x in potentials))
    chart = inside(s, add) if s.leaves.shape[-2] > 0 else []
    grammar = Grammar(s)
    return s, [Forest(grammar, s, chart, item) for item in range(s.lengths.numel())]


def as_event(trees: list[list[Rows]], count: int, s: Sentences) -> Tensor:
    """``(count, *b, m, 3)`` from up to ``count`` trees for each item; no rows where there is no tree."""
    m = (1 + len(s.layers)) * max(2 * s.leaves.shape[-2] - 1, 0)
    event = torch.full((count, len(trees), m, 3), -1)
    for item, found in enumerate(trees):
        for k, rows in enumerate(found):
            if rows:
                event[k, item, : len(rows)] = torch.tensor(rows)
    return event.reshape(count, *s.lengths.shape, m, 3).to(s.root.device)


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


def used_parts(event: Tensor, s: Sentences) -> tuple[list[Tensor], Tensor]:
    """For each of ``s.tables()`` the places ``(*s, *b, p)`` that a tree uses, flattened, -1 behind them; and
    whether ``event (*s, *b, m, 3)`` is a tree of the grammar.
    """
    grammar, n = Grammar(s), s.leaves.shape[-2]
    lead, lengths = event.shape[:-2], s.lengths.expand(event.shape[:-2]).flatten().tolist()
    flat = event.reshape(len(lengths), *event.shape[-2:]).tolist()
    parts = [_parts(grammar, rows, size, n) for rows, size in zip(flat, lengths, strict=True)]
    legal = torch.tensor([x is not None for x in parts], dtype=torch.bool, device=event.device).reshape(lead)
    tables = []
    for t in range(5):
        rows = [x[t] if x is not None else [] for x in parts]
        wide = max([1, *map(len, rows)])
        padded = [row + [-1] * (wide - len(row)) for row in rows]
        places = torch.tensor(padded, dtype=torch.long, device=event.device)
        tables.append(places.reshape(*lead, wide))
    return tables, legal


def _parts(grammar: Grammar, rows: list[list[int]], length: int, n: int) -> list[list[int]] | None:
    """The places of the root, the rules, the leaves, the nonterminals, the constituents; None if no tree."""
    nonterminals, symbols = grammar.nonterminals, grammar.symbols
    root, rules, leaves, covers, cells = [], [], [], [], []  # type: ignore[var-annotated]
    expected: list[Any] = [(0, length - 1, None)]  # spans, and of a right child the rule but for its symbol
    for at, (i, j, a) in enumerate(rows):
        if not expected:
            break
        first, last, rule = expected.pop()
        if length < 1 or (i, j) != (first, last) or not 0 <= a < symbols or (at == 0 and a >= nonterminals):
            return None
        if rule is not None:
            rules.append(grammar.number.get((*rule, a), -1))
        if a >= nonterminals:
            leaves.append(i * symbols + a)
            if i != j:
                return None
            continue
        root = root or [a]
        if at + 1 == len(rows):
            return None
        first, last, y = rows[at + 1]
        if first != i or not i <= last <= j:
            return None
        if i < j:
            covers.append((i * n + j) * nonterminals + a)
        if last == j:
            rules.append(grammar.number.get((a, y, -1), -1))
            expected.append((i, j, None))
        else:
            cells.append(i * n + j)
            expected += [(last + 1, j, (a, y)), (i, last, None)]
    return None if expected or -1 in rules else [root, rules, leaves, covers, cells]
