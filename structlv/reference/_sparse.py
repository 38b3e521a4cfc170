"""What every recursion of the sparse PCFG starts from: rules in layers, clean potentials, the inside pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from structlv.reference import semiring
from structlv.reference._potentials import Maybe
from structlv.reference._trees import children, inner_spans, of_width, tree_lengths, whole


def layers(index: Tensor) -> list[Tensor]:
    """The rows of the unary rules A -> y of ``index (r, 3)``, by the longest chain of such rules under A.

    There are as many layers as rules in the longest chain. ``ValueError`` where the rules have a cycle.
    """
    rows = (index[:, 2] < 0).nonzero().squeeze(-1)
    parent, child = index[rows, 0], index[rows, 1]
    size = int(index[rows, :2].max()) + 1 if len(rows) else 0
    height = torch.zeros(size, dtype=torch.long, device=index.device)
    for _ in range(size + 1):
        taller = torch.zeros_like(height).scatter_reduce(0, parent, height[child] + 1, "amax")
        if torch.equal(taller, height):
            return [rows[height[parent] == h] for h in range(1, int(height.max()) + 1 if size else 0)]
        height = taller
    raise ValueError("index: expected unary rules without a cycle, found one")


CORES = (1, 1, 2, 3, 3)  # dimensions of Sentences.tables(), but for the batch's


class Sentences(NamedTuple):
    """A grammar and its sentences in the dtype of the sums, with zeros where no tree looks."""

    root: Tensor  # (*b, NT)
    rules: Tensor  # (r, 3), their index
    binary: Tensor  # the rows of its binary rules
    layers: list[Tensor]  # of its unary rules
    scores: Tensor  # (*b, r)
    leaves: Tensor  # (*b, n, S): -inf for nonterminals
    covers: Maybe  # (*b, n, n, NT), of nonterminals
    cells: Maybe  # (*b, n, n, 1), of constituents
    lengths: Tensor  # (*b)

    def tables(self) -> tuple[Maybe, ...]:
        return self.root, self.scores, self.leaves, self.covers, self.cells

    def heights(self) -> Tensor:
        """The layer of every symbol, ``(S)``: 0 where no unary rule is under it."""
        height = torch.zeros(self.leaves.shape[-1], dtype=torch.long, device=self.rules.device)
        for h, rows in enumerate(self.layers):
            height[self.rules[rows, 0]] = h + 1
        return height


def prepare(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Maybe,
    lengths: Maybe,
    covers: Maybe = None,
) -> Sentences:
    """``covers (*b, n, n, NT)`` beside ``spans``, which are then ``(*b, n, n, 1)``."""
    if spans is not None and spans.shape[-1] > 1:
        spans, covers = None, spans
    wide, n = semiring.wide_dtype(unary.device), unary.shape[-2]
    lengths = tree_lengths(unary, lengths, 1)
    some = (lengths > 0)[..., None]
    words = torch.arange(n, device=unary.device) < lengths[..., None]
    leaves = torch.where(words[..., None], unary.to(wide), 0.0)
    counts = inner_spans(lengths, n)[..., None]
    return Sentences(
        torch.where(some, root.to(wide), 0.0),
        index,
        (index[:, 2] >= 0).nonzero().squeeze(-1),
        layers(index),
        torch.where(some, scores.to(wide), 0.0),
        torch.nn.functional.pad(leaves, (root.shape[-1], 0), value=-torch.inf),
        None if covers is None else torch.where(counts, covers.to(wide), 0.0),
        None if spans is None else torch.where(counts, spans.to(wide), 0.0),
        lengths,
    )


class Semiring(NamedTuple):
    """How terms are added up: over a dimension, and by place."""

    total: Callable[[Tensor, int], Tensor]
    scatter: Callable[[Tensor, Tensor, int], Tensor]


LOG = Semiring(semiring.logsumexp, semiring.scatter_logsumexp)
MAX = Semiring(lambda x, dim: x.amax(dim), semiring.scatter_max)


def join(s: Sentences, chart: list[Tensor], add: Semiring) -> Tensor:
    """The sum over the binary rules and splits of the spans one word wider than ``chart``, ``(*b, p, S)``."""
    parent, y, z = s.rules[s.binary].unbind(-1)
    left, right = children(chart, len(chart) + 1)
    ways = add.total(left[..., y] + right[..., z], -2) + s.scores[..., None, s.binary]
    return add.scatter(ways, parent, s.leaves.shape[-1])


Join: TypeAlias = Callable[[Sentences, list[Tensor], Semiring], Tensor]


def inside(s: Sentences, add: Semiring = LOG, join: Join = join) -> list[Tensor]:
    """The sum over all trees of a span that have a symbol at the top, as a chart ``(*b, p, S)``."""
    chart = [_close(s, s.leaves, 1, add)]
    for width in range(2, s.leaves.shape[-2] + 1):
        cell = join(s, chart, add)
        if s.cells is not None:
            cell = cell + of_width(s.cells, width)
        chart.append(_close(s, cell, width, add))
    return chart


def _close(s: Sentences, cell: Tensor, width: int, add: Semiring) -> Tensor:
    """``cell (*b, p, S)`` with unary rules, layer by layer, and the scores of labelled spans."""
    heights, symbols = s.heights(), cell.shape[-1]
    for h, rows in enumerate([None, *s.layers]):
        if rows is not None:
            parent, child, _ = s.rules[rows].unbind(-1)
            above = add.scatter(cell[..., child] + s.scores[..., None, rows], parent, symbols)
            cell = add.total(torch.stack([cell, above], -1), -1)
        if s.covers is not None and width > 1:
            span = of_width(s.covers, width)
            span = torch.nn.functional.pad(span, (0, symbols - span.shape[-1]))
            cell = cell + torch.where(heights == h, span, 0.0)
    return cell


def tops(s: Sentences, chart: list[Tensor]) -> Tensor:
    """The sum over the trees of a sentence with a given nonterminal at the top, ``(*b, NT)``."""
    found = s.root + whole(chart, s.lengths)[..., : s.root.shape[-1]]
    return torch.where((s.lengths > 0)[..., None], found, -torch.inf)
