"""Gradients of expectations E_{z ~ p}[f(z)] over structures, by samples.

An estimator takes a distribution p and a function f and gives a *surrogate* (*b): its value estimates the
expectation, and its gradient, in whatever p and f depend on, estimates the expectation's. Sum or average it
over the batch and call ``backward``::

    loss = ScoreFunction(num_samples=8)(posterior, lambda z: cost(z)).mean()
    loss.backward()
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from structlv.distributions import Relaxation, StochasticSoftmax, StructuredDistribution
from structlv.learning.baselines import Baseline, LearnedBaseline, LeaveOneOut, MovingAverage
from structlv.learning.unordered import leave_one_out

__all__ = [
    "VIMCO",
    "Annealed",
    "Baseline",
    "Estimator",
    "LearnedBaseline",
    "LeaveOneOut",
    "MovingAverage",
    "Pathwise",
    "Relaxed",
    "ScoreFunction",
    "UnorderedSet",
]

Function = Callable[[Any], Tensor]


class Estimator(ABC):
    """A way to estimate E_p[f] and its gradient. Abstract.

    Attributes:
        of_parts: whether f maps parts, as ``p.marginals()`` has them, and not events.
        of_mean: whether E_p[f] is estimated, and not a bound.
    """

    of_parts: ClassVar[bool] = False
    of_mean: ClassVar[bool] = True

    @property
    def through_parts(self) -> bool:
        """Whether f is asked for relaxed parts, or for its derivative in parts."""
        return self.of_parts

    @abstractmethod
    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        """The surrogate (*b)."""


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """mean_s f(z_s) with the gradient mean_s (f(z_s) - baseline) d log p(z_s) + d f(z_s): unbiased for any f.

    f maps events (s, *b, *event) to (s, *b), and need not be differentiable. Also called REINFORCE. Williams
    (1992), "Simple statistical gradient-following algorithms", section 4; with leave-one-out: Mnih and
    Rezende (2016), section 2.2, Kool et al. (2019).

    Args:
        num_samples: s; at least 2 with ``LeaveOneOut``.
        baseline: ``LeaveOneOut()``, ``MovingAverage()`` or ``LearnedBaseline(...)``; a function of the
            detached values (s, *b) will do, if its result does not depend on the sample that it is
            subtracted from; None for none.
    """

    num_samples: int = 8
    baseline: Callable[[Tensor], Tensor] | None = field(default_factory=LeaveOneOut)

    def __post_init__(self) -> None:
        require_samples(self.num_samples, 2 if isinstance(self.baseline, LeaveOneOut) else 1)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        values, log_prob = _drawn(p, f, self.num_samples, generator)
        fixed = values.detach()
        advantage = fixed if self.baseline is None else fixed - self.baseline(fixed)
        surrogate = (values + _weighted(log_prob, advantage)).mean(0)
        if isinstance(self.baseline, LearnedBaseline):
            loss = self.baseline.loss(fixed)
            surrogate = surrogate + (loss - loss.detach())
        return surrogate


@dataclass(frozen=True)
class VIMCO(Estimator):
    """log mean_s exp(f(z_s)), in the mean a lower bound of log E[exp f]; its gradient, without bias.

    With f = log p(x, z) - log q(z) it is the importance-weighted bound of log p(x). Each sample is credited
    with what the bound gains over its value where f(z_s) is replaced by the mean of the others (the geometric
    mean of exp f). Mnih and Rezende (2016), "Variational inference for Monte Carlo objectives", section 2.4.

    Args:
        num_samples: s, at least 2.
    """

    of_mean = False
    num_samples: int = 8

    def __post_init__(self) -> None:
        require_samples(self.num_samples, 2)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        values, log_prob = _drawn(p, f, self.num_samples, generator)
        count = math.log(self.num_samples)
        bound = values.logsumexp(0) - count
        fixed = values.detach()
        others = LeaveOneOut()(fixed)
        own = torch.eye(len(fixed), dtype=torch.bool, device=fixed.device)
        own = own.reshape(own.shape + (1,) * (fixed.dim() - 1))
        without = torch.where(own, others.unsqueeze(0), fixed.unsqueeze(0)).logsumexp(1) - count
        return bound + _weighted(log_prob, bound.detach() - without).sum(0)


@dataclass(frozen=True)
class UnorderedSet(Estimator):
    """sum_s p(z_s) R(S, z_s) f(z_s) over a set S of different structures, drawn without replacement.

    R is the leave-one-out ratio P(S | z_s drawn first) / P(S): value and gradient are unbiased, and no sample
    is spent twice; where there are no more than s structures they are exact. The gradient has the built-in
    baseline, what the others say of E[f]. Ratios are exact but for rounding: an integral, O(b s^2).

    f maps events (s, *b, *event) to (s, *b), as in ``ScoreFunction``; in place of structures that there are
    not it sees the first one, which then does not count again. The value is 0 where none is possible. Kool,
    van Hoof and Welling (2020), "Estimating gradients for discrete random variables by sampling without
    replacement", sections 3 and 4.

    Args:
        num_samples: s, at least 2.
    """

    num_samples: int = 8

    def __post_init__(self) -> None:
        require_samples(self.num_samples, 2)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        events, _, log_prob = p.sample_without_replacement(self.num_samples, generator)
        absent = log_prob == -torch.inf
        again = absent.reshape(absent.shape + (1,) * len(p.event_shape))
        values = checked_values(f(torch.where(again, events[:1], events)), self.num_samples, p)
        values = values.masked_fill(absent, 0.0)
        weights, others = (x.to(values.dtype) for x in leave_one_out(log_prob))
        fixed = values.detach()
        advantage = weights * (fixed - (others * fixed.unsqueeze(0)).sum(1))
        return (weights * values + _weighted(log_prob, advantage)).sum(0)


@dataclass(frozen=True)
class Relaxed(Estimator):
    """mean_s f(z_s) of relaxed structures z_s (``rsample``), and its own gradient: biased, of low variance.

    f maps parts, as ``p.marginals()`` has them after (s), to (s, *b), and must be differentiable.

    Args:
        method, temperature: see ``StructuredDistribution.rsample``; a temperature may be a function that is
            asked at each call, such as ``Annealed``.
        num_samples: s.
    """

    of_parts = True
    method: Relaxation = field(default_factory=StochasticSoftmax)
    temperature: float | Tensor | Callable[[], float] | None = None
    num_samples: int = 1

    def __post_init__(self) -> None:
        require_samples(self.num_samples, 1)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        temperature = self.temperature() if callable(self.temperature) else self.temperature
        parts = p.rsample((self.num_samples,), generator, method=self.method, temperature=temperature)
        return checked_values(f(parts), self.num_samples, p).mean(0)


@dataclass
class Annealed:
    """A temperature that falls geometrically from ``start`` to ``end`` in ``steps`` calls, and stays there.

    Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 2.1.
    """

    start: float = 1.0
    end: float = 0.1
    steps: int = 10000
    step: int = 0

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.end > 0 and self.steps > 0):
            raise ValueError(
                f"start, end and steps must be positive, found {self.start}, {self.end} and {self.steps}"
            )

    def __call__(self) -> float:
        share = min(self.step / self.steps, 1.0)
        self.step += 1
        return self.start * (self.end / self.start) ** share


@dataclass(frozen=True)
class Pathwise(Estimator):
    """mean_s f(z_s) of reparameterised samples of any ``torch.distributions`` distribution with ``rsample``.

    Unbiased where samples are differentiable functions of noise: Kingma and Welling (2014), section 2.4. f
    maps samples (s, *b, *event) to (s, *b). For structures see ``Relaxed``.

    Args:
        num_samples: s.
    """

    num_samples: int = 1

    def __post_init__(self) -> None:
        require_samples(self.num_samples, 1)

    def __call__(self, p: Any, f: Function, generator: Generator | None = None) -> Tensor:
        _refuse(generator)
        if not p.has_rsample or isinstance(p, StructuredDistribution):
            raise ValueError(f"expected a distribution with pathwise gradients, found {type(p).__name__}")
        return checked_values(f(p.rsample((self.num_samples,))), self.num_samples, p).mean(0)


def require_samples(count: Any, least: int) -> None:
    if not isinstance(count, int) or count < least:
        raise ValueError(f"num_samples must be an integer of at least {least}, found {count!r}")


def _refuse(generator: Generator | None) -> None:
    if generator is not None:
        raise ValueError("torch.distributions draws from torch's own generator: seed that, found another")


def _drawn(p: Any, f: Function, count: int, generator: Any) -> tuple[Tensor, Tensor]:
    """f of samples, and their log-probabilities, both (s, *b)."""
    if isinstance(p, StructuredDistribution):
        events = p.sample((count,), generator)
    else:
        _refuse(generator)
        events = p.sample((count,))
    return checked_values(f(events), count, p), p.log_prob(events)


def checked_values(values: Tensor, count: int, p: StructuredDistribution) -> Tensor:
    wanted = (count, *p.batch_shape)
    if not isinstance(values, Tensor) or tuple(values.shape) != wanted:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"f must give one number for each sample, shape {wanted}, found {found}")
    return values


def _weighted(log_prob: Tensor, weight: Tensor) -> Tensor:
    """0, with the gradient of weight times log p; where nothing is possible (log p is -inf) there is none."""
    log_prob = log_prob.masked_fill(log_prob == -torch.inf, 0.0)
    return weight * (log_prob - log_prob.detach())
