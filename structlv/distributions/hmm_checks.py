"""What the arguments of an HMM must satisfy."""

from __future__ import annotations

from torch import Size, Tensor
from torch.distributions import Distribution

from structlv.distributions.validation import broadcast_batch, require_events, uniform_floats

Checked = tuple[Tensor, Tensor, Tensor | Distribution, Tensor | None, Size, bool]


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
