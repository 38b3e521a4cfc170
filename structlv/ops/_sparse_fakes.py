"""What the operators of the sparse PCFG return, as shapes and dtypes alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def log_partition(root: Tensor, scores: Tensor, unary: Tensor, *rest: Any) -> Tensor:
    return unary.new_empty(unary.shape[:-2], dtype=torch.float64 if rest[-1] else unary.dtype)


def inside(root: Tensor, scores: Tensor, unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return log_partition(root, scores, unary, *rest), unary.new_empty([0])


def gradients(root: Tensor, scores: Tensor, unary: Tensor, spans: Tensor | None, *_: Any) -> tuple:
    between = [0] if spans is None else spans.shape
    return tuple(unary.new_empty(x) for x in (root.shape, scores.shape, unary.shape, between))


def hvp(
    grad: Any, vr: Any, vq: Any, vu: Any, vs: Any, root: Tensor, scores: Tensor, unary: Tensor, *rest: Any
) -> tuple:
    return unary.new_empty(unary.shape[:-2]), *gradients(root, scores, unary, *rest)


def parts(root: Tensor, scores: Tensor, unary: Tensor, spans: Any, index: Tensor, *rest: Any) -> tuple:
    """A number for each part. After the lengths: whether rules are wanted, labels of the spans."""
    *batch, n, _ = unary.shape
    with_rules, labels = rest[1:] if len(rest) == 3 else (True, rest[1])
    shapes = [
        [*batch, root.shape[-1]],
        [*batch, index.shape[0]] if with_rules else [0],
        unary.shape,
        [*batch, n, n, labels] if labels else [0],
    ]
    return tuple(unary.new_empty(x) for x in shapes)


def events(
    root: Tensor, scores: Tensor, unary: Tensor, spans: Any, index: Any, lengths: Any, *flags: Any
) -> Tensor:
    """``(*count, *b, m, 3)``; ``flags``: count (and seed), then the longest chain of unary rules."""
    *batch, n, _ = unary.shape
    rows = (1 + flags[-1]) * max(2 * n - 1, 0)
    return unary.new_empty([*flags[:-1][:1], *batch, rows, 3], dtype=torch.int64)


def score(event: Tensor, root: Tensor, scores: Tensor, unary: Tensor, *_: Any) -> Tensor:
    return unary.new_empty(event.shape[:-2], dtype=torch.float64)
