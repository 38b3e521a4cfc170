"""The factorial chain's operators: those of every family, marginals, and choices among paths of joint states.

Operators take (unary, transition, initial, sizes, lengths), here ``potentials``; ``sizes (m)`` has no
derivative. Derivatives are those of :mod:`structlv.ops._family`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.ops import _factorial_fakes as fakes
from structlv.ops._family import Family, discrete, keep, present
from structlv.ops._register import Operator
from structlv.ops._vmap import Rules

_NAME, _COUNT = "factorial", 5
# a direction of the transition may be one per step: that of marginals with edges
_rules = Rules(cores=((2,), (1, 2), (1,)), carrier=0, event=1)
FAMILY = Family(_NAME, "factorial chain", count=_COUNT, required=2, fakes=fakes, rules=_rules)


def _marginals_setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.edges = inputs[_COUNT]
    keep(ctx, *inputs[:_COUNT])


def _marginals_backward(ctx: Any, v_unary: Tensor | None, v_transition: Tensor | None) -> tuple:
    potentials = ctx.saved_tensors
    if v_unary is None and v_transition is None:
        return (None,) * (_COUNT + 1)
    _, *gradients = FAMILY.directional(potentials, (v_unary, v_transition, None))
    return *present(tuple(gradients), potentials), None


def _marginals_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
    """One direction per item, so the transition becomes (as a view) one per item."""
    if ctx.edges:
        raise NotImplementedError("marginals of edges per step in forward mode go through the reference")
    unary, transition, *rest = ctx.saved_tensors
    v_transition = torch.zeros_like(transition) if tangents[1] is None else tangents[1]
    potentials = (unary, transition.expand(*unary.shape[:-2], transition.shape[-1]), *rest)
    return FAMILY.directional(potentials, (tangents[0], v_transition, tangents[2]))[1:3]


MARGINALS = Operator(
    f"{_NAME}_marginals",
    fake=fakes.marginals,
    setup=_marginals_setup,
    backward=_marginals_backward,
    jvp=_marginals_jvp,
    vmap=_rules.query(_COUNT, outputs=2),
)
ARGMAX = discrete(_NAME, "argmax", fakes.events, _rules.query(_COUNT))
SAMPLE = discrete(_NAME, "sample", fakes.events, _rules.query(_COUNT, at=1))


def has_nan(*potentials: Any) -> bool:
    """The one operator without derivatives: its answer is no tensor."""
    return torch.ops.structlv.factorial_has_nan.default(*potentials)
