r"""The chain's operators with their derivatives.

With :math:`\mu_b = \nabla \log Z_b` the marginals of item b and :math:`H_b = \nabla \mu_b` their covariance:

* ``inside`` (log Z) has the gradient :math:`\sum_b g_b \mu_b`, which is ``vjp``;
* ``vjp`` has, in a direction v, the derivative :math:`\sum_b g_b H_b v_b`, and for g :math:`\langle v_b,
\mu_b \rangle`:
  both are ``hvp``. So is the derivative of ``marginals``, with g = 1;
* ``hvp`` is the end: a third order is refused;
* ``score`` and ``score_vjp`` are linear in the potentials and in g, and each other's derivatives.

Operators take (unary, transition, initial, final, lengths), here ``potentials``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv import reference
from structlv.ops import _chain_fakes as fakes
from structlv.ops import _chain_vmap as vmap
from structlv.ops._register import Operator, keep_nothing, no_tangent, refuse

Potentials = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]

_third_order = refuse(
    "the third derivative of a chain's log-partition is not implemented: log_partition is differentiable "
    "twice, marginals and entropy once"
)
_DISCRETE = (
    "{0} is not differentiable: its result is a choice among structures. Differentiate its score instead, "
    "or use marginals or a relaxation"
)
_once = refuse("filter is differentiable once")


def _keep(ctx: Any, *tensors: Tensor | None) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.set_materialize_grads(False)


def _zeros(x: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if x is None else x


def _present(gradients: tuple[Tensor, ...], initial: Tensor | None, final: Tensor | None) -> tuple:
    """Gradients of unary, transition, initial, final, lengths: None for what is absent or has none."""
    d_unary, d_transition, d_initial, d_final = gradients
    return (
        d_unary,
        d_transition,
        None if initial is None else d_initial,
        None if final is None else d_final,
        None,
    )


# ---- log Z: gradient, second order -----------------------------------------------------------------------


def _inside_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.dtype = output[0].dtype
    _keep(ctx, output[1], *inputs[:5])


def _inside_eager(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> Tensor:
    ctx.save_for_backward(output[1], *inputs[:5])
    return output[0]


def _inside_backward(ctx: Any, grad: Tensor | None, _: Any = None) -> tuple:
    if grad is None:
        return (None,) * 6
    saved = ctx.saved_tensors
    return *_present(VJP(grad, *saved), saved[3], saved[4]), None


def _directional(potentials: Any, tangents: tuple, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """``HVP`` in the direction of the tangents, of which any may be None."""
    unary, transition = potentials[:2]
    return HVP(grad, _zeros(tangents[0], unary), _zeros(tangents[1], transition), *tangents[2:4], *potentials)


def _inside_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
    _, *potentials = ctx.saved_tensors
    return _directional(potentials, tangents)[0].to(ctx.dtype), None


def _log_partition_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.dtype = output.dtype
    _keep(ctx, *inputs[:5])


def _log_partition_backward(ctx: Any, grad: Tensor | None) -> tuple:
    if grad is None:
        return (None,) * 6
    potentials = ctx.saved_tensors
    chart = INSIDE(*potentials, False)[1]
    return *_present(VJP(grad, chart, *potentials), potentials[2], potentials[3]), None


def _log_partition_jvp(ctx: Any, *tangents: Any) -> Tensor:
    return _directional(ctx.saved_tensors, tangents)[0].to(ctx.dtype)


def _keep_all(ctx: Any, inputs: tuple, output: Any) -> None:
    _keep(ctx, *inputs)


def _vjp_backward(ctx: Any, *directions: Tensor | None) -> tuple:
    grad, _, *potentials = ctx.saved_tensors
    if all(v is None for v in directions):
        return (None,) * 7
    ends = [None if x is None else v for v, x in zip(directions[2:], potentials[2:4], strict=True)]
    d_grad, *gradients = _directional(potentials, (*directions[:2], *ends), grad)
    return d_grad.to(grad.dtype), None, *_present(tuple(gradients), potentials[2], potentials[3])


def _vjp_jvp(ctx: Any, grad_tangent: Tensor | None, _: Any, *tangents: Any) -> tuple:
    grad, chart, *potentials = ctx.saved_tensors
    moved = _directional(potentials, tangents, grad)[1:]
    if grad_tangent is None:
        return moved
    linear = VJP(grad_tangent, chart, *potentials)
    return tuple(a + b for a, b in zip(moved, linear, strict=True))


# ---- marginals -------------------------------------------------------------------------------------------


def _marginals_setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.edges = inputs[5]
    _keep(ctx, *inputs[:5])


def _marginals_backward(ctx: Any, v_unary: Tensor | None, v_transition: Tensor | None) -> tuple:
    potentials = ctx.saved_tensors
    v_transition = None if ctx.edges is None else v_transition
    if v_unary is None and v_transition is None:
        return (None,) * 6
    _, *gradients = _directional(potentials, (v_unary, v_transition, None, None))
    return *_present(tuple(gradients), potentials[2], potentials[3]), None


def _marginals_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
    """One direction per item, so the transition becomes (as a view) one per item, and per step for edges."""
    unary, transition, *rest = ctx.saved_tensors
    v_transition = _zeros(tangents[1], transition)
    shape = fakes.edges_like(unary, transition, bool(ctx.edges)).shape
    if len(shape) > max(transition.dim(), unary.dim()):
        transition = transition.unsqueeze(-3)
    potentials = (unary, transition.expand(shape), *rest)
    _, d_unary, d_transition, *_ = _directional(potentials, (tangents[0], v_transition, *tangents[2:4]))
    if ctx.edges is None:
        d_transition = torch.zeros_like(fakes.edges_like(unary, transition, None))
    return d_unary, d_transition


# ---- scores of given structures, filtering ---------------------------------------------------------------


def _finite(scores: Tensor) -> Tensor:
    """A structure with an illegal state has the score ``-inf`` whatever the potentials: derivative 0."""
    return torch.where(scores == -torch.inf, 0.0, scores)


def _score_of_directions(states: Tensor, directions: tuple, potentials: Any) -> Tensor:
    unary, transition = potentials[:2]
    v_unary, v_transition, v_initial, v_final = directions[:4]
    scores = SCORE(
        states, _zeros(v_unary, unary), _zeros(v_transition, transition), v_initial, v_final, potentials[4]
    )
    return _finite(scores)


def _score_backward(ctx: Any, grad: Tensor | None) -> tuple:
    if grad is None:
        return (None,) * 6
    _, *potentials = ctx.saved_tensors
    return None, *_present(SCORE_VJP(grad, *ctx.saved_tensors), potentials[2], potentials[3])


def _score_jvp(ctx: Any, _: Any, *tangents: Any) -> Tensor:
    states, *potentials = ctx.saved_tensors
    return _score_of_directions(states, tangents, potentials)


def _score_vjp_backward(ctx: Any, *directions: Tensor | None) -> tuple:
    _, states, *potentials = ctx.saved_tensors
    if all(v is None for v in directions):
        return (None,) * 7
    ends = [None if x is None else v for v, x in zip(directions[2:], potentials[2:4], strict=True)]
    return _score_of_directions(states, (*directions[:2], *ends), potentials), *(None,) * 6


def _score_vjp_jvp(ctx: Any, grad_tangent: Tensor | None, *_: Any) -> tuple:
    grad, states, *potentials = ctx.saved_tensors
    return SCORE_VJP(torch.zeros_like(grad) if grad_tangent is None else grad_tangent, states, *potentials)


def _filter_vjp(grad: Tensor, *potentials: Any) -> tuple[Tensor, ...]:
    gradients = reference.chain.filter_vjp(grad, *potentials)
    return tuple(grad.new_empty(0) if x is None else x for x in gradients)


def _filter_backward(ctx: Any, grad: Tensor | None) -> tuple:
    if grad is None:
        return (None,) * 5
    potentials = ctx.saved_tensors
    return _present(FILTER_VJP(grad, *potentials), potentials[2], potentials[3])


# ---- the operators ---------------------------------------------------------------------------------------


def _discrete(name: str, fake: Any, rule: Any, jvp: Any = None) -> Operator:
    sentence = refuse(_DISCRETE.format(name))
    return Operator(
        f"chain_{name}", fake=fake, setup=keep_nothing, backward=sentence, jvp=jvp or sentence, vmap=rule
    )


LOG_PARTITION = Operator(
    "chain_log_partition",
    fake=fakes.log_partition,
    setup=_log_partition_setup,
    backward=_log_partition_backward,
    jvp=_log_partition_jvp,
    vmap=vmap.query(),
)
INSIDE = Operator(
    "chain_inside",
    fake=fakes.inside,
    setup=_inside_setup,
    backward=_inside_backward,
    jvp=_inside_jvp,
    vmap=vmap.inside,
    eager=_inside_eager,
)
VJP = Operator(
    "chain_vjp",
    fake=lambda grad, chart, *potentials: fakes.gradients(*potentials),
    setup=_keep_all,
    backward=_vjp_backward,
    jvp=_vjp_jvp,
    vmap=vmap.vjp(lambda *potentials: INSIDE(*potentials, False)[1]),
)
HVP = Operator(
    "chain_hvp", fake=fakes.hvp, setup=keep_nothing, backward=_third_order, jvp=_third_order, vmap=vmap.hvp
)
MARGINALS = Operator(
    "chain_marginals",
    fake=fakes.marginals,
    setup=_marginals_setup,
    backward=_marginals_backward,
    jvp=_marginals_jvp,
    vmap=vmap.query(outputs=2),
)
SCORE = Operator(
    "chain_score",
    fake=fakes.score,
    setup=_keep_all,
    backward=_score_backward,
    jvp=_score_jvp,
    vmap=vmap.score,
)
SCORE_VJP = Operator(
    "chain_score_vjp",
    fake=lambda grad, states, *potentials: fakes.gradients(*potentials),
    setup=_keep_all,
    backward=_score_vjp_backward,
    jvp=_score_vjp_jvp,
    vmap=vmap.score_vjp,
)
FILTER = Operator(
    "chain_filter",
    fake=fakes.filter,
    setup=_keep_all,
    backward=_filter_backward,
    jvp=refuse("filter in forward mode goes through the reference"),
    vmap=vmap.query(),
)
FILTER_VJP = Operator(
    "chain_filter_vjp",
    schema="(Tensor grad, Tensor unary, Tensor transition, Tensor? initial, Tensor? final, Tensor? lengths) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    kernel=_filter_vjp,
    fake=lambda grad, *potentials: fakes.gradients(*potentials),
    setup=keep_nothing,
    backward=_once,
    jvp=_once,
    vmap=vmap.filter_vjp,
)
MAX_MARGINALS = _discrete("max_marginals", fakes.max_marginals, vmap.query(outputs=2))
ARGMAX = _discrete("argmax", fakes.events, vmap.query(), jvp=no_tangent)
TOPK = _discrete("topk", fakes.events, vmap.query(at=1), jvp=no_tangent)
SAMPLE = _discrete("sample", fakes.events, vmap.query(at=1), jvp=no_tangent)


def has_nan(*potentials: Any) -> bool:
    """The one operator without derivatives: its answer is no tensor."""
    return torch.ops.structlv.chain_has_nan.default(*potentials)
