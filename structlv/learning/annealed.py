"""Annealed importance sampling: log p(x) from a path of distributions between prior and posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import TransformedDistribution, constraints

from structlv.learning.importance import log_mean_exp
from structlv.learning.refine import recordable

SHRINK, GROW = 0.95, 1.027  # of the step at a refusal and an acceptance: in balance at about 0.66


class Annealed(NamedTuple):
    """Estimates of annealed importance sampling.

    Attributes:
        log_likelihood: log p(x), (b) nats: log of the mean weight over chains, in the mean a lower bound.
        acceptance: mean rate of acceptance of the moves, (b); good ones are about 0.65.
    """

    log_likelihood: Tensor
    acceptance: Tensor


def annealed_log_likelihood(
    model: Any,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    chains: int = 16,
    temperatures: int = 100,
    leapfrog: int = 5,
    step_size: float = 0.1,
) -> Annealed:
    """log p(x) by chains that start at p(z) and end at p(z | x), by way of p(z) p(x | z)^t, t = 0..1.

    The t rise as a logistic curve, slowly at both ends. Each is one move of Hamiltonian Monte Carlo of
    ``leapfrog`` steps, whose size follows each item's acceptance (Wu et al. do the same; the estimate is
    strictly unbiased, in the mean of weights, only for a size that does not). It knows nothing of q, so its
    bound does not suffer where q is poor. z is a real vector, or a transform of one, which then moves.

    Args: `model`, a ``LatentVariableModel``, here in evaluation mode if it has dropout; `chains` for each
    item; `temperatures` T. Cost: T (leapfrog + 1) likelihoods and gradients of each chain.

    Raises:
        ValueError: z is not such a vector, or a size makes no sense.

    Source: Neal 2001; Wu, Burda, Salakhutdinov & Grosse 2017, "On the quantitative analysis of decoder-based
    generative models"; Kim, Wiseman & Rush 2018, section 6.2.3.
    """
    if min(chains, temperatures, leapfrog) < 1 or not step_size > 0:
        raise ValueError(
            "expected chains, temperatures, leapfrog >= 1 and step_size > 0, found "
            f"{chains}, {temperatures}, {leapfrog}, {step_size}"
        )
    with torch.inference_mode(False), torch.no_grad():
        path = _Path(model, recordable(x), None if lengths is None else recordable(lengths))
        z = path.base.sample((chains,) if path.base.batch_shape else (chains, len(x)))
        size = torch.full(z.shape[:2], step_size, dtype=z.dtype, device=z.device)
        weight, accepted = torch.zeros_like(size), torch.zeros_like(size)
        previous = 0.0
        likelihood = path.likelihood(z)
        for t in _ladder(temperatures):
            weight = weight + (t - previous) * likelihood
            previous = t
            z, likelihood, taken = _move(path, z, likelihood, t, size, leapfrog)
            accepted = accepted + taken
            size = size * torch.where(taken, GROW, SHRINK)
        return Annealed(log_mean_exp(weight), (accepted / temperatures).mean(0))


class _Path:
    """p(z) and p(x | z) in a space of real vectors."""

    def __init__(self, model: Any, x: Tensor, lengths: Tensor | None) -> None:
        prior = model.prior()
        transformed = isinstance(prior, TransformedDistribution)
        self.base = prior.base_dist if transformed else prior
        self.transforms = prior.transforms if transformed else []
        if len(self.base.event_shape) != 1 or not _real(self.base.support):
            raise ValueError(
                f"expected a z that is a real vector, or a transform of one, found {type(prior).__name__}"
            )
        self.model, self.x, self.lengths = model, x, lengths

    def likelihood(self, z: Tensor) -> Tensor:
        for transform in self.transforms:
            z = transform(z)
        return self.model.log_likelihood(self.x, self.lengths, z)

    def slope(self, z: Tensor, t: float) -> Tensor:
        """Of log p(z) + t log p(x | z)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            total = (self.base.log_prob(z) + t * self.likelihood(z)).sum()
            return torch.autograd.grad(total, z)[0]


def _real(support: Any) -> bool:
    return (
        support == constraints.real
        or support == constraints.real_vector
        or (isinstance(support, constraints.independent) and support.base_constraint == constraints.real)
    )


def _ladder(count: int) -> list[float]:
    """count + 1 values of a logistic curve over -4..4, moved and scaled to 0..1; without the 0."""
    curve = torch.linspace(-4, 4, count + 1, dtype=torch.float64).sigmoid()
    return ((curve - curve[0]) / (curve[-1] - curve[0]))[1:].tolist()


def _move(
    path: _Path, z: Tensor, likelihood: Tensor, t: float, size: Tensor, leapfrog: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A Hamiltonian move that leaves p(z) p(x | z)^t as it is: z (s, b, d), its likelihood, (s, b) taken?"""
    step = size.unsqueeze(-1)
    speed = torch.randn_like(z)
    new, kinetic = z, 0.5 * speed.square().sum(-1)
    speed = speed + 0.5 * step * path.slope(new, t)
    for i in range(leapfrog):
        new = new + step * speed
        speed = speed + (1.0 if i < leapfrog - 1 else 0.5) * step * path.slope(new, t)
    proposed = path.likelihood(new)
    gain = path.base.log_prob(new) + t * proposed - path.base.log_prob(z) - t * likelihood
    gain = gain + kinetic - 0.5 * speed.square().sum(-1)
    taken = torch.rand_like(gain).log() < gain  # never where it is NaN: a path that left all bounds
    return torch.where(taken.unsqueeze(-1), new, z), torch.where(taken, proposed, likelihood), taken
