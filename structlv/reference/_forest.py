"""The trees of a sparse PCFG one by one, in Python: ways to build a node, events, the parts of an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from structlv.reference._sparse import Semiring, Sentences, inside, prepare

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
