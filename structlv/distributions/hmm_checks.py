"""What the arguments of an HMM must satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from structlv.distributions.emissions import Emission
from structlv.distributions.validation import (
    broadcast_batch,
    checked_lengths,
    is_eager,
    require_bool,
    require_events,
    require_lengths,
    require_same_device,
    require_tensor,
    uniform_floats,
)

if TYPE_CHECKING:
    from structlv.distributions.hmm import HMM

Checked = tuple[Tensor, Tensor, Tensor | Distribution, Tensor | None, Size, bool]


class Observations(NamedTuple):
    """The shape of what was observed."""

    batch: Size
    n: int
    observed: Tensor | None  # (*b, n) bool; None where everything is
    lengths: Tensor | None


def check_parameters(
    initial: Tensor, transition: Tensor, emission: Tensor | Distribution, final: Tensor | None
) -> Checked:
    """The parameters of one dtype, their batch shape, and whether transitions are per step."""
    table = emission if isinstance(emission, Tensor) else None
    initial, transition, table, final = uniform_floats(
        initial_logits=initial, transition_logits=transition, emission=table, final_logits=final
    )
    if initial.dim() < 1 or initial.shape[-1] == 0:
        raise ValueError(f"initial_logits must have shape (*b, k) with k >= 1, found {tuple(initial.shape)}")
    k = initial.shape[-1]
    per_step = transition.dim() == initial.dim() + 2
    if transition.dim() > initial.dim() + 2:
        raise ValueError(
            "transition_logits must have at most two dimensions more than initial_logits: (*b, k, k), or "
            f"(*b, n-1, k, k) per step; found {tuple(transition.shape)} for {tuple(initial.shape)}"
        )
    require_events("transition_logits", transition, "(*b, n-1, k, k)" if per_step else "(*b, k, k)", k, k)
    shapes = {"initial_logits": initial.shape[:-1], "transition_logits": transition.shape[: -2 - per_step]}
    if final is not None:
        require_events("final_logits", final, "(*b, k)", k)
        shapes["final_logits"] = final.shape[:-1]
    shapes["emission"] = _emission_batch(table, emission, k)
    return initial, transition, emission if table is None else table, final, broadcast_batch(shapes), per_step


def _emission_batch(table: Tensor | None, emission: Tensor | Distribution, k: int) -> Size:
    if table is not None:
        if table.dim() < 2 or table.shape[-2] != k or table.shape[-1] == 0:
            raise ValueError(
                f"emission must have shape (*b, k, v) with k = {k}, v >= 1, found {tuple(table.shape)}"
            )
        return table.shape[:-2]
    if not isinstance(emission, Distribution):
        raise TypeError(
            f"emission must be a tensor of logits or a Distribution, found {type(emission).__name__}"
        )
    if emission.batch_shape[-1:] != (k,):
        found = tuple(emission.batch_shape)
        raise ValueError(f"emission must be a Distribution with batch shape (*b, k), k = {k}, found {found}")
    return emission.batch_shape[:-1]


def check_values(
    initial: Tensor, transition: Tensor, emission: Tensor | Distribution, final: Tensor | None
) -> None:
    """``ValueError`` where a logit is NaN (values: called eagerly only)."""
    named = {
        "initial_logits": initial,
        "transition_logits": transition,
        "emission": emission,
        "final_logits": final,
    }
    for name, value in named.items():
        # a maximum is NaN where any entry is, and needs no table of booleans
        if isinstance(value, Tensor) and value.numel() and bool(value.detach().amax().isnan()):
            raise ValueError(f"{name} must not be NaN")


def observations(
    hmm: HMM, emission: Emission, x: Tensor, lengths: Tensor | None, mask: Tensor | None
) -> Observations:
    """Checks x, lengths and mask against ``hmm``; what they say about the shape of the posterior."""
    require_tensor("x", x)
    require_same_device("x", x, "initial_logits", hmm.initial_logits)
    split = x.dim() - len(emission.event_shape) - 1
    if split < 0 or x.shape[split + 1 :] != emission.event_shape:
        expected = f"(*b, n, *event_shape) with event_shape {tuple(emission.event_shape)}"
        raise ValueError(f"x must have shape {expected}, found {tuple(x.shape)}")
    n = x.shape[split]
    hmm._require_steps(n, f"x: {n} observations")
    shapes = {"x": x.shape[:split], "distribution": hmm.batch_shape}
    if lengths is not None:
        lengths = checked_lengths(lengths, "x", x)
        shapes["lengths"] = lengths.shape
    if mask is not None:
        require_bool("mask", mask)
        require_same_device("mask", mask, "x", x)
        require_events("mask", mask, "(*b, n)", n)
        shapes["mask"] = mask.shape[:-1]
    batch = broadcast_batch(shapes)
    values = hmm._validate_args and is_eager(x)
    if lengths is not None:
        lengths = lengths.expand(batch)
        if values:
            require_lengths(lengths, n)
        inside = torch.arange(n, device=x.device) < lengths.unsqueeze(-1)
        mask = inside if mask is None else mask & inside
    emission.check(x, mask, values)
    return Observations(batch, n, mask, lengths)
