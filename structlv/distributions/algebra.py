"""Sums over parts in which 0 times infinity is 0, for the algebra of structured distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from structlv.distributions.base import StructuredDistribution


def inner(marginals: Any, scores: Any, batch_dims: int) -> Tensor:
    """Sum over parts of marginal times score, keeping the batch dimensions.

    A part of marginal 0 contributes 0 whatever its score (-inf, or the content of padding), and so does a
    forbidden part of positive marginal, for the sake of the gradient: ``guarded`` puts the infinity in.
    """
    total: Tensor | None = None
    for weight, score in zip(marginals, scores, strict=True):
        if score is not None:
            safe = torch.where((weight == 0) | (score == -torch.inf), 0.0, score)
            term = (weight * safe).flatten(batch_dims).sum(-1)
            total = term if total is None else total + term
    if total is None:
        raise ValueError("parts must hold at least one tensor, found only None")
    return total


def finite(log_z: Tensor) -> Tensor:
    """log Z with 0, and no gradient, in place of -inf."""
    return log_z.masked_fill(log_z == -torch.inf, 0.0)


def guarded(p: StructuredDistribution, q: StructuredDistribution, value: Tensor) -> Tensor:
    """``value``, but 0 where p has no structure and +inf where p has one that q forbids."""
    reach, scores = p.max_marginals(), q._part_scores()
    forbidden = value.new_zeros(value.shape, dtype=torch.bool)
    for best, score in zip(reach, scores, strict=True):
        forbidden = forbidden | ((best > -torch.inf) & (score == -torch.inf)).flatten(value.dim()).any(-1)
    empty = p._log_partition(as_double=True) == -torch.inf
    return value.masked_fill(forbidden, torch.inf).masked_fill(empty, 0.0)


def tempered(value: Tensor, temperature: Tensor, event_dims: int) -> Tensor:
    """``value / temperature`` per item; -inf stays, and neither it nor padding reaches the temperature's
    gradient.
    """
    if not value.is_floating_point():
        return value
    divisor = temperature.reshape(temperature.shape + (1,) * event_dims)
    finite = value.isfinite()
    return torch.where(finite, torch.where(finite, value, 0.0) / divisor, value)
