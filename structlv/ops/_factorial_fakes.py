"""What the factorial chain's operators return, as shapes and dtypes alone."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from structlv.ops._chain_fakes import events, log_partition, score

__all__ = ["events", "gradients", "hvp", "inside", "log_partition", "marginals", "score"]


def inside(unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *batch, n, joint = unary.shape
    return log_partition(unary, *rest), unary.new_empty([math.prod(batch) * (n * (joint + 1) + 8)])


def gradients(unary: Tensor, transition: Tensor, initial: Tensor | None, *_: Any) -> tuple:
    first = unary.new_empty([0] if initial is None else initial.shape)
    return unary.new_empty(unary.shape), unary.new_empty(transition.shape), first


def hvp(grad: Any, vu: Any, vt: Any, vi: Any, unary: Tensor, *rest: Any) -> tuple:
    return unary.new_empty(unary.shape[:-2]), *gradients(unary, *rest)


def marginals(unary: Tensor, transition: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *batch, n, _ = unary.shape
    steps = [max(n - 1, 0)] if rest[-1] else []
    return unary.new_empty(unary.shape), unary.new_empty([*batch, *steps, transition.shape[-1]])
