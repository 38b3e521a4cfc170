"""The structured VAE of time series: states of a Markov chain, a Gaussian value in each, a network that
emits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from structlv.distributions import HMM
from structlv.models.base import Elbo, Model
from structlv.models.conjugate import (
    Factors,
    GaussianPotentials,
    GaussianStates,
    block_coordinate,
    factors_kl,
)
from structlv.models.grammar import require_sizes
from structlv.models.recurrent import all_lengths, inside


class GaussianSequence(Independent):
    """Independent normal values u (b, n, d) up to each item's length: batch shape (b), event shape (n, d).

    Padding has no density: it counts neither in ``log_prob`` nor in ``entropy``.
    """

    def __init__(self, values: Independent, lengths: Tensor) -> None:
        super().__init__(values.base_dist, 2, validate_args=False)
        self.lengths = lengths

    def log_prob(self, value: Tensor) -> Tensor:
        return self._summed(self.base_dist.log_prob(value).sum(-1))

    def entropy(self) -> Tensor:
        return self._summed(self.base_dist.entropy().sum(-1))

    def _summed(self, steps: Tensor) -> Tensor:
        return torch.where(inside(self.lengths, steps.shape[-1]), steps, 0.0).sum(-1)


class StructuredGaussianVAE(Model):
    """Sequences of vectors: z_t a Markov chain of K states, u_t | z_t Gaussian in R^d, x_t | u_t by a
    network.

        p(z_1), p(z_t+1 | z_t) categorical;  u_t | z_t = k ~ N(m_k, diag(s_k²));
        x_t | u_t ~ N(mean(u_t), diag(variance(u_t))), a network of one hidden layer.

    A recognition network emits for each x_t a potential of u_t that is conjugate to p(u_t | z_t); q(z) q(u)
    is found from potentials and model by block coordinate ascent (``structlv.models.conjugate``), and the
    bound's gradient goes through its iterations: u is sampled by reparameterisation, KL is exact. With an
    emission straight from z this would be an exact HMM. What is learned is a point estimate (Johnson et al.
    have a posterior over m, s and the chain, by natural gradients). Johnson, Duvenaud, Wiltschko, Adams
    & Datta (2016), "Composing graphical models with neural networks for structured representations and fast
    inference"; Kim, Wiseman & Rush 2018, section 6.4.2.

    Args: `observed` size of x_t; `num_states` K; `latent` d; `dim` of the networks; `iterations` of the
    ascent.
    """

    def __init__(
        self, observed: int, *, num_states: int = 4, latent: int = 2, dim: int = 32, iterations: int = 5
    ) -> None:
        sizes = {"num_states": num_states, "latent": latent, "dim": dim, "iterations": iterations}
        require_sizes(observed=observed, **sizes)
        super().__init__(observed=observed, **sizes)
        self.iterations = iterations
        self.initial_logits = nn.Parameter(torch.zeros(num_states))
        self.transition_logits = nn.Parameter(torch.eye(num_states))
        self.mean = nn.Parameter(torch.randn(num_states, latent))
        self.log_variance = nn.Parameter(torch.full((num_states, latent), -1.0))
        self.recognition = GaussianNetwork(observed, dim, latent, -2.0)
        self.emission = GaussianNetwork(latent, dim, observed, -2.0)

    # ---- the model -------------------------------------------------------------------------------------

    def states(self) -> GaussianStates:
        """p(z) and p(u_t | z_t), their probabilities normalised."""
        return GaussianStates(
            self.initial_logits.log_softmax(-1),
            self.transition_logits.log_softmax(-1),
            self.mean,
            (-self.log_variance).exp(),
        )

    def prior(self) -> HMM:
        """p(u) with z summed out, a Gaussian HMM: batch shape (), event shape (d)."""
        emission = Independent(Normal(self.mean, (0.5 * self.log_variance).exp()), 1)
        return HMM(self.initial_logits, self.transition_logits, emission)

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, u: Tensor) -> Tensor:
        """log p(x | u), (*s, b) nats: x (b, n, observed), values u (*s, b, n, d)."""
        mean, log_variance = self.emission(u)
        steps = Normal(mean, (0.5 * log_variance).exp()).log_prob(x).sum(-1)
        return torch.where(inside(all_lengths(x, lengths), x.shape[1]), steps, 0.0).sum(-1)

    # ---- inference -------------------------------------------------------------------------------------

    def potentials(self, x: Tensor) -> GaussianPotentials:
        """What the network says about u_t by itself: x (b, n, observed) -> (b, n, d)."""
        mean, log_variance = self.recognition(x)
        precision = (-log_variance).exp()
        return GaussianPotentials(mean * precision, precision)

    def factors(self, x: Tensor, lengths: Tensor | None = None) -> Factors:
        """q(z) q(u) given x (b, n, observed), by block coordinate ascent; its states are a segmentation."""
        if x.dim() != 3 or x.shape[-1] != self.hyperparameters["observed"]:
            raise ValueError(
                f"x must have shape (b, n, {self.hyperparameters['observed']}), found {tuple(x.shape)}"
            )
        return block_coordinate(self.states(), self.potentials(x), all_lengths(x, lengths), self.iterations)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> GaussianSequence:
        """q(u | x), batch shape (b), event shape (n, d)."""
        return GaussianSequence(self.factors(x, lengths).values, all_lengths(x, lengths))

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """log p(x | u) of one sample u of q(u), and KL(q(z) q(u) || p(z, u)), exact: two of (b), nats."""
        sizes, factors = all_lengths(x, lengths), self.factors(x, lengths)
        reconstruction = self.log_likelihood(x, sizes, factors.values.rsample())
        return Elbo(reconstruction, factors_kl(self.states(), sizes, factors))

    forward = elbo

    def importance_bound(self, x: Tensor, lengths: Tensor | None = None, num_samples: int = 16) -> Tensor:
        """log mean_s p(x | u_s) p(u_s) / q(u_s), z summed out of p(u): (b) nats, in the mean at most log
        p(x).
        """
        q, sizes = self.encode(x, lengths), all_lengths(x, lengths)
        u = q.rsample((num_samples,))
        prior = self.prior().log_prob(u.flatten(0, 1), lengths=sizes.repeat(num_samples))
        prior = prior.view(num_samples, -1)
        log_weight = self.log_likelihood(x, sizes, u) + prior - q.log_prob(u)
        return log_weight.logsumexp(0) - math.log(num_samples)


class GaussianNetwork(nn.Module):
    """Mean and log-variance of a vector given another: a linear map for the mean, and what a network adds.

    At the start the map is the identity, as far as sizes allow, and the rest little: values begin with the
    shape of the data. (From a random start one state often takes all steps, as the network can do without the
    others.)
    """

    def __init__(self, inputs: int, dim: int, outputs: int, log_variance: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        last = nn.Linear(dim, 2 * outputs)
        self.rest = nn.Sequential(nn.Linear(inputs, dim), nn.Tanh(), last)
        nn.init.eye_(self.linear.weight)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias[:outputs] = 0.0
            last.bias[outputs:] = log_variance

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        move, log_variance = self.rest(given).chunk(2, -1)
        return self.linear(given) + move, log_variance
