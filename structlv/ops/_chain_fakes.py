"""What the chain's operators return, as shapes and dtypes alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def edges_like(unary: Tensor, transition: Tensor, edges: bool | None = False) -> Tensor:
    *batch, n, k = unary.shape
    if edges is None:
        return unary.new_empty([*batch, 0, 0])
    steps = [max(n - 1, 0)] if edges or transition.dim() == unary.dim() + 1 else []
    return unary.new_empty([*batch, *steps, k, k])


def log_partition(unary: Tensor, *rest: Any) -> Tensor:
    return unary.new_empty(unary.shape[:-2], dtype=torch.float64 if rest[-1] else unary.dtype)


def chart(unary: Tensor) -> Tensor:
    lanes = 64 // unary.dtype.itemsize
    *batch, n, k = unary.shape
    row = n * (2 * ((k + lanes - 1) // lanes * lanes) + 1) + 8
    return unary.new_empty([math.prod(batch) * row])


def inside(unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return log_partition(unary, *rest), chart(unary)


def gradients(
    unary: Tensor, transition: Tensor, initial: Tensor | None, final: Tensor | None, *_: Any
) -> tuple:
    ends = [unary.new_empty([0] if x is None else x.shape) for x in (initial, final)]
    return unary.new_empty(unary.shape), unary.new_empty(transition.shape), *ends


def hvp(grad: Any, vu: Any, vt: Any, vi: Any, vf: Any, unary: Tensor, *rest: Any) -> tuple:
    return unary.new_empty(unary.shape[:-2]), *gradients(unary, *rest)


def events(unary: Tensor, *rest: Any) -> Tensor:
    """``(count, *b, n)`` or, without a count among the flags, ``(*b, n)``."""
    return unary.new_empty([*rest[4:5], *unary.shape[:-1]], dtype=torch.int64)


def score(states: Tensor, unary: Tensor, *_: Any) -> Tensor:
    return unary.new_empty(states.shape[:-1], dtype=torch.float64)


def marginals(unary: Tensor, transition: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return unary.new_empty(unary.shape), edges_like(unary, transition, rest[-1])


def max_marginals(unary: Tensor, transition: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return unary.new_empty(unary.shape), edges_like(unary, transition)


def filter(unary: Tensor, *_: Any) -> Tensor:
    return unary.new_empty(unary.shape)


def filter_inside(unary: Tensor, transition: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    per_step = transition.dim() == unary.dim() + 1
    return unary.new_empty(unary.shape), unary.new_empty([0]) if per_step else chart(unary)


def relaxed(unary: Tensor, transition: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    count = rest[-2]
    states = unary.new_empty([count, *unary.shape[:-1]], dtype=torch.int64)
    return unary.new_empty([count, *unary.shape]), states, *filter_inside(unary, transition)


def relaxed_gradients(
    grad: Any, states: Any, soft: Any, filtered: Any, chart: Any, *potentials: Any
) -> tuple[Tensor, ...]:
    temperature = potentials[-1]
    return *gradients(*potentials[:-1]), temperature.new_empty(temperature.shape)
