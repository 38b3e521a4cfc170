"""Which way a call goes: to an operator at once, to it after the checks, or to the reference.

Kernels are for the CPU and, where they exist, for GPUs (:meth:`Operator.runs_on`); other devices, and
installations without kernels, run the reference; on the device "meta" an operator is its fake. Half
precision (and, under autocast, everything but float64) is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from structlv import _native
from structlv.ops._family import Family
from structlv.ops._register import Operator, eager, is_grad_enabled, transformed

KERNEL_DTYPES = frozenset((torch.float32, torch.float64))
# what a quick attempt may raise where the checks say it better
RETRY = (RuntimeError, TypeError, AttributeError)
SLOW, RAW, RECORDED = range(3)
MAX_SEED = 2**63 - 1


def kernels(x: Tensor) -> bool:
    """Whether every operator takes ``x``: on the CPU, or without data, where kernels were compiled."""
    return _native._C is not None and (x.is_cpu or x.is_meta)


def mode(*potentials: Tensor | None) -> int:
    """How an operator can be called at once, its own checks being enough: for eager mode, about 1 µs."""
    first: Any = potentials[0]
    if not (kernels(first) and eager() and first.dtype in KERNEL_DTYPES):
        return SLOW
    grad, found = is_grad_enabled(), RAW
    for x in potentials:
        if x is not None:
            if not x.is_cpu:
                return SLOW
            if grad and x.requires_grad:
                found = RECORDED
    return found


class Prepared:
    """Checked potentials, ``(*scores, lengths)``, in a dtype that is computed in."""

    def __init__(self, check: Callable[..., None], potentials: tuple) -> None:
        first = potentials[0]
        if isinstance(first, Tensor) and not first.is_meta and torch.is_autocast_enabled(first.device.type):
            potentials = tuple(_widen(x) for x in potentials)
        check(*potentials)
        self.dtype: torch.dtype = potentials[0].dtype
        self.args: Any = tuple(_widen(x) for x in potentials) if self.dtype.itemsize < 4 else potentials
        self.native = kernels(self.args[0])
        self.recorded = is_grad_enabled() and any(x is not None and x.requires_grad for x in self.args)

    def runs(self, operator: Operator) -> bool:
        """The one decision between a compiled kernel and the reference."""
        return operator.runs_on(self.args[0])

    def narrow(self, outputs: tuple[Tensor | None, ...]) -> Any:
        return tuple(None if x is None else x.to(self.dtype) for x in outputs)


def _widen(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() and x.dtype.itemsize < 4 else x


class Route:
    """The calls of one family: ``check(*potentials)`` raises where they are not its."""

    def __init__(self, check: Callable[..., None]) -> None:
        self.check = check

    def prepare(self, *potentials: Any) -> Prepared:
        return Prepared(self.check, potentials)

    def log_partition(self, family: Family, fallback: Any, potentials: tuple, as_double: bool) -> Tensor:
        """log Z, with a chart for the backward pass where there may be one."""
        found = self.quick(family.log_partition, potentials, as_double, record=family.inside)
        if found is not None:
            return found
        p = self.prepare(*potentials)
        if not p.runs(family.log_partition):
            return fallback(*p.args, as_double=as_double)
        if p.recorded or transformed():
            return family.inside(*p.args, as_double)[0]
        return family.log_partition(*p.args, as_double)

    def quick(
        self,
        operator: Operator,
        potentials: tuple,
        *flags: Any,
        before: tuple = (),
        record: Operator | None = None,
    ) -> Any:
        """The operator at once (``record`` where autograd records); None where it cannot be, or raises."""
        try:
            found = mode(*potentials)
            if found == RAW:
                return operator.raw(*before, *potentials, *flags)
            if found == RECORDED:
                return (record or operator).record(*before, *potentials, *flags)
        except RETRY:
            pass
        return None

    def choose(self, operator: Operator, fallback: Any, potentials: tuple, **options: int) -> Any:
        """A choice among structures; options are keywords of the fallback, arguments of the operator."""
        try:
            if mode(*potentials) != SLOW:
                return operator.raw(*potentials, *options.values())
        except RETRY:
            pass
        p = self.prepare(*potentials)
        return operator(*p.args, *options.values()) if p.runs(operator) else fallback(*p.args, **options)
