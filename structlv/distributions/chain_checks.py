"""What the arguments of a linear chain must satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor

from structlv.distributions.validation import (
    broadcast_batch,
    is_eager,
    require_events,
    require_lengths,
    require_same_lengths,
)
from structlv.ops import chain

if TYPE_CHECKING:
    from structlv.distributions.linear_chain import LinearChain


def check_shapes(
    unary: Tensor, transition: Tensor, initial: Tensor | None, final: Tensor | None, lengths: Tensor | None
) -> tuple[Size, bool]:
    """The batch shape, and whether the transitions are per step; ``ValueError`` where shapes do not fit."""
    if unary.dim() < 2:
        raise ValueError(f"unary must have shape (*b, n, k), found {tuple(unary.shape)}")
    *_, n, k = unary.shape
    if k == 0:
        raise ValueError(f"unary must have at least one state (k >= 1), found shape {tuple(unary.shape)}")
    batch = unary.shape[:-2]
    per_step = _check_transition(transition, unary.dim(), n, k)
    shapes = [transition.shape[: -3 if per_step else -2]]
    for name, value in (("initial", initial), ("final", final)):
        if value is not None:
            require_events(name, value, "(*b, k)", k)
            shapes.append(value.shape[:-1])
    if lengths is not None:
        shapes.append(lengths.shape)
    if all(shape in (batch, ()) for shape in shapes):
        return batch, per_step
    return _broadcast(unary, transition, initial, final, lengths, per_step), per_step


def _check_transition(transition: Tensor, unary_dims: int, n: int, k: int) -> bool:
    per_step = transition.dim() == unary_dims + 1
    if per_step:
        require_events("transition", transition, "(*b, n-1, k, k)", max(n - 1, 0), k, k)
    elif transition.dim() > unary_dims:
        raise ValueError(
            "transition must have at most one dimension more than unary: (*b, k, k), or (*b, n-1, k, k) per "
            f"step; found shape {tuple(transition.shape)} for unary of {unary_dims} dimensions"
        )
    else:
        require_events("transition", transition, "(*b, k, k)", k, k)
    return per_step


def _broadcast(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None,
    final: Tensor | None,
    lengths: Tensor | None,
    per_step: bool,
) -> Size:
    shapes = {"unary": unary.shape[:-2], "transition": transition.shape[: -3 if per_step else -2]}
    for name, value in (("initial", initial), ("final", final)):
        if value is not None:
            shapes[name] = value.shape[:-1]
    if lengths is not None:
        shapes["lengths"] = lengths.shape
    return broadcast_batch(shapes)


def check_values(chain_: LinearChain) -> None:
    """``ValueError`` where a length is out of range or a potential that counts is NaN (eager only)."""
    if chain_.lengths is not None:
        require_lengths(chain_.lengths, chain_.unary.shape[-2])
    if chain.has_nan(*chain_._args):
        raise ValueError(f"potentials must not be NaN, found NaN in {', '.join(_with_nan(chain_))}")


def _with_nan(chain_: LinearChain) -> list[str]:
    """The names of the potentials that hold a NaN where it counts."""
    found = []
    for name in ("unary", "transition", "initial", "final"):
        value = getattr(chain_, name)
        zeroed = {n: None if v is None else torch.zeros_like(v) for n, v in _potentials(chain_).items()}
        alone = {**zeroed, name: value, "lengths": chain_.lengths}
        if value is not None and chain.has_nan(**alone):
            found.append(name)
    return found


def _potentials(chain_: LinearChain) -> dict[str, Tensor | None]:
    return dict(zip(("unary", "transition", "initial", "final"), chain_._args[:-1], strict=True))


def require_same_states(p: LinearChain, q: LinearChain) -> None:
    """``ValueError`` unless both chains have as many states and, eagerly, the same lengths."""
    if p.unary.shape[-1] != q.unary.shape[-1]:
        found = f"{p.unary.shape[-1]} and {q.unary.shape[-1]}"
        raise ValueError(f"both chains must have the same number of states, found {found}")
    if p._validate_args and is_eager(p.unary):
        require_same_lengths(p.lengths, q.lengths, p.unary.shape[-2])
