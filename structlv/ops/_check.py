"""What an operator accepts: shapes, dtypes, devices; errors name the argument, the rule and the find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def require_tensor(name: str, x: Any) -> None:
    """Raise ``TypeError`` unless ``x`` is a tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, found {type(x).__name__}")


def require_int(name: str, x: Any, low: int, high: int | None = None) -> None:
    """Raise unless ``x`` is an integer in ``low..high``, both included."""
    if isinstance(x, bool) or not isinstance(x, int | torch.SymInt):
        raise TypeError(f"{name}: expected an int, found {type(x).__name__}")
    if torch.compiler.is_compiling() or isinstance(x, torch.SymInt):
        return  # it may be drawn inside the graph (and then Dynamo calls it an int): no value to look at
    if x < low or (high is not None and x > high):
        raise ValueError(
            f"{name}: expected {low} or more{'' if high is None else f', up to {high}'}, found {x}"
        )


def require_like(name: str, x: Tensor, unary: Tensor) -> None:
    """Raise unless ``x`` has the dtype and the device of ``unary``."""
    require_tensor(name, x)
    if x.dtype != unary.dtype:
        raise TypeError(f"{name}: expected the dtype of unary, {unary.dtype}, found {x.dtype}")
    require_device(name, x, unary)


def require_device(name: str, x: Tensor, unary: Tensor) -> None:
    """Raise unless ``x`` is on the device of ``unary``."""
    if x.device != unary.device:
        raise ValueError(f"{name}: expected the device of unary, {unary.device}, found {x.device}")


def require_tail(name: str, x: Tensor, tail: tuple[int, ...], batch: tuple[int, ...], rule: str) -> None:
    """Raise unless the shape of ``x`` ends in ``tail`` and the rest broadcasts to ``batch``."""
    lead = tuple(x.shape[: x.dim() - len(tail)])
    if x.dim() < len(tail) or tuple(x.shape[x.dim() - len(tail) :]) != tail:
        raise ValueError(f"{name}: expected {rule}, a shape ending in {tail}, found {tuple(x.shape)}")
    fits = len(lead) <= len(batch) and all(
        mine == 1 or mine == theirs for mine, theirs in zip(reversed(lead), reversed(batch), strict=False)
    )
    if not fits:
        raise ValueError(f"{name}: expected {rule}, batch dimensions that broadcast to {batch}, found {lead}")


def require_int64(name: str, x: Tensor, unary: Tensor) -> None:
    """Raise unless ``x`` is an int64 tensor on the device of ``unary``."""
    require_tensor(name, x)
    if x.dtype != torch.int64:
        raise TypeError(f"{name}: expected dtype torch.int64, found {x.dtype}")
    require_device(name, x, unary)


def check_chain(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless these are the potentials of a chain."""
    _check_unary(unary)
    *batch_list, n, k = unary.shape
    batch = tuple(batch_list)
    require_like("transition", transition, unary)
    per_step = transition.dim() == unary.dim() + 1
    tail = (n - 1 if n > 0 else 0, k, k) if per_step else (k, k)
    rule = "(*b, n-1, k, k)" if per_step else "(*b, k, k) or (*b, n-1, k, k)"
    require_tail("transition", transition, tail, batch, rule)
    for name, x in (("initial", initial), ("final", final)):
        if x is not None:
            require_like(name, x, unary)
            require_tail(name, x, (k,), batch, "(*b, k)")
    if lengths is not None:
        require_int64("lengths", lengths, unary)
        if tuple(lengths.shape) != batch:
            raise ValueError(f"lengths: expected (*b) = {batch}, found {tuple(lengths.shape)}")


def _check_unary(unary: Tensor) -> None:
    require_tensor("unary", unary)
    if not unary.is_floating_point():
        raise TypeError(f"unary: expected a floating-point dtype, found {unary.dtype}")
    if unary.dim() < 2:
        raise ValueError(f"unary: expected (*b, n, k), found {tuple(unary.shape)}")
    if unary.shape[-1] == 0:
        raise ValueError(
            f"unary: expected at least one state, k >= 1, found (*b, n, k) = {tuple(unary.shape)}"
        )


def check_states(states: Tensor, unary: Tensor) -> None:
    """Raise unless ``states`` is int64 ``(*s, *b, n)``."""
    require_int64("states", states, unary)
    tail = tuple(unary.shape[:-1])
    if states.dim() < len(tail) or tuple(states.shape[states.dim() - len(tail) :]) != tail:
        raise ValueError(
            f"states: expected (*s, *b, n), a shape ending in {tail}, found {tuple(states.shape)}"
        )
