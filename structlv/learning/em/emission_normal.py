"""The M-step of normal distributions: means, and covariances full, diagonal, spherical or shared."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from structlv.learning.em.emission_family import LEAST, Family, Options, Parameters, Statistics
from structlv.learning.em.m_step import Groups, Prior

MOST = 1 << 22  # numbers of a table of observations, rows and dimensions that is made at once


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
        except (ValueError, RuntimeError) as error:  # the latter of torch.linalg
            raise ValueError(
                "a covariance is no longer positive definite: a state explains too few different "
                "observations; give Prior(covariance=...), of an estimator covars_prior, or fewer states"
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
            move = torch.where(total > LEAST, (first + weight[:, None] * (centre - means)) / total, 0.0)
        new = means + move
        if "covariance" in options.fixed:
            return new, covariance
        _, scatter = self._about(n, first, second, move)
        apart = new - centre
        scatter = scatter + self._like(weight) * self._outer(apart, apart)
        groups = options.covariance or Groups("covariance", None, len(means), means.device)
        scatter, n = groups.pooled(scatter) + self._least(options.prior, means), groups.pooled(n)
        if self.full:
            scatter = 0.5 * (scatter + scatter.mT)
        if options.spherical:
            scatter = scatter.mean(-1, keepdim=True).expand_as(scatter)
        seen = self._like(n) > LEAST
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
