"""M-steps of what the states of an HMM emit: symbols, normal distributions, Poisson counts, mixtures.

A family sees parameters as a tuple of float64 tensors with a row for each state (states that share their
emission are one row), and statistics as a tuple of sums over observations, weighted by the probability of
the row's state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.distributions as td
from torch import Tensor

from structlv.learning.m_step import Groups, Prior, log_ratio, weighted

Parameters = tuple[Tensor, ...]
Statistics = tuple[Tensor, ...]
MOST = 1 << 22  # numbers of a table of observations, rows and dimensions that is made at once


class Options(NamedTuple):
    """What an M-step must respect: the prior; the names of what is fixed; which rows share a covariance."""

    prior: Prior
    fixed: frozenset[str]
    covariance: Groups | None = None
    spherical: bool = False


class Family(ABC):
    """The M-step of one family of emissions. Abstract.

    ``names`` are those of its parameters, in their order, as `fixed` may give them.
    """

    names: tuple[str, ...]

    @abstractmethod
    def parameters(self, emission: Any) -> Parameters:
        """Of all states, as they are."""

    @abstractmethod
    def emission(self, parameters: Parameters) -> Any:
        """What an `HMM` takes."""

    @abstractmethod
    def statistics(self, parameters: Parameters, x: Tensor, weights: Tensor) -> Statistics:
        """Of observations (N, *event_shape) with weights (N, rows) float64."""

    @abstractmethod
    def step(self, parameters: Parameters, statistics: Statistics, options: Options) -> Parameters:
        """The best parameters for these statistics; the old ones of rows that have none."""

    @abstractmethod
    def log_prior(self, parameters: Parameters, options: Options) -> float:
        """In nats, up to a constant."""

    @abstractmethod
    def free(self, parameters: Parameters, options: Options) -> int:
        """How many numbers may be chosen freely."""

    def moved(self, statistics: Statistics, old: Parameters, new: Parameters) -> Statistics:
        """``statistics`` taken with the old parameters, as they would be with the new."""
        return statistics


def family_of(emission: Any) -> Family:
    """The family of an HMM's emission. Raises TypeError where it has no closed form here."""
    if isinstance(emission, Tensor):
        return Symbols()
    if isinstance(emission, td.MixtureSameFamily):
        return Mixture(family_of(emission.component_distribution))
    inner = emission.base_dist if isinstance(emission, td.Independent) else emission
    if inner is emission or emission.reinterpreted_batch_ndims == 1:
        if isinstance(inner, td.Poisson):
            return Rates(events=int(inner is not emission))
        if isinstance(inner, td.Normal):
            return Gaussian(full=False, scalar=inner is emission)
        if inner is emission and isinstance(inner, td.MultivariateNormal):
            return Gaussian(full=True)
    raise TypeError(
        "EM needs an emission of logits, MultivariateNormal, Normal or Poisson, or these two in "
        "Independent(., 1), or a MixtureSameFamily of one of them (or 'emission' in fixed), found "
        f"{emission}"
    )


# ---- symbols -------------------------------------------------------------------------------------------


class Symbols(Family):
    """Log-probabilities (rows, v); expected counts."""

    names = ("emission",)

    def parameters(self, emission: Any) -> Parameters:
        return (emission,)

    def emission(self, parameters: Parameters) -> Any:
        return parameters[0]

    def statistics(self, parameters: Parameters, x: Tensor, weights: Tensor) -> Statistics:
        counts = weights.new_zeros(parameters[0].shape[-1], weights.shape[-1])
        return (counts.index_add_(0, x.long(), weights).T.contiguous(),)

    def step(self, parameters: Parameters, statistics: Statistics, options: Options) -> Parameters:
        return (log_ratio(statistics[0], parameters[0], options.prior.emission),)

    def log_prior(self, parameters: Parameters, options: Options) -> float:
        return weighted(options.prior.emission, parameters[0])

    def free(self, parameters: Parameters, options: Options) -> int:
        return parameters[0].numel() - len(parameters[0])


# ---- counts of events ----------------------------------------------------------------------------------


class Rates(Family):
    """Poisson rates (rows, *event); how long each row was seen, and how many events."""

    names = ("rates",)

    def __init__(self, events: int) -> None:
        self.events = events

    def parameters(self, emission: Any) -> Parameters:
        return ((emission.base_dist if self.events else emission).rate,)

    def emission(self, parameters: Parameters) -> Any:
        rates = td.Poisson(parameters[0])
        return td.Independent(rates, self.events) if self.events else rates

    def statistics(self, parameters: Parameters, x: Tensor, weights: Tensor) -> Statistics:
        return weights.sum(0), weights.T @ x.double()

    def step(self, parameters: Parameters, statistics: Statistics, options: Options) -> Parameters:
        if "rates" in options.fixed:
            return parameters
        (rates,), (steps, events) = parameters, statistics
        exposure = steps.reshape(steps.shape + (1,) * self.events) + options.prior.exposure
        return (torch.where(exposure > 0, (events + options.prior.events) / exposure, rates),)

    def log_prior(self, parameters: Parameters, options: Options) -> float:
        rates, prior = parameters[0], options.prior
        log_rates = weighted(prior.events, rates.log())
        return log_rates - float((torch.as_tensor(prior.exposure).to(rates) * rates).sum())

    def free(self, parameters: Parameters, options: Options) -> int:
        return parameters[0].numel()


# ---- normal distributions ------------------------------------------------------------------------------


class Gaussian(Family):
    """Means (rows, d) and covariances (rows, d, d), or of independent dimensions variances (rows, d).

    Statistics are relative to the means of the parameters, so that little cancels: the weight of each row,
    sums of x - mean, and of its products.
    """

    names = ("means", "covariance")

    def __init__(self, full: bool, scalar: bool = False) -> None:
        self.full, self.scalar = full, scalar

    def parameters(self, emission: Any) -> Parameters:
        if self.full:
            return emission.loc, emission.covariance_matrix
        inner = emission if self.scalar else emission.base_dist
        means, variances = inner.loc, inner.scale.square()
        return (means.unsqueeze(-1), variances.unsqueeze(-1)) if self.scalar else (means, variances)

    def emission(self, parameters: Parameters) -> Any:
        means, covariance = parameters
        try:
            if self.full:
                return td.MultivariateNormal(means, covariance)
            if self.scalar:
                return td.Normal(means.squeeze(-1), covariance.squeeze(-1).sqrt())
            return td.Independent(td.Normal(means, covariance.sqrt()), 1)
        except ValueError as error:
            raise ValueError(
                "a covariance is no longer positive definite: a state explains too few different "
                "observations; give Prior(covariance=...), or fewer states"
            ) from error

    def statistics(self, parameters: Parameters, x: Tensor, weights: Tensor) -> Statistics:
        means = parameters[0]
        x = x.double().reshape(len(x), means.shape[-1])
        rows, d = means.shape
        size = max(1, MOST // (rows * d))
        pieces = zip(x.split(size), weights.split(size), strict=True)
        found = [self._sums(means, some, w) for some, w in pieces]
        return tuple(torch.stack(parts).sum(0) for parts in zip(*found, strict=True))

    def _sums(self, means: Tensor, x: Tensor, weights: Tensor) -> Statistics:
        apart = x - means.unsqueeze(1)  # (rows, N, d)
        scaled = weights.T.unsqueeze(-1) * apart
        second = scaled.mT @ apart if self.full else (scaled * apart).sum(1)
        return weights.sum(0), scaled.sum(1), second

    def _outer(self, a: Tensor, b: Tensor) -> Tensor:
        return a.unsqueeze(-1) * b.unsqueeze(-2) if self.full else a * b

    def _like(self, n: Tensor) -> Tensor:
        """(rows) in front of covariances."""
        return n[:, None, None] if self.full else n[:, None]

    def moved(self, statistics: Statistics, old: Parameters, new: Parameters) -> Statistics:
        n, first, second = statistics
        return (n, *self._about(n, first, second, new[0] - old[0]))

    def _about(self, n: Tensor, first: Tensor, second: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """The sums about means that lie ``move`` further."""
        cross = self._outer(first, move)
        cross = cross + (cross.mT if self.full else cross)
        return first - n[:, None] * move, second - cross + self._like(n) * self._outer(move, move)

    def step(self, parameters: Parameters, statistics: Statistics, options: Options) -> Parameters:
        means, covariance = parameters
        n, first, second = statistics
        weight, centre = self._pull(options.prior, means)
        move = torch.zeros_like(means)
        if "means" not in options.fixed:
            total = (n + weight)[:, None]
            move = torch.where(total > 0, (first + weight[:, None] * (centre - means)) / total, 0.0)
        new = means + move
        if "covariance" in options.fixed:
            return new, covariance
        _, scatter = self._about(n, first, second, move)
        apart = new - centre
        scatter = scatter + self._like(weight) * self._outer(apart, apart)
        groups = options.covariance or Groups("covariance", None, len(means), means.device)
        scatter, n = groups.pooled(scatter) + self._least(options.prior, means), groups.pooled(n)
        if options.spherical:
            scatter = scatter.mean(-1, keepdim=True).expand_as(scatter)
        seen = self._like(n) > 0
        found = torch.where(seen, scatter / self._like(n + options.prior.degrees), covariance[groups.first])
        return new, found[groups.of]

    def _pull(self, prior: Prior, means: Tensor) -> tuple[Tensor, Tensor]:
        """The weight (rows) of the prior's mean, and that mean (rows, d)."""
        weight = torch.as_tensor(prior.mean_weight).to(means).expand(len(means))
        return weight, torch.as_tensor(prior.mean).to(means).expand_as(means)

    def _least(self, prior: Prior, means: Tensor) -> Tensor:
        """B of the prior: of independent dimensions its diagonal."""
        least, d = torch.as_tensor(prior.covariance).to(means), means.shape[-1]
        if self.full:
            return least if least.dim() >= 2 else least * torch.eye(d).to(means)
        return least.diagonal(dim1=-2, dim2=-1) if least.dim() >= 2 else least.expand(d)

    def log_prior(self, parameters: Parameters, options: Options) -> float:
        means, covariance = parameters
        weight, centre = self._pull(options.prior, means)
        groups = options.covariance or Groups("covariance", None, len(means), means.device)
        distinct, least = covariance[groups.first], self._least(options.prior, means)
        apart = means - centre
        if self.full:
            inverse = torch.linalg.inv(distinct)
            pulled = (apart.unsqueeze(-2) @ inverse[groups.of] @ apart.unsqueeze(-1)).flatten()
            spread, volume = (least * inverse).sum(), torch.linalg.slogdet(distinct)[1].sum()
        else:
            pulled = (apart.square() / covariance).sum(-1)
            spread, volume = (least / distinct).sum(), distinct.log().sum()
        degrees = options.prior.degrees
        return -0.5 * float((weight * pulled).sum() + spread + (degrees * volume if degrees else 0.0))

    def free(self, parameters: Parameters, options: Options) -> int:
        means = parameters[0]
        d = means.shape[-1]
        each = 1 if options.spherical else d * (d + 1) // 2 if self.full else d
        groups = options.covariance or Groups("covariance", None, len(means), means.device)
        return means.numel() * ("means" not in options.fixed) + len(groups.first) * each * (
            "covariance" not in options.fixed
        )


# ---- mixtures ------------------------------------------------------------------------------------------


class Mixture(Family):
    """Log weights (rows, m), and parameters of components of another family, (rows, m, ...).

    The component is one more hidden state: its probability given the observation divides the row's weight.
    """

    names: tuple[str, ...] = ("weights",)

    def __init__(self, component: Family) -> None:
        self.component = component
        self.names = ("weights", *component.names)

    def parameters(self, emission: Any) -> Parameters:
        components = self.component.parameters(emission.component_distribution)
        return emission.mixture_distribution.logits, *components

    def emission(self, parameters: Parameters) -> Any:
        weights, *components = parameters
        choice = td.Categorical(logits=weights)
        choice.logits = weights  # to the bit: they are normalised already
        return td.MixtureSameFamily(choice, self.component.emission(tuple(components)))

    def _flat(self, parameters: Parameters) -> Parameters:
        return tuple(p.flatten(0, 1) for p in parameters[1:])

    def statistics(self, parameters: Parameters, x: Tensor, weights: Tensor) -> Statistics:
        emission = self.emission(parameters)
        events = len(emission.event_shape)
        x = x.double()
        spread = x.reshape(len(x), 1, 1, *x.shape[x.dim() - events :])
        joint = emission.component_distribution.log_prob(spread) + emission.mixture_distribution.logits
        split = weights.unsqueeze(-1) * joint.softmax(-1)
        return split.sum(0), *self.component.statistics(self._flat(parameters), x, split.flatten(1))

    def step(self, parameters: Parameters, statistics: Statistics, options: Options) -> Parameters:
        weights, *components = parameters
        shape = weights.shape
        if "weights" not in options.fixed:
            weights = log_ratio(statistics[0], weights, options.prior.weights)
        found = self.component.step(self._flat(parameters), statistics[1:], self._inner(options, shape))
        return weights, *(f.reshape(c.shape) for f, c in zip(found, components, strict=True))

    def moved(self, statistics: Statistics, old: Parameters, new: Parameters) -> Statistics:
        return statistics[0], *self.component.moved(statistics[1:], self._flat(old), self._flat(new))

    def log_prior(self, parameters: Parameters, options: Options) -> float:
        inner = self._inner(options, parameters[0].shape)
        of_weights = weighted(options.prior.weights, parameters[0])
        return of_weights + self.component.log_prior(self._flat(parameters), inner)

    def free(self, parameters: Parameters, options: Options) -> int:
        rows, m = parameters[0].shape
        inner = self.component.free(self._flat(parameters), self._inner(options, parameters[0].shape))
        return rows * (m - 1) * ("weights" not in options.fixed) + inner

    def _inner(self, options: Options, shape: torch.Size) -> Options:
        """For a row of each component: of the prior, what has one for each component of each state."""
        prior = options.prior._replace(
            **{
                name: getattr(options.prior, name).flatten(0, 1)
                for name in ("mean", "mean_weight", "events", "exposure")
                if isinstance(value := getattr(options.prior, name), Tensor) and value.shape[:2] == shape
            }
        )
        return options._replace(prior=prior)
