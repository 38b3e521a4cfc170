"""Parameters for EM to begin with, random by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, Poisson

from structlv.distributions import (
    HMM,
    AdditiveGaussian,
    FactorialHMM,
    IndependentBernoulli,
    LogLinearCategorical,
)


def random_categorical(
    sizes: Sequence[int], counts: Tensor, seed: int, *, spread: float = 1.0, stay: float = 0.0
) -> FactorialHMM:
    """Chains of ``sizes`` states that emit symbols, float64.

    Every chain's logits are an equal share of the log frequencies of ``counts`` (V,), add-one, and normal
    noise of standard deviation ``spread``; transition scores are normal too, and ``stay`` (nats) more for
    staying.
    """
    generator = Generator().manual_seed(seed)
    share = ((counts.double() + 1) / (counts.sum() + len(counts))).log() / len(sizes)
    logits = [share + spread * _normal(generator, k, len(counts)) for k in sizes]
    return FactorialHMM(*_chains(generator, sizes, stay), LogLinearCategorical(logits))


def random_bernoulli(
    sizes: Sequence[int], frequency: Tensor, seed: int, *, spread: float = 1.0, stay: float = 0.0
) -> FactorialHMM:
    """As `random_categorical`, for bits that are set with ``frequency`` (d,), each within (0, 1)."""
    generator = Generator().manual_seed(seed)
    share = torch.logit(frequency.double(), eps=1e-3) / len(sizes)
    logits = [share + spread * _normal(generator, k, len(frequency)) for k in sizes]
    return FactorialHMM(*_chains(generator, sizes, stay), IndependentBernoulli(logits))


def random_gaussian(sizes: Sequence[int], x: Tensor, seed: int, *, stay: float = 0.0) -> FactorialHMM:
    """Chains of ``sizes`` states whose means add up to observations, float64.

    With the mean and covariance C of the rows of ``x`` (N, d): means are an equal share of the mean and
    normal noise of covariance C / m, the noise of observations is C. Raises ValueError with fewer than two
    rows.
    """
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(f"expected x (N, d) with N >= 2, found {tuple(x.shape)}")
    generator = Generator().manual_seed(seed)
    x = x.double()
    covariance = torch.cov(x.T).reshape(x.shape[1], x.shape[1])
    covariance = covariance + 1e-6 * covariance.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype)
    scale = torch.linalg.cholesky(covariance / len(sizes))
    means = [x.mean(0) / len(sizes) + _normal(generator, k, x.shape[1]) @ scale.T for k in sizes]
    return FactorialHMM(*_chains(generator, sizes, stay), AdditiveGaussian(means, covariance))


def _chains(generator: Generator, sizes: Sequence[int], stay: float) -> tuple[list[Tensor], list[Tensor]]:
    initial = [_normal(generator, k) for k in sizes]
    return initial, [_normal(generator, k, k) + stay * torch.eye(k, dtype=torch.float64) for k in sizes]


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# ---- ordinary HMMs -------------------------------------------------------------------------------------


def hmm_of_symbols(states: int, counts: Tensor, seed: int, *, spread: float = 1.0, stay: float = 0.0) -> HMM:
    """An HMM that emits symbols: normal noise about frequencies, as `random_categorical`."""
    model = random_categorical((states,), counts, seed, spread=spread, stay=stay)
    assert isinstance(model.emission, LogLinearCategorical)
    return HMM(model.initial_logits[0], model.transition_logits[0], model.emission.logits[0])


def hmm_of_vectors(states: int, x: Tensor, seed: int, *, full: bool = True, stay: float = 0.0) -> HMM:
    """An HMM that emits vectors: means are rows of ``x`` (N, d) far from one another, float64.

    Each row is drawn with probability proportional to its squared distance from those before (Arthur &
    Vassilvitskii 2007, k-means++, on standardised columns). Covariances are that of the rows, or its diagonal
    where not ``full``. Raises ValueError with fewer than two rows.
    """
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(f"expected x (N, d) with N >= 2, found {tuple(x.shape)}")
    generator = Generator().manual_seed(seed)
    x = x.double()
    d = x.shape[1]
    covariance = torch.cov(x.T).reshape(d, d)
    size = float(covariance.diagonal().mean()) or 1.0
    covariance = covariance + 1e-6 * size * torch.eye(d, dtype=x.dtype)
    means = x[_spread_out(generator, x / covariance.diagonal().sqrt(), states)]
    emission: Distribution = MultivariateNormal(means, covariance.expand(states, d, d))
    if not full:
        emission = Independent(Normal(means, covariance.diagonal().sqrt().expand(states, d)), 1)
    initial, transition = _chains(generator, (states,), stay)
    return HMM(initial[0], transition[0], emission)


def hmm_of_counts(states: int, x: Tensor, seed: int, *, stay: float = 0.0) -> HMM:
    """An HMM that emits Poisson counts: rates are rows of ``x`` (N) or (N, d), and 1/2 more, float64."""
    generator = Generator().manual_seed(seed)
    x = x.double()
    rates = Poisson(x[_spread_out(generator, x.reshape(len(x), -1).sqrt(), states)] + 0.5)
    initial, transition = _chains(generator, (states,), stay)
    return HMM(initial[0], transition[0], Independent(rates, 1) if x.dim() > 1 else rates)


def _spread_out(generator: Generator, x: Tensor, count: int) -> Tensor:
    """Numbers of rows far from one another; any rows where all left are the same."""
    chosen = torch.randint(len(x), (1,), generator=generator)
    nearest = torch.full((len(x),), torch.inf, dtype=x.dtype)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(-1))
        weights = nearest if bool((nearest > 0).any()) else torch.ones_like(nearest)
        chosen = torch.cat([chosen, torch.multinomial(weights, 1, generator=generator)])
    return chosen
