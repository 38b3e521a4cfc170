"""What the operators of low-rank PCFGs return, as shapes and dtypes alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_META = 32  # elements of a chart for each item, besides its spans


def log_partition(root: Tensor, head: Any, left: Tensor, right: Tensor, unary: Tensor, *rest: Any) -> Tensor:
    return unary.new_empty(unary.shape[:-2], dtype=torch.float64 if rest[-1] else unary.dtype)


def inside(
    root: Tensor, head: Tensor | None, left: Tensor, right: Tensor, unary: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """log Z and the chart, whose size is that of ``lowrank_chart_size`` in csrc/kernels/lowrank.h."""
    lanes = 64 // unary.dtype.itemsize

    def padded(k: Any) -> Any:
        return (k + lanes - 1) // lanes * lanes

    *batch, n, preterminals = unary.shape
    nonterminals, rank, inner, spans = root.shape[-1], left.shape[-2], n * (n - 1) // 2, rest[0]
    one_label = spans is None or spans.shape[-1] == 1
    folded = head is not None and one_label and 2 * rank <= nonterminals <= n * n  # as in lowrank_bind.h
    every = inner + n
    states = padded(rank) if folded else padded(nonterminals) + (0 if head is None else padded(rank))
    vectors = inner * states
    vectors = vectors + n * padded(preterminals) + 2 * every * padded(rank)
    item = _META + vectors + padded(6 * every * (8 // unary.dtype.itemsize) + 2 * every)
    return log_partition(root, head, left, right, unary, *rest), unary.new_empty([math.prod(batch) * item])


def gradients(*potentials: Tensor | None) -> tuple[Tensor, ...]:
    unary: Any = potentials[4]
    return tuple(unary.new_empty([0] if x is None else x.shape) for x in potentials[:6])


def hvp(grad: Any, *rest: Any) -> tuple[Tensor, ...]:
    potentials = rest[6:]
    return potentials[4].new_empty(potentials[4].shape[:-2]), *gradients(*potentials)


def parts(
    root: Tensor, head: Tensor | None, left: Tensor, right: Tensor, unary: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """A number for each part of each item; of size 0 where absent or not wanted: the rules, the spans."""
    (*batch, n, _), (with_rules, with_spans) = unary.shape, rest[-2:]
    tables = [[*batch, *x.shape[-2:]] if with_rules and x is not None else None for x in (head, left, right)]
    covers = [*batch, n, n, root.shape[-1]] if with_spans else [0]
    shapes = [[*batch, root.shape[-1]], *tables, unary.shape, covers]
    return tuple(unary.new_empty([0] if x is None else x) for x in shapes)


def events(
    root: Tensor, head: Any, left: Any, right: Any, unary: Tensor, spans: Any, lengths: Any, *flags: Any
) -> Tensor:
    rows = max(2 * unary.shape[-2] - 1, 0)
    return unary.new_empty([*flags[:1], *unary.shape[:-2], rows, 3], dtype=torch.int64)
