"""Differentiable samples of structures: what ``rsample`` can do, a method object each.

All but one perturb: every node (a state at a step, a symbol over a span) gets Gumbel noise of its own, one for
each item and sample, and what is returned is a function of the perturbed scores. Scores of neighbours
(transitions, rules) are not perturbed: their noise would be larger than the chart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from structlv.distributions.parameters import map_tensors

if TYPE_CHECKING:
    from structlv.distributions.base import StructuredDistribution


class Relaxation(ABC):
    """A way to draw differentiable samples. Abstract."""

    @abstractmethod
    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: float) -> Any:
        """Parts (num_samples, *b, ...) in the layout of ``d.marginals()``."""


@dataclass(frozen=True)
class StochasticSoftmax(Relaxation):
    """The marginals of the perturbed scores at a temperature: a mean of structures near the best one.

    As the temperature goes to 0 it becomes the structure that ``PerturbAndMAP`` finds with the same noise.
    Differentiable once. Paulus, Choi, Tarlow, Krause and Maddison (2020), "Gradient estimation with
    stochastic softmax tricks", section 3.
    """

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: float) -> Any:
        return d._perturbed(num_samples, seed).with_temperature(temperature).marginals()


@dataclass(frozen=True)
class PerturbAndMAP(Relaxation):
    """The best structure under perturbed scores; its gradient is that of ``StochasticSoftmax``.

    Straight-through: exactly a structure on the way forward, relaxed on the way back. Not an exact sample: with
    noise on nodes alone its law is close to p, but not p. Papandreou and Yuille (2011), "Perturb-and-MAP random
    fields"; Jang, Gu and Poole (2017), section 2.2.
    """

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: float) -> Any:
        perturbed = d._perturbed(num_samples, seed)
        hard = perturbed.to_parts(perturbed.argmax())
        return _through(hard, lambda: perturbed.with_temperature(temperature).marginals())


@dataclass(frozen=True)
class StraightThroughMarginals(Relaxation):
    """An exact sample on the way forward, the gradient of the marginals on the way back; no temperature.

    For a function that is linear in the parts the gradient's mean is exact. Bengio, Leonard and Courville (2013),
    "Estimating or propagating gradients through stochastic neurons", section 3, applied to structures.
    """

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: float) -> Any:
        return _through(d.to_parts(d._sample(num_samples, seed)), d.marginals)


@dataclass(frozen=True)
class IMLE(Relaxation):
    """Implicit maximum likelihood: the gradient is the difference of two best structures under one noise.

    With g the gradient of the loss with respect to the parts, d loss / d score(z) = (z - z') / step, where z' is
    the best structure after every part's perturbed score has moved by -step g. Niepert, Minervini and Franceschi
    (2021), "Implicit MLE", section 3. No temperature. Differentiable once.

    Args:
        step: the size of that move, positive ("lambda" in the paper).
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"step must be positive, found {self.step!r}")

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: float) -> Any:
        perturbed = d._perturbed(num_samples, seed)
        names = [n for n in perturbed._parameters if _is_score(getattr(perturbed, n))]
        parts = _TwoBest.apply(perturbed, names, self.step, *[getattr(perturbed, n) for n in names])
        return type(perturbed._part_scores())(*parts)


class _TwoBest(torch.autograd.Function):
    """The parts of the best structure; backwards, the implicit gradient of the scores."""

    @staticmethod
    def forward(ctx: Any, d: StructuredDistribution, names: list[str], step: float, *scores: Tensor) -> Any:
        ctx.d, ctx.names, ctx.step = d.detach(), names, step
        ctx.event = d.argmax()
        ctx.set_materialize_grads(False)
        return tuple(d.to_parts(ctx.event))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        d = ctx.d
        moved = d._moved([None if g is None else -ctx.step * g for g in grads])
        leaves = {name: getattr(d, name).detach().requires_grad_() for name in ctx.names}
        with torch.enable_grad():
            here = d._derived(lambda name, value: leaves.get(name, value))
            gap = _finite(here._score(ctx.event)) - _finite(here._score(moved.argmax()))
        found = torch.autograd.grad(gap.sum() / ctx.step, list(leaves.values()), allow_unused=True)
        return None, None, None, *found


def _finite(score: Tensor) -> Tensor:
    return score.masked_fill(score == -torch.inf, 0.0)


def _is_score(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _through(hard: Any, soft: Any) -> Any:
    """``hard``, with the gradient of ``soft()``, which is not computed where none is recorded."""
    if not torch.is_grad_enabled():
        return hard
    return type(hard)(*[h if s is None else h + (s - s.detach()) for h, s in zip(hard, soft(), strict=True)])
