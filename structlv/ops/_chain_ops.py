"""The chain's operators: those of every family, marginals, filtering, relaxed samples, choices of paths.

Operators take (unary, transition, initial, final, lengths), here ``potentials``. Derivatives are those of
:mod:`structlv.ops._family`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from structlv.ops import _chain_fakes as fakes
from structlv.ops._family import Family, discrete, distinct, keep, keep_all, present
from structlv.ops._register import Operator, keep_nothing, refuse
from structlv.ops._vmap import Rules

_rules = Rules(cores=((2,), (2, 3), (1,), (1,)), carrier=0, event=1)
_family = Family("chain", "chain", count=5, required=2, fakes=fakes, rules=_rules)
_once = refuse("filter is differentiable once")
_once_relaxed = refuse("relaxed samples are differentiable once")
_untransformed_filter = refuse("filter under a transform goes through the reference")
_untransformed_pairs = refuse("pairs of states under a transform are a product in torch")
_untransformed = refuse("relaxed samples under a transform go through the reference")

LOG_PARTITION, INSIDE, VJP, HVP = _family.log_partition, _family.inside, _family.vjp, _family.hvp
SCORE, SCORE_VJP = _family.score, _family.score_vjp


def _marginals_setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.edges = inputs[5]
    keep(ctx, *inputs[:5])


def _marginals_backward(ctx: Any, v_unary: Tensor | None, v_transition: Tensor | None) -> tuple:
    potentials = ctx.saved_tensors
    v_transition = None if ctx.edges is None else v_transition
    if v_unary is None and v_transition is None:
        return (None,) * 6
    _, *gradients = _family.directional(potentials, (v_unary, v_transition, None, None))
    return *present(tuple(gradients), potentials), None


def _marginals_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
    """One direction per item, so the transition becomes (as a view) one per item, and per step for edges."""
    unary, transition, *rest = ctx.saved_tensors
    v_transition = torch.zeros_like(transition) if tangents[1] is None else tangents[1]
    shape = fakes.edges_like(unary, transition, bool(ctx.edges)).shape
    if len(shape) > max(transition.dim(), unary.dim()):
        transition = transition.unsqueeze(-3)
    potentials = (unary, transition.expand(shape), *rest)
    found = _family.directional(potentials, (tangents[0], v_transition, *tangents[2:4]))[1:3]
    if ctx.edges is None:
        return found[0], torch.zeros_like(fakes.edges_like(unary, potentials[1], None))
    return found


def _filter_chart(*potentials: Any) -> Tensor:
    return FILTER_INSIDE(*potentials)[1]


def _filter_backward(ctx: Any, grad: Tensor | None) -> tuple:
    if grad is None:
        return (None,) * 5
    potentials = ctx.saved_tensors
    return present(FILTER_VJP(grad, _filter_chart(*potentials), *potentials), potentials)


def _filter_inside_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    keep(ctx, output[1], *inputs)


def _filter_inside_eager(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> Tensor:
    ctx.save_for_backward(output[1], *inputs)
    return output[0]


def _filter_inside_backward(ctx: Any, grad: Tensor | None, _: Any = None) -> tuple:
    if grad is None:
        return (None,) * 5
    chart, *potentials = ctx.saved_tensors
    return present(FILTER_VJP(grad, chart, *potentials), potentials)


def _pairs_backward(ctx: Any, grad: Tensor | None) -> Tensor | None:
    (states,) = ctx.saved_tensors
    if grad is None or states.shape[-2] == 0:
        return None if grad is None else torch.zeros_like(states)
    here, there = states[..., :-1, :], states[..., 1:, :]
    return pad(there @ grad.mT, (0, 0, 0, 1)) + pad(here @ grad, (0, 0, 1, 0))


MARGINALS = Operator(
    "chain_marginals",
    fake=fakes.marginals,
    setup=_marginals_setup,
    backward=_marginals_backward,
    jvp=_marginals_jvp,
    vmap=_rules.query(5, outputs=2),
)
FILTER = Operator(
    "chain_filter",
    fake=fakes.filter,
    setup=keep_all,
    backward=_filter_backward,
    jvp=_untransformed_filter,
    vmap=_rules.query(5),
)
FILTER_INSIDE = Operator(
    "chain_filter_inside",
    fake=fakes.filter_inside,
    setup=_filter_inside_setup,
    backward=_filter_inside_backward,
    jvp=_untransformed_filter,
    vmap=_untransformed_filter,
    eager=_filter_inside_eager,
)
FILTER_VJP = Operator(
    "chain_filter_vjp",
    fake=lambda grad, chart, *potentials: fakes.gradients(*potentials),
    setup=keep_nothing,
    backward=_once,
    jvp=_once,
    vmap=_rules.vjp(_filter_chart),
)
PAIRS = Operator(
    "chain_pairs",
    fake=lambda states: states.new_empty([*states.shape[:-2], *[states.shape[-1]] * 2]),
    setup=keep_all,
    backward=_pairs_backward,
    jvp=_untransformed_pairs,
    vmap=_untransformed_pairs,
)


def _relaxed_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    keep(ctx, *output, *inputs[:6])


def _relaxed_eager(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, *inputs[:6])
    return output[:2]


def _relaxed_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple:
    if grad is None:
        return (None,) * 8
    relaxed, states, filtered, chart, *inputs = ctx.saved_tensors
    *gradients, temperature = RELAXED_VJP(grad, states, relaxed, filtered, chart, *inputs)
    return *present(tuple(gradients), inputs[:5]), temperature, None, None


RELAXED = Operator(
    "chain_relaxed",
    fake=fakes.relaxed,
    setup=_relaxed_setup,
    backward=_relaxed_backward,
    jvp=_untransformed,
    vmap=_untransformed,
    eager=_relaxed_eager,
)
RELAXED_VJP = Operator(
    "chain_relaxed_vjp",
    fake=fakes.relaxed_gradients,
    setup=keep_nothing,
    backward=_once_relaxed,
    jvp=_untransformed,
    vmap=_untransformed,
)
MAX_MARGINALS = discrete(
    "chain", "max_marginals", fakes.max_marginals, _rules.query(5, outputs=2), floats=True
)
ARGMAX = discrete("chain", "argmax", fakes.events, _rules.query(5))
TOPK = discrete("chain", "topk", fakes.events, _rules.query(5, at=1))
SAMPLE = discrete("chain", "sample", fakes.events, _rules.query(5, at=1))
SAMPLE_DISTINCT = distinct("chain", fakes.events, _rules, 5)


def has_nan(*potentials: Any) -> bool:
    """The one operator without derivatives: its answer is no tensor."""
    return torch.ops.structlv.chain_has_nan.default(*potentials)
