"""Discrete chains with Gaussian values, inferred by block coordinate ascent from conjugate potentials.

The values u_1..u_n (each in R^d) depend on the states z_1..z_n of a Markov chain, u_t ~ N(m_k, diag(1 / P_k))
where z_t = k; what is known about a value is a potential psi_t(u) = exp(h_t·u - u·diag(J_t) u / 2), whose
exponent is linear in (u, u²), as the log-density's is: it is conjugate. Johnson, Duvenaud, Wiltschko, Adams &
Datta (2016), "Composing graphical models with neural networks", sections 4.1 and 4.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from structlv.distributions import LinearChain
from structlv.models.recurrent import inside


class GaussianPotentials(NamedTuple):
    """What is known about the values by themselves: psi_t(u) = exp(linear·u - precision·u² / 2).

    Attributes:
        linear, precision: (*b, n, d); the precision is not negative.
    """

    linear: Tensor
    precision: Tensor


class GaussianStates(NamedTuple):
    """p(z) and p(u_t | z_t) of the model.

    Attributes:
        initial, transition: log-probabilities (k), (k, k).
        mean, precision: (k, d) of the values in each state; the precision is positive.
    """

    initial: Tensor
    transition: Tensor
    mean: Tensor
    precision: Tensor

    def chain(self, unary: Tensor, lengths: Tensor) -> LinearChain:
        """p(z) times exp(unary), (*b, n, k)."""
        return LinearChain(unary, self.transition, initial=self.initial, lengths=lengths)


class Factors(NamedTuple):
    """q(z) q(u): neither factor knows the other's outcome.

    Attributes:
        states: a ``LinearChain``, batch shape (*b).
        values: independent normals, batch shape (*b, n), event shape (d); in padding what the model says.
    """

    states: LinearChain
    values: Independent


def block_coordinate(
    model: GaussianStates, potentials: GaussianPotentials, lengths: Tensor, iterations: int
) -> Factors:
    """Maximise ``surrogate_bound`` over q(u), then over q(z), each exactly, ``iterations`` times.

    The start is q(z) = p(z | psi) with the values integrated out, which conjugacy makes exact, and the best
    q(u) for it. (With that q(z) and q(u | z) there would be no gap; but a sample of u would then depend on
    one of z, and have no pathwise gradient. Here it has one.) The bound never falls. Differentiable: the
    iterations are unrolled. O(iterations n (k^2 + k d)) time and memory for each item.
    """
    total = model.precision + potentials.precision.unsqueeze(-2)  # (*b, n, k, d)
    shift = model.precision * model.mean + potentials.linear.unsqueeze(-2)
    evidence = model.precision.log() - total.log() + shift.square() / total
    unary = 0.5 * (evidence - model.precision * model.mean.square()).sum(-1)
    states = model.chain(unary, lengths)
    values = _best_values(model, potentials, states)
    for _ in range(iterations):
        states = model.chain(_mean_log_prob(model, values), lengths)
        values = _best_values(model, potentials, states)
    return Factors(states, values)


def surrogate_bound(
    model: GaussianStates, potentials: GaussianPotentials, lengths: Tensor, factors: Factors
) -> Tensor:
    """E_q[log p(z) p(u | z) psi(u) - log q(z) q(u)], (*b) nats: at most log of sum_z of integral p(z) p(u |
    z) psi(u).
    """
    base = factors.values.base_dist
    square = base.mean.square() + base.variance
    known = (potentials.linear * base.mean - 0.5 * potentials.precision * square).sum(-1)
    known = torch.where(inside(lengths, known.shape[-1]), known, 0.0).sum(-1)
    return known - factors_kl(model, lengths, factors)


def factors_kl(model: GaussianStates, lengths: Tensor, factors: Factors) -> Tensor:
    """KL(q(z) q(u) || p(z) p(u | z)), (*b) nats, exact."""
    shares = factors.states.marginals().unary
    each = -factors.values.entropy().unsqueeze(-1) - _mean_log_prob(model, factors.values)
    of_values = torch.where(inside(lengths, shares.shape[-2]), (shares * each).sum(-1), 0.0).sum(-1)
    prior = model.chain(torch.zeros_like(factors.states.unary), lengths)
    return factors.states.kl(prior) + of_values


def _best_values(model: GaussianStates, potentials: GaussianPotentials, states: LinearChain) -> Independent:
    """Natural parameters: the mean, under q(z), of the states', plus the potential's."""
    shares = states.marginals().unary
    shares = torch.where((shares > 0).any(-1, keepdim=True), shares, 1 / shares.shape[-1])  # in padding
    precision = shares @ model.precision + potentials.precision
    mean = (shares @ (model.precision * model.mean) + potentials.linear) / precision
    return Independent(Normal(mean, precision.rsqrt()), 1)


def _mean_log_prob(model: GaussianStates, values: Independent) -> Tensor:
    """E_q(u)[log N(u_t; m_k, 1 / P_k)], (*b, n, k)."""
    mean, variance = (x.unsqueeze(-2) for x in (values.base_dist.mean, values.base_dist.variance))
    distance = (mean - model.mean).square() + variance
    return 0.5 * (model.precision.log() - math.log(2 * math.pi) - model.precision * distance).sum(-1)
