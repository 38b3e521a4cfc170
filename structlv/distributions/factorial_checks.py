"""What the arguments of factorial chains and factorial HMMs must satisfy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Size, Tensor

from structlv.distributions.validation import (
    broadcast_batch,
    describe,
    require_events,
    require_same_lengths,
    uniform_floats,
)


def tensors(name: str, value: Any) -> tuple[Tensor, ...]:
    """``value``, a sequence of one tensor for each chain, as a tuple."""
    if isinstance(value, Tensor) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name} must be a sequence of tensors, one for each chain, found {describe(value)}")
    return tuple(value)


def require_count(count: int, **values: Sequence[Any] | None) -> None:
    """``ValueError`` unless there is one of each for every chain."""
    for name, value in values.items():
        if value is not None and len(value) != count:
            raise ValueError(f"{name} must have {count} tensors, one for each chain, found {len(value)}")


def one_dtype(**groups: Any) -> list[Any]:
    """The groups (tensors, tuples of tensors, None), of one floating dtype: see ``uniform_floats``."""
    first, *others = _flat(groups.values())
    if isinstance(first, Tensor) and first.dtype.is_floating_point:  # nearly always: nothing to name
        dtype, device = first.dtype, first.device
        if all(isinstance(x, Tensor) and x.dtype == dtype and x.device == device for x in others):
            return list(groups.values())
    named: dict[str, Any] = {}
    for name, group in groups.items():
        if isinstance(group, tuple):
            named.update({f"{name}[{i}]": tensor for i, tensor in enumerate(group)})
        elif group is not None:
            named[name] = group
    cast = dict(zip(named, uniform_floats(**named), strict=True))
    return [
        tuple(cast[f"{name}[{i}]"] for i in range(len(group))) if isinstance(group, tuple) else cast.get(name)
        for name, group in groups.items()
    ]


def _flat(groups: Iterable[Any]) -> list[Any]:
    """All that is not None, in order."""
    flat: list[Any] = []
    for group in groups:
        if isinstance(group, tuple):
            flat.extend(group)
        elif group is not None:
            flat.append(group)
    return flat


def check_unary(
    unary: Tensor | tuple[Tensor, ...], count: int
) -> tuple[tuple[int, ...], int, dict[str, Size]]:
    """The numbers of states of the chains, that of steps, and the batch shapes that ``unary`` brings."""
    if isinstance(unary, Tensor):
        if unary.dim() < count + 1 or 0 in unary.shape[unary.dim() - count :]:
            raise ValueError(
                f"unary must have shape (*b, n, k_1, ..., k_m) with m = {count} and every k >= 1, "
                f"found {tuple(unary.shape)}"
            )
        split = unary.dim() - count
        return tuple(unary.shape[split:]), unary.shape[split - 1], {"unary": unary.shape[: split - 1]}
    for i, x in enumerate(unary):
        if x.dim() < 2 or x.shape[-1] == 0:
            raise ValueError(f"unary[{i}] must have shape (*b, n, k) with k >= 1, found {tuple(x.shape)}")
        require_events(
            f"unary[{i}]", x, "(*b, n, k) with the n of all chains", unary[0].shape[-2], x.shape[-1]
        )
    shapes = {f"unary[{i}]": x.shape[:-2] for i, x in enumerate(unary)}
    return tuple(x.shape[-1] for x in unary), unary[0].shape[-2], shapes


def check_chains(
    sizes: tuple[int, ...],
    names: tuple[str, str],
    transition: Sequence[Tensor],
    initial: Sequence[Tensor] | None,
) -> dict[str, Size]:
    """The batch shapes that transitions and initial scores, called ``names``, bring."""
    shapes = {}
    for i, (k, x) in enumerate(zip(sizes, transition, strict=True)):
        require_events(f"{names[0]}[{i}]", x, "(*b, k, k)", k, k)
        shapes[f"{names[0]}[{i}]"] = x.shape[:-2]
    for i, x in enumerate(initial or ()):
        require_events(f"{names[1]}[{i}]", x, "(*b, k)", sizes[i])
        shapes[f"{names[1]}[{i}]"] = x.shape[:-1]
    return shapes


def check_shapes(
    unary: Tensor | tuple[Tensor, ...],
    transition: tuple[Tensor, ...],
    initial: tuple[Tensor, ...] | None,
    lengths: Tensor | None,
) -> tuple[tuple[int, ...], int, Size]:
    """The numbers of states of the chains, that of steps, and the batch shape."""
    count = len(transition)
    require_count(count, unary=None if isinstance(unary, Tensor) else unary, initial=initial)
    sizes, n, shapes = check_unary(unary, count)
    shapes |= check_chains(sizes, ("transition", "initial"), transition, initial)
    if lengths is not None:
        shapes["lengths"] = lengths.shape
    return sizes, n, broadcast_batch(shapes)


def require_same_chains(p: Any, q: Any, eager: bool) -> None:
    """``ValueError`` unless both have as many states in every chain and, eagerly, the same lengths."""
    if p.sizes != q.sizes:
        raise ValueError(f"both must have the same numbers of states, found {p.sizes} and {q.sizes}")
    if eager:
        require_same_lengths(p.lengths, q.lengths, p.event_shape[-1])
