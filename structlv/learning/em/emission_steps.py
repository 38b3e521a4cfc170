"""M-steps of what the states of an HMM emit: symbols, Poisson counts, mixtures; and which is whose."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from structlv.learning.em.emission_family import LEAST, Family, Options, Parameters, Statistics
from structlv.learning.em.emission_normal import Gaussian
from structlv.learning.em.m_step import log_ratio, weighted


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
        return (torch.where(exposure > LEAST, (events + options.prior.events) / exposure, rates),)

    def log_prior(self, parameters: Parameters, options: Options) -> float:
        rates, prior = parameters[0], options.prior
        log_rates = weighted(prior.events, rates.log())
        return log_rates - float((torch.as_tensor(prior.exposure).to(rates) * rates).sum())

    def free(self, parameters: Parameters, options: Options) -> int:
        return parameters[0].numel()


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
        weights = emission.mixture_distribution.logits.expand(emission.component_distribution.batch_shape)
        return weights, *components

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
