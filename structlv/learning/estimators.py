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
from typing import Any

import torch
from torch import Generator, Tensor

from structlv.distributions import Relaxation, StochasticSoftmax, StructuredDistribution
from structlv.learning.unordered import leave_one_out

__all__ = ["VIMCO", "Estimator", "LeaveOneOut", "MovingAverage", "Relaxed", "ScoreFunction", "UnorderedSet"]

Function = Callable[[Any], Tensor]


class Estimator(ABC):
    """A way to estimate E_p[f] and its gradient. Abstract."""

    @abstractmethod
    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        """The surrogate (*b)."""


class Baseline(ABC):
    """What is subtracted from f to lower the variance, and does not depend on the sample it meets."""

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """Something that broadcasts with ``values`` (s, *b), which are detached."""


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """For each sample the mean of the others: nothing to learn. Kool, van Hoof and Welling (2019)."""

    def __call__(self, values: Tensor) -> Tensor:
        if len(values) < 2:
            raise ValueError(f"leave-one-out needs at least 2 samples, found {len(values)}")
        return (values.sum(0) - values) / (len(values) - 1)


@dataclass
class MovingAverage(Baseline):
    """The exponentially weighted mean of f over former calls; 0 at the first. It remembers: one for a loss.

    Args:
        decay: of the past, in 0..1 (1 excluded).
    """

    decay: float = 0.9
    mean: float = field(default=0.0, init=False)
    weight: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), found {self.decay!r}")

    def __call__(self, values: Tensor) -> Tensor:
        baseline = self.mean / self.weight if self.weight else 0.0
        if values.numel():
            self.mean = self.decay * self.mean + (1 - self.decay) * float(values.mean())
            self.weight = self.decay * self.weight + (1 - self.decay)
        return values.new_tensor(baseline)


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """mean_s f(z_s) with the gradient mean_s (f(z_s) - baseline) d log p(z_s) + d f(z_s): unbiased for any f.

    f maps events (s, *b, *event) to (s, *b), and need not be differentiable. Also called REINFORCE. Williams
    (1992), "Simple statistical gradient-following algorithms", section 4; with leave-one-out: Mnih and
    Rezende (2016), section 2.2, Kool et al. (2019).

    Args:
        num_samples: s; at least 2 with ``LeaveOneOut``.
        baseline: ``LeaveOneOut()`` or ``MovingAverage()``; a function of the detached values (s, *b) will do,
            if its result does not depend on the sample that it is subtracted from; None for none.
    """

    num_samples: int = 8
    baseline: Callable[[Tensor], Tensor] | None = field(default_factory=LeaveOneOut)

    def __post_init__(self) -> None:
        _require_samples(self.num_samples, 2 if isinstance(self.baseline, LeaveOneOut) else 1)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        values, log_prob = _drawn(p, f, self.num_samples, generator)
        fixed = values.detach()
        advantage = fixed if self.baseline is None else fixed - self.baseline(fixed)
        return (values + _weighted(log_prob, advantage)).mean(0)


@dataclass(frozen=True)
class VIMCO(Estimator):
    """log mean_s exp(f(z_s)), in the mean a lower bound of log E[exp f]; its gradient, without bias.

    With f = log p(x, z) - log q(z) it is the importance-weighted bound of log p(x). Each sample is credited
    with what the bound gains over its value where f(z_s) is replaced by the mean of the others (the geometric
    mean of exp f). Mnih and Rezende (2016), "Variational inference for Monte Carlo objectives", section 2.4.

    Args:
        num_samples: s, at least 2.
    """

    num_samples: int = 8

    def __post_init__(self) -> None:
        _require_samples(self.num_samples, 2)

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
        _require_samples(self.num_samples, 2)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        events, _, log_prob = p.sample_without_replacement(self.num_samples, generator)
        absent = log_prob == -torch.inf
        again = absent.reshape(absent.shape + (1,) * len(p.event_shape))
        values = _checked(f(torch.where(again, events[:1], events)), self.num_samples, p)
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
        method, temperature: see ``StructuredDistribution.rsample``.
        num_samples: s.
    """

    method: Relaxation = field(default_factory=StochasticSoftmax)
    temperature: float | None = None
    num_samples: int = 1

    def __post_init__(self) -> None:
        _require_samples(self.num_samples, 1)

    def __call__(self, p: StructuredDistribution, f: Function, generator: Generator | None = None) -> Tensor:
        parts = p.rsample((self.num_samples,), generator, method=self.method, temperature=self.temperature)
        return _checked(f(parts), self.num_samples, p).mean(0)


def _require_samples(count: Any, least: int) -> None:
    if not isinstance(count, int) or count < least:
        raise ValueError(f"num_samples must be an integer of at least {least}, found {count!r}")


def _drawn(p: StructuredDistribution, f: Function, count: int, generator: Any) -> tuple[Tensor, Tensor]:
    """f of samples, and their log-probabilities, both (s, *b)."""
    events = p.sample((count,), generator)
    return _checked(f(events), count, p), p.log_prob(events)


def _checked(values: Tensor, count: int, p: StructuredDistribution) -> Tensor:
    wanted = (count, *p.batch_shape)
    if not isinstance(values, Tensor) or tuple(values.shape) != wanted:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"f must give one number for each sample, shape {wanted}, found {found}")
    return values


def _weighted(log_prob: Tensor, weight: Tensor) -> Tensor:
    """0, with the gradient of weight times log p; where nothing is possible (log p is -inf) there is none."""
    log_prob = log_prob.masked_fill(log_prob == -torch.inf, 0.0)
    return weight * (log_prob - log_prob.detach())
