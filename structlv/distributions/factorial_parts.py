"""The parts of factorial chains, and joint states as numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class FactorialParts(NamedTuple):
    """One number for each part of a factorial chain: marginals, max-marginals, counts or scores.

    Attributes:
        unary: for each chain (*b, n, k_i), state i at step t. transition: for each chain (*b, k_i, k_i),
            the pair (i, j), summed over (for max-marginals: the best of) the steps.
        joint: (*b, n, k_1, ..., k_m), the states of all chains at step t; None where scores are per chain.
    """

    unary: tuple[Tensor, ...] | None
    transition: tuple[Tensor, ...] | None
    joint: Tensor | None


def ravel(states: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """States (*, m, n) of the chains as joint states (*, n), the last chain fastest; -1 for illegal ones."""
    limits = torch.tensor(sizes, device=states.device).unsqueeze(-1)
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    joint = (states * torch.tensor(strides, device=states.device).unsqueeze(-1)).sum(-2)
    return joint.masked_fill(((states < 0) | (states >= limits)).any(-2), -1)


def unravel(joint: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Joint states (*, n) as states (*, m, n) of the chains; -1 stays -1."""
    found, rest = [], joint
    for size in reversed(sizes):
        found.append(rest % size)
        rest = rest.div(size, rounding_mode="floor")
    return torch.stack(found[::-1], -2).masked_fill((joint < 0).unsqueeze(-2), -1)


def along(x: Tensor, axis: int, count: int, events: int = 0) -> Tensor:
    """Scores (*b, k, *event) of one chain's states as (*b, 1, .., k, .., 1, *event) of ``count`` chains'.

    Args:
        axis: the chain.
        events: the number of dimensions after k.
    """
    at = x.dim() - 1 - events
    return x.reshape(*x.shape[:at], *(1,) * axis, x.shape[at], *(1,) * (count - axis - 1), *x.shape[at + 1 :])
