"""Differentiable samples of structures: what ``rsample`` can do, a method object each.

All but one perturb: every node (a state at a step, a symbol over a span) gets Gumbel noise of its own, for
each item and sample, and what is returned is a function of the perturbed scores. Scores of neighbours
(transitions, rules) are not perturbed: their noise would be larger than the chart. Trees of low-rank rules
are perturbed as trees of dense ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from structlv.distributions.algebra import finite, flat, mapped, rebuilt
from structlv.distributions.parameters import map_tensors

Temperature: TypeAlias = "float | Tensor"

if TYPE_CHECKING:
    from structlv.distributions.base import StructuredDistribution


class Relaxation(ABC):
    """A way to draw differentiable samples. Abstract."""

    uses_temperature: ClassVar[bool] = True

    @abstractmethod
    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: Temperature) -> Any:
        """Parts (num_samples, *b, ...) in the layout of ``d.marginals()``."""


@dataclass(frozen=True)
class StochasticSoftmax(Relaxation):
    """The marginals of the perturbed scores at a temperature: a mean of structures near the best one.

    As the temperature goes to 0 it becomes the structure that ``PerturbAndMAP`` finds with the same noise.
    Differentiable once. Paulus, Choi, Tarlow, Krause and Maddison (2020), "Gradient estimation with
    stochastic softmax tricks", section 3.
    """

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: Temperature) -> Any:
        return d._perturbed(num_samples, seed).with_temperature(temperature).marginals()


@dataclass(frozen=True)
class PerturbAndMAP(Relaxation):
    """The best structure under perturbed scores; its gradient is that of ``StochasticSoftmax``.

    Straight-through: exactly a structure on the way forward, relaxed on the way back. Not an exact sample:
    with noise on nodes alone its law is close to p, but not p. Papandreou and Yuille (2011),
    "Perturb-and-MAP random fields"; Jang, Gu and Poole (2017), section 2.2.
    """

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: Temperature) -> Any:
        perturbed = d._perturbed(num_samples, seed)
        hard = perturbed.to_parts(perturbed.argmax())
        return _through(hard, lambda: perturbed.with_temperature(temperature).marginals())


@dataclass(frozen=True)
class GumbelCRF(Relaxation):
    """Relaxed backward sampling: an exact sample, drawn choice by choice with Gumbel noise, where each choice
    is replaced by the softmax of its perturbed log-probabilities at a temperature.

    As the temperature goes to 0 it becomes the sample itself; a choice is conditional on the hard choices
    before it: states from the last to the first, nodes of trees from the top. Differentiable once, in scores
    and temperature. Fu, Tan, Bi, Rush, Wang and Liu (2020), "Latent template induction with Gumbel-CRFs",
    section 3. Of trees of listed rules a ``ValueError`` where the alternatives would not fit into memory.

    Args:
        hard: straight-through: the sample on the way forward, the relaxation's gradient on the way back.
        alpha: at least 1; above 1 the softmax is the alpha-entmax, which gives unlikely alternatives weight
            exactly 0 (2: sparsemax). From the package entmax, extra ``relaxations``. Peters, Niculae and
            Martins (2019), "Sparse sequence-to-sequence models", section 3.
    """

    hard: bool = False
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.alpha >= 1:
            raise ValueError(f"alpha must be at least 1, found {self.alpha!r}")

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: Temperature) -> Any:
        d = d._by_choices()
        event, parts = d._relaxed_sample(num_samples, seed, temperature, self.alpha)
        return _through(d.to_parts(event), lambda: parts) if self.hard else parts


@dataclass(frozen=True)
class StraightThroughMarginals(Relaxation):
    """An exact sample on the way forward, the gradient of the marginals on the way back; no temperature.

    For a function that is linear in the parts the gradient is exact. Bengio, Leonard and Courville (2013),
    "Estimating or propagating gradients through stochastic neurons", section 3, applied to structures.
    """

    uses_temperature = False

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: Temperature) -> Any:
        return _through(d.to_parts(d._sample(num_samples, seed)), d.marginals)


@dataclass(frozen=True)
class IMLE(Relaxation):
    """Implicit maximum likelihood: the gradient is the difference of two best structures under one noise.

    With g the gradient of the loss with respect to the parts, that with respect to their scores is (z - z') /
    step, where z' is the best structure after every part's perturbed score has moved by -step g. Niepert,
    Minervini and Franceschi (2021), "Implicit MLE", section 3. No temperature. Differentiable once.

    Args:
        step: the size of that move, positive ("lambda" in the paper).
    """

    step: float = 1.0

    uses_temperature = False

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"step must be positive, found {self.step!r}")

    def draw(self, d: StructuredDistribution, num_samples: int, seed: int, temperature: Temperature) -> Any:
        perturbed = d._perturbed(num_samples, seed)
        with torch.no_grad():
            event = perturbed.argmax()
            parts = perturbed.to_parts(event)
        scores = flat([getattr(perturbed, name) for name in _scores_of(perturbed)])
        return rebuilt(parts, _TwoBest.apply(perturbed.detach(), event, self.step, flat(parts), *scores))


class _TwoBest(torch.autograd.Function):
    """The parts of the best structure; backwards, the implicit gradient of the scores."""

    @staticmethod
    def forward(
        ctx: Any, d: StructuredDistribution, event: Tensor, step: float, parts: list[Tensor], *scores: Tensor
    ) -> Any:
        ctx.d, ctx.event, ctx.step = d, event, step
        ctx.set_materialize_grads(False)
        return tuple(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        d, names = ctx.d, _scores_of(ctx.d)
        moves = iter([None if g is None else -ctx.step * g for g in grads])
        best = d._moved(mapped(d.to_parts(ctx.event), lambda _: next(moves))).argmax()
        with torch.enable_grad():
            leaves = {name: map_tensors(getattr(d, name), _leaf) for name in names}
            here = d._rebuild(**{name: leaves.get(name, getattr(d, name)) for name in d._parameters})
            gap = (finite(here._score(ctx.event)) - finite(here._score(best))).sum() / ctx.step
        if not gap.requires_grad:  # structures without parts
            return None, None, None, None, *(None for _ in flat(leaves.values()))
        found = torch.autograd.grad(gap, flat(leaves.values()), allow_unused=True)
        return None, None, None, None, *found


def _leaf(score: Tensor) -> Tensor:
    return score.detach().requires_grad_()


def _scores_of(d: StructuredDistribution) -> list[str]:
    """The names of the potentials."""
    given = [(name, flat([getattr(d, name)])) for name in d._parameters]
    return [name for name, tensors in given if tensors and tensors[0].is_floating_point()]


def _through(hard: Any, soft: Callable[[], Any]) -> Any:
    """``hard``, with the gradient of ``soft()``, which is not computed where none is recorded."""
    if not torch.is_grad_enabled():
        return hard
    pairs = zip(flat(hard), flat(soft()), strict=True)
    return rebuilt(hard, [h.detach() + (s - s.detach()) for h, s in pairs])
