r"""The operators that every family of structures has, with their derivatives.

With :math:`\mu_b = \nabla \log Z_b` the marginals of item b and :math:`H_b = \nabla \mu_b` their covariance:

* ``inside`` (log Z) has the gradient :math:`\sum_b g_b \mu_b`, which is ``vjp``;
* ``vjp`` has, in a direction v, the derivative :math:`\sum_b g_b H_b v_b`, and for g :math:`\langle v_b,
\mu_b \rangle`:
  both are ``hvp``. So is the derivative of ``marginals``, with g = 1;
* ``hvp`` is the end: a third order is refused;
* ``score`` and ``score_vjp`` are linear in the potentials and in g, and each other's derivatives.

Operators take ``(*scores, lengths)``, here ``potentials``; scores that are not required may be None. Between
scores and lengths there may be more that has no derivative, such as a list of rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from structlv.ops._register import Operator, keep_nothing, no_tangent, refuse
from structlv.ops._vmap import Rules

_DISCRETE = (
    "{0} is not differentiable: its result is a choice among structures. Differentiate its score instead, "
    "or use marginals or a relaxation"
)
_THIRD_ORDER = (
    "the third derivative of a {0}'s log-partition is not implemented: log_partition is differentiable "
    "twice, marginals and entropy once"
)


def keep(ctx: Any, *tensors: Tensor | None) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.set_materialize_grads(False)


def keep_all(ctx: Any, inputs: tuple, output: Any) -> None:
    keep(ctx, *inputs)


def present(gradients: tuple[Tensor | None, ...], potentials: Any) -> tuple:
    """Gradients of ``potentials``, or directions: None for what is absent, and for what has none."""
    found = [None if x is None else g for g, x in zip(gradients, potentials, strict=False)]
    return *found, *[None] * (len(potentials) - len(found))


def _finite(scores: Tensor) -> Tensor:
    """An illegal structure has the score ``-inf`` whatever the potentials: derivative 0."""
    return torch.where(scores == -torch.inf, 0.0, scores)


def discrete(prefix: str, query: str, fake: Any, vmap: Any, floats: bool = False) -> Operator:
    """A choice among structures, which refuses to be differentiated; integers have no tangent at all."""
    sentence = refuse(_DISCRETE.format(query))
    return Operator(
        f"{prefix}_{query}",
        fake=fake,
        setup=keep_nothing,
        backward=sentence,
        jvp=sentence if floats else no_tangent,
        vmap=vmap,
    )


def distinct(prefix: str, fake: Any, rules: Rules, count: int) -> Operator:
    """Structures without replacement and their perturbed log-probabilities: constants to every derivative.

    ``fake`` is that of the structures; ``count`` potentials, with the lengths.
    """

    def both(*args: Any) -> tuple[Tensor, Tensor]:
        events = fake(*args)
        return events, events.new_empty(events.shape[: events.dim() - rules.event], dtype=torch.float64)

    def setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.inputs = len(inputs)
        ctx.mark_non_differentiable(*output)

    return Operator(
        f"{prefix}_sample_distinct",
        fake=both,
        setup=setup,
        backward=lambda ctx, *grads: (None,) * ctx.inputs,
        jvp=lambda ctx, *tangents: (None, None),
        vmap=rules.query(count, outputs=2, at=1),
    )


class Family:
    """log-partition, inside, score and their derivatives, of structures with ``count`` potentials.

    ``name`` is the operators' prefix, ``title`` what a sentence calls a structure, ``required`` the number of
    potentials, from the first, that are not optional; ``fakes`` a module with an answer for each operator.
    ``hvp`` gives (schema, kernel) where second order on the CPU is not C++; ``linear``: whether the score of
    a structure is a sum of scores of parts, which has operators then.
    """

    def __init__(
        self,
        name: str,
        title: str,
        *,
        count: int,
        required: int,
        fakes: Any,
        rules: Rules,
        hvp: tuple[str, Callable[..., Any]] | None = None,
        linear: bool = True,
    ) -> None:
        self.name, self.count, self.required, self.rules = name, count, required, rules
        self.scores = len(rules.cores)
        third_order = refuse(_THIRD_ORDER.format(title))
        self.log_partition = self._operator(
            "log_partition", fakes.log_partition, rules.query(count), _log_partition_setup
        )
        self.inside = self._operator("inside", fakes.inside, rules.inside, _inside_setup, _inside_eager)
        self.vjp = self._operator("vjp", lambda grad, chart, *x: fakes.gradients(*x), rules.vjp(self.chart))
        self.hvp = Operator(
            f"{name}_hvp",
            fake=fakes.hvp,
            setup=keep_nothing,
            backward=third_order,
            jvp=third_order,
            vmap=rules.hvp,
            schema=hvp and hvp[0],
            kernel=hvp and hvp[1],
        )
        if not linear:
            return
        self.score = self._operator("score", fakes.score, rules.score)
        self.score_vjp = self._operator(
            "score_vjp", lambda grad, event, *x: fakes.gradients(*x), rules.score_vjp
        )

    def _operator(
        self, query: str, fake: Any, vmap: Any, setup: Any = keep_all, eager: Any = None
    ) -> Operator:
        return Operator(
            f"{self.name}_{query}",
            fake=fake,
            setup=setup,
            backward=getattr(self, f"_{query}_backward"),
            jvp=getattr(self, f"_{query}_jvp"),
            vmap=vmap,
            eager=eager,
        )

    def chart(self, *potentials: Any) -> Tensor:
        return self.inside(*potentials, False)[1]

    # ---- log Z: gradient, second order -------------------------------------------------------------------

    def directional(self, potentials: Any, tangents: Any, grad: Tensor | None = None) -> tuple[Tensor, ...]:
        """``hvp`` in the direction of the tangents, of which any may be None."""
        return self.hvp(grad, *self.directions(potentials, tangents), *potentials)

    def directions(self, potentials: Any, tangents: Any) -> list[Tensor | None]:
        """The tangents of the scores, with zeros for those that must be there."""
        pairs = zip(potentials[: self.scores], tangents, strict=False)
        return [
            torch.zeros_like(x) if v is None and x is not None and i < self.required else v
            for i, (x, v) in enumerate(pairs)
        ]

    def _inside_backward(self, ctx: Any, grad: Tensor | None, _: Any = None) -> tuple:
        if grad is None:
            return (None,) * (self.count + 1)
        saved = ctx.saved_tensors
        return *present(self.vjp(grad, *saved), saved[1:]), None

    def _inside_jvp(self, ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        return self.directional(ctx.saved_tensors[1:], tangents)[0].to(ctx.dtype), None

    def _log_partition_backward(self, ctx: Any, grad: Tensor | None) -> tuple:
        if grad is None:
            return (None,) * (self.count + 1)
        potentials = ctx.saved_tensors
        return *present(self.vjp(grad, self.chart(*potentials), *potentials), potentials), None

    def _log_partition_jvp(self, ctx: Any, *tangents: Any) -> Tensor:
        return self.directional(ctx.saved_tensors, tangents)[0].to(ctx.dtype)

    def _vjp_backward(self, ctx: Any, *directions: Tensor | None) -> tuple:
        grad, _, *potentials = ctx.saved_tensors
        if all(v is None for v in directions):
            return (None,) * (self.count + 2)
        d_grad, *gradients = self.directional(potentials, present(directions, potentials), grad)
        return d_grad.to(grad.dtype), None, *present(tuple(gradients), potentials)

    def _vjp_jvp(self, ctx: Any, grad_tangent: Tensor | None, _: Any, *tangents: Any) -> tuple:
        grad, chart, *potentials = ctx.saved_tensors
        moved = self.directional(potentials, tangents, grad)[1:]
        if grad_tangent is None:
            return moved
        linear = self.vjp(grad_tangent, chart, *potentials)
        return tuple(a + b for a, b in zip(moved, linear, strict=True))

    # ---- scores of given structures ----------------------------------------------------------------------

    def _score_of(self, event: Tensor, tangents: Any, potentials: Any) -> Tensor:
        return _finite(self.score(event, *self.directions(potentials, tangents), *potentials[self.scores :]))

    def _score_backward(self, ctx: Any, grad: Tensor | None) -> tuple:
        if grad is None:
            return (None,) * (self.count + 1)
        saved = ctx.saved_tensors
        return None, *present(self.score_vjp(grad, *saved), saved[1:])

    def _score_jvp(self, ctx: Any, _: Any, *tangents: Any) -> Tensor:
        event, *potentials = ctx.saved_tensors
        return self._score_of(event, tangents, potentials)

    def _score_vjp_backward(self, ctx: Any, *directions: Tensor | None) -> tuple:
        _, event, *potentials = ctx.saved_tensors
        if all(v is None for v in directions):
            return (None,) * (self.count + 2)
        return self._score_of(event, present(directions, potentials), potentials), *(None,) * (self.count + 1)

    def _score_vjp_jvp(self, ctx: Any, grad_tangent: Tensor | None, *_: Any) -> tuple:
        grad, *rest = ctx.saved_tensors
        return self.score_vjp(torch.zeros_like(grad) if grad_tangent is None else grad_tangent, *rest)


def _inside_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.dtype = output[0].dtype
    keep(ctx, output[1], *inputs[:-1])


def _inside_eager(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> Tensor:
    ctx.save_for_backward(output[1], *inputs[:-1])
    return output[0]


def _log_partition_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.dtype = output.dtype
    keep(ctx, *inputs[:-1])
