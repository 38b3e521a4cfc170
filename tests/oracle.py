"""What enumeration says: every query of ``structlv.ops`` from the list of all structures."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from structlv.reference import enumerate as brute
from tests.cases import PCFG, Chain


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
