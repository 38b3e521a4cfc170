"""What can be observed: sequences of what a model's states emit, ragged and incomplete."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Size, Tensor

from structlv.distributions.emissions import Emission
from structlv.distributions.parameters import ParameterizedDistribution
from structlv.distributions.validation import (
    broadcast_batch,
    checked_lengths,
    is_eager,
    require_bool,
    require_events,
    require_lengths,
    require_same_device,
    require_tensor,
)


class Observations(NamedTuple):
    """The shape of what was observed."""

    batch: Size
    n: int
    observed: Tensor | None  # (*b, n) bool, False in padding too; None where everything is
    lengths: Tensor | None


def observations(
    model: ParameterizedDistribution,
    emission: Emission,
    x: Tensor,
    lengths: Tensor | None,
    mask: Tensor | None,
) -> Observations:
    """Checks x, lengths and mask against ``model``; what they say about the shape of the posterior."""
    require_tensor("x", x)
    first = model._parameters[0]
    like = getattr(model, first)
    require_same_device("x", x, first, like[0] if isinstance(like, tuple) else like)
    split = x.dim() - len(emission.event_shape) - 1
    if split < 0 or x.shape[split + 1 :] != emission.event_shape:
        expected = f"(*b, n, *event_shape) with event_shape {tuple(emission.event_shape)}"
        raise ValueError(f"x must have shape {expected}, found {tuple(x.shape)}")
    n = x.shape[split]
    shapes = {"x": x.shape[:split], "distribution": model.batch_shape}
    if lengths is not None:
        lengths = checked_lengths(lengths, "x", x)
        shapes["lengths"] = lengths.shape
    if mask is not None:
        require_bool("mask", mask)
        require_same_device("mask", mask, "x", x)
        require_events("mask", mask, "(*b, n)", n)
        shapes["mask"] = mask.shape[:-1]
    batch = broadcast_batch(shapes)
    values = model._validate_args and is_eager(x)
    if lengths is not None:
        lengths = lengths.expand(batch)
        if values:
            require_lengths(lengths, n)
        inside = torch.arange(n, device=x.device) < lengths.unsqueeze(-1)
        mask = inside if mask is None else mask & inside
    emission.check(x, mask, values)
    return Observations(batch, n, mask, lengths)
