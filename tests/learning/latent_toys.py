"""Latent-variable models whose log p(x) and posterior are known: a linear Gaussian, a small mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal

from structlv.models import Elbo, elbo_under
from structlv.models.families import diagonal_gaussian


class LinearGaussian(nn.Module):
    """z ~ N(0, I_d); x = W z + noise of variance v. q(z | x) = N(A x + c, diag(exp l)). float64."""

    def __init__(self, weight: Tensor, variance: float = 0.5) -> None:
        super().__init__()
        n, d = weight.shape
        self.weight = nn.Parameter(weight.double())
        self.variance = variance
        self.reader = nn.Linear(n, d).double()
        self.log_variance = nn.Parameter(torch.zeros(d, dtype=torch.float64))

    def prior(self, context: Any = None) -> Independent:
        zero = self.log_variance.new_zeros(self.weight.shape[1])
        return diagonal_gaussian(zero, zero)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Independent:
        mean = self.reader(x)
        return diagonal_gaussian(mean, self.log_variance.expand_as(mean))

    def _of(self, z: Tensor) -> Independent:
        return Independent(Normal(z @ self.weight.T, self.variance**0.5), 1)

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        return self._of(z).log_prob(x)

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        return elbo_under(self.encode(x), self, x, lengths)

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self._of(z).sample()
        return x, torch.full((len(x),), x.shape[1])

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact."""
        eye = torch.eye(len(self.weight), dtype=torch.float64)
        covariance = self.weight @ self.weight.T + self.variance * eye
        return MultivariateNormal(torch.zeros(len(eye), dtype=torch.float64), covariance).log_prob(x)

    def precision(self) -> Tensor:
        """Of the posterior, the same for every x."""
        eye = torch.eye(self.weight.shape[1], dtype=torch.float64)
        return eye + self.weight.T @ self.weight / self.variance

    def posterior_mean(self, x: Tensor) -> Tensor:
        return x @ self.weight @ self.precision().inverse() / self.variance


def correlated() -> LinearGaussian:
    """Its posterior precision has large off-diagonal elements."""
    return LinearGaussian(torch.tensor([[1.0, 0.9], [0.2, 0.6], [0.5, 0.4]]))


def uncorrelated() -> LinearGaussian:
    """Its posterior is in the family of q."""
    return LinearGaussian(torch.tensor([[1.5, 0.0], [0.0, 0.7], [0.0, 0.0]]))


class SmallMixture(nn.Module):
    """z ~ Categorical(K); x one symbol of V. q(z | x) is a table. float64."""

    def __init__(self, states: int = 3, symbols: int = 4) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(states, dtype=torch.float64))
        self.table = nn.Parameter(torch.randn(states, symbols, dtype=torch.float64))
        self.reader = nn.Parameter(torch.randn(symbols, states, dtype=torch.float64))

    def prior(self, context: Any = None) -> Categorical:
        return Categorical(logits=self.first)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Categorical:
        return Categorical(logits=self.reader[x[:, 0]])

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        return self.table.log_softmax(-1)[z, x[:, 0].expand(z.shape)]

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        return elbo_under(self.encode(x), self, x, lengths)

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = Categorical(logits=self.table[z]).sample()
        return x.unsqueeze(-1), torch.ones_like(x)

    def log_joint(self) -> Tensor:
        """(K, V), exact."""
        return self.first.log_softmax(-1).unsqueeze(-1) + self.table.log_softmax(-1)
