"""Noise for the parts of structures: a function of seed, item, sample and position alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from structlv.ops._check import require_int
from structlv.ops._register import Operator
from structlv.ops._route import MAX_SEED
from structlv.reference import philox


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def _backward(ctx: Any, *grads: Any) -> tuple[None, ...]:
    return (None,) * 5


def _vmap(apply: Any, info: Any, in_dims: tuple, like: Tensor, *rest: Any) -> tuple[Tensor, int]:
    """The mapped dimension is one more batch dimension: its items have noise of their own."""
    return apply(like.movedim(in_dims[0], 0), *rest), 1


_GUMBEL = Operator(
    "gumbel",
    fake=lambda like, event_dims, num_samples, *rest: like.new_empty([num_samples, *like.shape]),
    setup=_setup,
    backward=_backward,
    jvp=lambda ctx, *tangents: None,
    vmap=_vmap,
)


def gumbel(like: Tensor, *, event_dims: int, num_samples: int, seed: int, spans: bool = False) -> Tensor:
    """Independent standard Gumbel noise ``(num_samples, *b, *event)`` for parts ``like (*b, *event)``.

    Only shape, dtype and device of ``like`` count; half precision is drawn in float32. A number is a function
    of (seed in [0, 2^63), item of the flattened batch, sample, position in the event) alone; with ``spans``
    the event is (n, n, labels), positions do not depend on n, and spans i > j have none: 0. Never infinite.
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    like = like.detach()
    if not _GUMBEL.runs_on(like):
        return philox.gumbel(like, event_dims, num_samples, seed, spans=spans)
    wide = like.float() if like.dtype.itemsize < 4 else like
    return _GUMBEL(wide, event_dims, num_samples, seed, spans).to(like.dtype)
