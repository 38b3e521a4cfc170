"""Some value that a distribution can score: what stands in for an observation that is missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, constraints, transform_to


def legal_value(distribution: Distribution, like: Tensor) -> Tensor:
    """A value in the support of ``distribution``, of finite density and gradient, that broadcasts to its
    shape.

    Args:
        like: gives device and floating dtype.

    Raises:
        NotImplementedError: the support is of a kind for which no such value is known.
    """
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    zero = torch.zeros((), dtype=dtype, device=like.device)
    try:
        if not isinstance(distribution, MixtureSameFamily):
            return _legal(distribution, zero)
        value, events = _legal(distribution.component_distribution, zero), len(distribution.event_shape)
        return value.select(-1 - events, 0) if value.dim() > events else value
    except NotImplementedError:
        raise NotImplementedError(
            "missing observations need a legal stand-in, and none is known for the support "
            f"{distribution.support} of {type(distribution).__name__}"
        ) from None


def _legal(distribution: Distribution, zero: Tensor) -> Tensor:
    support: Any = distribution.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support is constraints.boolean:
        return zero
    if support is constraints.one_hot or isinstance(support, type(constraints.multinomial(0))):
        first = zero.new_zeros(distribution.event_shape)
        first[..., 0] = getattr(support, "upper_bound", 1)
        return first
    if support.is_discrete and hasattr(support, "lower_bound"):
        return zero + support.lower_bound
    bijection = transform_to(support)
    return bijection(zero.expand(bijection.inverse_shape(distribution.event_shape)))
