"""What a distribution does with its parameters whatever they mean: move, slice, expand, print."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Transform

Self = TypeVar("Self", bound="ParameterizedDistribution")


class ParameterizedDistribution(Distribution, ABC):
    """A distribution that is its tensors: the abstract base of everything in ``structlv.distributions``.

    A subclass names its parameters in ``_parameters`` (constructor argument = attribute; None where
    absent; a tuple of tensors where each of several chains has one), says in ``_event_dims`` how many
    dimensions of each are not batch dimensions and in ``_full`` which of them always carry the whole batch
    shape, and inherits ``expand``, indexing, ``to``, ``detach`` and ``repr``. Parameters shared over the
    batch stay shared: none is ever copied per item.

    ``validate_args`` follows structlv's own default, which is on; ``set_default_validate_args`` changes it
    for structlv alone. (torch's default is another switch, one that the first ``torch.compile`` turns off.)
    """

    has_rsample = False
    _validate_args: bool = True
    _parameters: ClassVar[tuple[str, ...]]
    _full: ClassVar[tuple[str, ...]]

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether structlv distributions check the values of their arguments unless told otherwise."""
        if value not in (True, False):
            raise ValueError(f"value must be True or False, found {value!r}")
        ParameterizedDistribution._validate_args = value

    @abstractmethod
    def _event_dims(self, name: str) -> int:
        """How many of the last dimensions of parameter ``name`` are not batch dimensions."""

    @abstractmethod
    def _rebuild(self: Self, **parameters: Any) -> Self:
        """The same kind of distribution over these values of all of ``_parameters``, unchecked."""

    def _derived(self: Self, fn: Callable[[str, Any], Any]) -> Self:
        """``_rebuild`` with ``fn(name, value)`` in place of every parameter that is not None; of a tuple, in
        place of its tensors.
        """
        new: dict[str, Any] = {}
        for name in self._parameters:
            value = getattr(self, name)
            if isinstance(value, tuple):
                new[name] = tuple(fn(name, tensor) for tensor in value)
            else:
                new[name] = None if value is None else fn(name, value)
        result = self._rebuild(**new)
        result._validate_args = self._validate_args
        return result

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """On another device or in another floating dtype, as ``Tensor.to``; integers keep their dtype."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking)

        return self._derived(lambda _, value: map_tensors(value, move))

    def detach(self: Self) -> Self:
        """The same distribution, cut from the graph that computed its parameters."""
        return self._derived(lambda _, value: map_tensors(value, Tensor.detach))

    def expand(self: Self, batch_shape: Size | list[int] | tuple[int, ...], _instance: Any = None) -> Self:
        """The same distribution with batch shape ``batch_shape``: views only, nothing is copied."""
        shape = torch.Size(batch_shape)

        def grow(name: str, value: Any) -> Any:
            if name not in self._full:
                return value
            events = self._event_dims(name)
            more = max(len(shape) + events - value.dim(), 0)  # as views first: sizes of 1 then need no sum
            return value[(None,) * more].expand(shape + value.shape[value.dim() - events :])

        return self._derived(grow)

    def __getitem__(self: Self, index: Any) -> Self:
        """The distribution of some items: ``index`` addresses the batch dimensions, as it would a tensor's.

        Raises:
            IndexError: more indices than batch dimensions, or an index out of range.
        """
        full = batch_index(index, self._batch_shape)
        return self._derived(lambda name, value: self._item(name, value, full))

    def _item(self, name: str, value: Any, index: tuple[Any, ...]) -> Any:
        shared = name not in self._full
        return item_of(value, self._event_dims(name), self._batch_shape, index, shared)

    def __repr__(self) -> str:
        shown = [f"batch_shape: {tuple(self._batch_shape)}", f"event_shape: {tuple(self._event_shape)}"]
        for name in self._parameters:
            value = getattr(self, name)
            if value is not None:
                shown.append(f"{name}: {_shapes(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _shapes(value: Any) -> Any:
    """What ``repr`` shows of a parameter: of tensors their shapes."""
    if isinstance(value, tuple):
        return tuple(_shapes(item) for item in value)
    return tuple(value.shape) if isinstance(value, Tensor) else value


def item_of(
    value: Tensor, events: int, batch_shape: Size, index: tuple[Any, ...], may_be_shared: bool = True
) -> Tensor:
    """What a parameter, with ``events`` dimensions beside the batch's, is for the items of ``index``."""
    split = value.dim() - events
    batch, event = value.shape[:split], value.shape[split:]
    if may_be_shared and all(size == 1 for size in batch):
        return value.reshape(event)
    return value.expand(batch_shape + event)[index]


class Tensors:
    """What is made of tensors but is no distribution: :func:`map_tensors` reaches into its attributes."""


def batch_index(index: Any, batch_shape: Size) -> tuple[Any, ...]:
    """``index`` as a tuple that addresses exactly the dimensions of ``batch_shape`` (no ellipsis left)."""
    items = index if isinstance(index, tuple) else (index,)
    free = len(batch_shape) - sum(_consumed(item) for item in items)
    if free < 0:
        raise IndexError(f"too many indices for batch shape {tuple(batch_shape)}: {index!r}")
    ellipses = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can hold one ellipsis only")
    at = ellipses[0] if ellipses else len(items)
    return (*items[:at], *[slice(None)] * free, *items[at + 1 :])


def _consumed(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, Tensor) and item.dtype == torch.bool:
        return item.dim()
    return 1


def map_tensors(value: Any, fn: Callable[[Tensor], Any]) -> Any:
    """``value`` with ``fn`` applied to its tensors; an object that holds them is copied first."""
    if isinstance(value, Tensor):
        return fn(value)
    if type(value) in (list, tuple):
        return type(value)(map_tensors(item, fn) for item in value)
    if not isinstance(value, Distribution | Transform | Tensors):
        return value
    result = copy.copy(value)
    result.__dict__ = {name: map_tensors(item, fn) for name, item in vars(value).items()}
    return result
