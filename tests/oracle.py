"""What enumeration says: every query of ``structlv.ops`` from the list of all structures."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from structlv.reference import enumerate as brute
from tests.cases import PCFG, Chain, Factorial, SparsePCFG


class _Listed:
    """``items``: structures and scores of each of the flattened batch; and what follows from the scores."""

    batch: list[int]
    items: list[tuple[Tensor, Tensor]]

    def log_partition(self) -> Tensor:
        return self._stack([scores.logsumexp(0) for _, scores in self.items])

    def topk(self, k: int) -> Tensor:
        """The best scores ``(k, *b)``, ``-inf`` where there are fewer."""
        rows = []
        for _, scores in self.items:
            best = scores.sort(descending=True).values[:k]
            rows.append(torch.cat([best, best.new_full((k - len(best),), -torch.inf)]))
        return self._stack(rows).movedim(-1, 0) if rows else torch.zeros(k, *self.batch, dtype=torch.float64)

    @staticmethod
    def _weights(scores: Tensor) -> Tensor:
        total = scores.logsumexp(0)
        return torch.zeros_like(scores) if total == -torch.inf else (scores - total).exp()

    def _stack(self, rows: list[Tensor]) -> Tensor:
        if not rows:
            return torch.zeros(self.batch, dtype=torch.float64)
        return torch.stack(rows).view((*self.batch, *rows[0].shape))


class Enumerated(_Listed):
    """All structures of every item of a chain (``*b`` flattened to one dimension)."""

    def __init__(self, case: Chain) -> None:
        *self.batch, self.n, self.k = case.unary.shape
        self.items = brute.chain_items(*case)
        self.sizes = [paths.shape[-1] for paths, _ in self.items]

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Unary ``(*b, n, k)`` and per-step edges ``(*b, n-1, k, k)``."""
        return self._parts(self._weights, "sum")

    def max_marginals(self) -> tuple[Tensor, Tensor]:
        return self._parts(lambda scores: scores, "amax", -torch.inf)

    def _parts(self, value, reduce: str, empty: float = 0.0) -> tuple[Tensor, Tensor]:
        n, k, count = self.n, self.k, len(self.items)
        steps = max(n - 1, 0)
        unary = torch.full((count, n, k), empty, dtype=torch.float64)
        edges = torch.full((count, steps, k * k), empty, dtype=torch.float64)
        for b, (paths, scores) in enumerate(self.items):
            values = value(scores)
            for t in range(paths.shape[-1]):
                unary[b, t].scatter_reduce_(0, paths[:, t], values, reduce)
            for t in range(paths.shape[-1] - 1):
                edges[b, t].scatter_reduce_(0, paths[:, t] * k + paths[:, t + 1], values, reduce)
        return unary.view(*self.batch, n, k), edges.view(*self.batch, steps, k, k)


class EnumeratedFactorial(Enumerated):
    """All paths of joint states of every item of a factorial chain."""

    def __init__(self, case: Factorial) -> None:
        *self.batch, self.n, self.k = case.unary.shape
        self.sizes, (*potentials, _, lengths) = case.sizes, case
        self.items = brute.factorial_items(*potentials, lengths, sizes=case.sizes)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Unary ``(*b, n, S)`` and each chain's edges at each step ``(*b, n-1, P)``."""
        unary, joint = super().marginals()
        m, lead = len(self.sizes), joint.dim() - 2
        joint = joint.view(*joint.shape[:-2], *self.sizes, *self.sizes)
        edges = []
        for i in range(m):
            rest = [lead + at for at in range(2 * m) if at % m != i]
            edges.append((joint.sum(rest) if rest else joint).flatten(-2))
        return unary, torch.cat(edges, -1)


class EnumeratedTrees(_Listed):
    """All trees of every item of a PCFG."""

    def __init__(self, case: PCFG) -> None:
        *self.batch, self.n, self.preterminals = case.unary.shape
        self.nonterminals = case.root.shape[-1]
        self.items = brute.tree_items(*case)

    def marginals(self) -> list[Tensor]:
        """Expected uses of the parts: root, rules, unary, spans."""
        return self._parts(self._weights, "sum")

    def max_marginals(self) -> list[Tensor]:
        return self._parts(lambda scores: scores, "amax", -torch.inf)

    def _parts(self, value, reduce: str, empty: float = 0.0) -> list[Tensor]:
        nonterminals, n, count = self.nonterminals, self.n, len(self.items)
        symbols = nonterminals + self.preterminals
        rules, words = (nonterminals, symbols, symbols), (n, self.preterminals)
        shapes = [(nonterminals,), rules, words, (n, n, nonterminals)]
        parts = [torch.full((count, *shape), empty, dtype=torch.float64) for shape in shapes]
        for b, (trees, scores) in enumerate(self.items):
            values = value(scores)
            uses = _uses((trees.shape[-2] + 1) // 2, nonterminals, self.preterminals)
            for part, (tree, place) in zip(parts, uses, strict=True):
                flat = (place * torch.tensor(part[b].stride())).sum(-1)
                part[b].view(-1).scatter_reduce_(0, flat, values[tree], reduce)
        return [x.view(*self.batch, *shape) for x, shape in zip(parts, shapes, strict=True)]


@functools.cache
def _uses(length: int, nonterminals: int, preterminals: int) -> list[tuple[Tensor, Tensor]]:
    """For root, rules, unary and spans: the numbers of trees and the parts that they use."""
    used: list[list[tuple[int, ...]]] = [[], [], [], []]
    for t, rows in enumerate(brute.trees(length, nonterminals, preterminals).tolist()):
        used[0].append((t, rows[0][2]))
        for at, (i, j, symbol) in enumerate(rows):
            if i == j:
                used[2].append((t, i, symbol - nonterminals))
                continue
            left = rows[at + 1]
            right = next(row for row in rows[at:] if row[:2] == [left[1] + 1, j])
            used[1].append((t, symbol, left[2], right[2]))
            used[3].append((t, i, j, symbol))
    widths = (1, 3, 2, 3)
    tables = [torch.tensor(x).view(-1, 1 + width) for x, width in zip(used, widths, strict=True)]
    return [(table[:, 0].long(), table[:, 1:].long()) for table in tables]


def filtered(case: Chain) -> Tensor:
    """``log p(z_t | potentials up to t)`` by enumerating every prefix."""
    *batch, n, k = case.unary.shape
    sizes = torch.full(batch, n) if case.lengths is None else case.lengths
    rows = case.unary.new_full((*batch, n, k), -torch.inf)
    for t in range(n):
        prefix = torch.where(sizes > t, t + 1, 0)
        oracle = Enumerated(Chain(case.unary, case.transition, case.initial, None, prefix))
        rows[..., t, :] = torch.where(
            (sizes > t)[..., None], oracle.marginals()[0][..., t, :].log(), -torch.inf
        )
    return rows


class EnumeratedDerivations(_Listed):
    """All trees of every item of a sparse PCFG."""

    def __init__(self, case: SparsePCFG) -> None:
        *self.batch, self.n, self.preterminals = case.unary.shape
        self.case, self.items = case, brute.sparse_items(*case)

    def marginals(self, labels: int = 1) -> list[Tensor]:
        """Expected uses of the parts: root, rules, unary, spans."""
        return self._parts(self._weights, labels, lambda a, b: a + b, 0.0)

    def max_marginals(self, labels: int = 1) -> list[Tensor]:
        return self._parts(lambda scores: scores, labels, max, -torch.inf)

    def _parts(self, value, labels: int, join, empty: float) -> list[Tensor]:
        nonterminals, n = self.case.root.shape[-1], self.n
        shapes = [(nonterminals,), (len(self.case.index),), (n, self.preterminals), (n, n, labels)]
        parts = [torch.full((len(self.items), *shape), empty, dtype=torch.float64) for shape in shapes]
        for b, (trees, scores) in enumerate(self.items):
            for tree, weight in zip(trees, value(scores).tolist(), strict=True):
                for part, places in zip(parts, derivation_parts(tree, nonterminals, labels), strict=True):
                    for place in places:
                        part[b][place] = join(float(part[b][place]), weight)
        return [x.view(*self.batch, *shape) for x, shape in zip(parts, shapes, strict=True)]

    def event(self, tree: brute.Derivation, rows: int) -> Tensor:
        event = torch.full((rows, 3), -1)
        event[: len(tree[0])] = torch.tensor(tree[0])
        return event


def derivation_parts(tree: brute.Derivation, nonterminals: int, labels: int) -> list[list]:
    """The places of the root, the rules, the words and the spans that a tree uses."""
    rows, used = tree
    words = [(i, a - nonterminals) for i, _, a in rows if a >= nonterminals]
    spans = [(i, j, a if labels > 1 else 0) for i, j, a in rows if i < j]
    return [[rows[0][2]], used, words, spans if labels > 1 else sorted(set(spans))]
