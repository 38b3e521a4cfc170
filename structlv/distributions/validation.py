"""Checks of arguments: shapes, types and devices always; values only where looking at them is possible.

A value check reads the data, so it runs eagerly only: not while a graph is traced (``torch.compile``,
``torch.export``), not under a functorch transform (``vmap``, ``torch.func.grad``), not on fake tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Size, Tensor

_PLAIN = (Tensor, torch.nn.Parameter)
_peek_interpreter = torch._C._functorch.peek_interpreter_stack


def is_eager(tensor: Tensor) -> bool:
    """Whether ``tensor`` holds values that Python may look at."""
    if torch.compiler.is_compiling() or _peek_interpreter() is not None:
        return False
    return type(tensor) in _PLAIN and not tensor.is_meta


def describe(value: Any) -> str:
    """What was found, for an error message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"


def require_tensor(name: str, value: Any) -> None:
    """``TypeError`` unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, found {describe(value)}")


def positive(k: Any) -> int:
    """``k`` where it is a positive integer, else ``ValueError``."""
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a positive integer, found {k!r}")
    return k


def require_floating(name: str, value: Any) -> None:
    """``TypeError`` unless ``value`` is a floating-point tensor."""
    require_tensor(name, value)
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, found dtype {value.dtype}")


def require_integer(name: str, value: Any) -> None:
    """``TypeError`` unless ``value`` is a tensor of integers."""
    require_tensor(name, value)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be a tensor of integers (int64), found dtype {value.dtype}")


def require_bool(name: str, value: Any) -> None:
    """``TypeError`` unless ``value`` is a boolean tensor."""
    require_tensor(name, value)
    if value.dtype != torch.bool:
        raise TypeError(f"{name} must be a bool tensor, found dtype {value.dtype}")


def require_same_device(name: str, value: Tensor, other: str, reference: Tensor) -> None:
    """``ValueError`` unless both tensors live on one device."""
    if value.device != reference.device:
        raise ValueError(f"{name} must be on the device of {other}, {reference.device}, found {value.device}")


def require_no_nan(**tensors: Any) -> None:
    """``ValueError`` where a tensor among these holds a NaN (a value check: call it eagerly)."""
    for name, value in tensors.items():
        # a maximum is NaN where any entry is, and needs no table of booleans
        if isinstance(value, Tensor) and value.numel() and bool(value.detach().amax().isnan()):
            raise ValueError(f"{name} must not be NaN")


def require_events(name: str, value: Tensor, expected: str, *sizes: int) -> None:
    """``ValueError`` unless the last dimensions of ``value`` are ``sizes`` (``expected``, in letters)."""
    if value.shape[value.dim() - len(sizes) :] != sizes or value.dim() < len(sizes):
        found = tuple(value.shape)
        raise ValueError(f"{name} must have shape {expected} with last dimensions {sizes}, found {found}")


def uniform_floats(**tensors: Tensor | None) -> Iterable[Any]:
    """The tensors as they are, of one floating dtype; under autocast, where dtypes mix, promoted to the
    widest.

    Raises:
        TypeError: dtypes differ outside autocast, or a tensor is not of a floating dtype.
        ValueError: devices differ.
    """
    first, reference = next(iter(tensors.items()))
    require_floating(first, reference)
    assert reference is not None
    dtype, device, mixed = reference.dtype, reference.device, False
    for name, value in tensors.items():
        if value is None or value is reference:
            continue
        require_floating(name, value)
        if value.device != device:
            require_same_device(name, value, first, reference)
        mixed = mixed or value.dtype != dtype
    return _promoted(tensors, reference) if mixed else tensors.values()


def _promoted(tensors: dict[str, Tensor | None], reference: Tensor) -> list[Tensor | None]:
    present = {name: value for name, value in tensors.items() if value is not None}
    if not torch.is_autocast_enabled(reference.device.type):
        found = ", ".join(f"{name} {value.dtype}" for name, value in present.items())
        raise TypeError(f"floating dtypes must not be mixed: expected one dtype for all, found {found}")
    widest = reference.dtype
    for value in present.values():
        widest = torch.promote_types(widest, value.dtype)
    return [None if value is None else value.to(widest) for value in tensors.values()]


def broadcast_batch(shapes: dict[str, Size]) -> Size:
    """The common batch shape, or a ``ValueError`` that lists what each argument brought."""
    first, *others = [shape for shape in shapes.values() if len(shape)] or [torch.Size()]
    if all(shape == first for shape in others):
        return first  # torch's function takes longer, and at its first call, which imports sympy, a second
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"batch shapes must broadcast against one another, found {found}") from None


def checked_lengths(lengths: Tensor, name: str, reference: Tensor) -> Tensor:
    """``lengths`` as int64, on the device of ``reference``; :func:`require_lengths` checks the values."""
    require_integer("lengths", lengths)
    require_same_device("lengths", lengths, name, reference)
    return lengths if lengths.dtype == torch.int64 else lengths.long()


def require_lengths(lengths: Tensor, n: int) -> None:
    """``ValueError`` unless every length is in 0..n (a value check: call it eagerly)."""
    require_labels("lengths", lengths, 0, n)


def require_same_lengths(p: Tensor | None, q: Tensor | None, n: int) -> None:
    """``ValueError`` unless two distributions have the same lengths, None for n (call it eagerly)."""
    if p is None and q is None:
        return
    mine, other = (n if lengths is None else lengths for lengths in (p, q))
    if not bool((torch.as_tensor(mine) == torch.as_tensor(other)).all()):
        raise ValueError("both must have the same lengths: their structures are not the same otherwise")


def require_labels(name: str, labels: Tensor, low: int, high: int) -> None:
    """``ValueError`` unless every label is in low..high (a value check: call it eagerly)."""
    if labels.numel() == 0:
        return
    least, greatest = (int(v) for v in torch.aminmax(labels.detach()))
    if least < low or greatest > high:
        raise ValueError(f"{name} must be in {low}..{high}, found values from {least} to {greatest}")
