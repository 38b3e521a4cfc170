"""Parameters for EM to begin with, random by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from structlv.distributions import AdditiveGaussian, FactorialHMM, IndependentBernoulli, LogLinearCategorical


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
