"""Families of distributions of a continuous latent z in R^d: posteriors q(z | x), and priors that are
learned.

A posterior is a module from what an encoder says of x, (b, features), to a distribution with batch shape (b)
and event shape (d); those by flows are in ``structlv.models.flows``. Kim, Wiseman & Rush 2018, sections 6.3.1
and 6.4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from structlv.models.grammar import require_sizes


def diagonal_gaussian(mean: Tensor, log_variance: Tensor) -> Independent:
    """N(mean, diag(exp(log_variance))) over the last dimension."""
    return Independent(Normal(mean, (0.5 * log_variance).exp()), 1)


class GaussianFamily(nn.Module):
    """q(z | x) = N(mean, diag(variance)), mean and log-variance linear in the features.

    Args: `features` of the encoder; `dim` d of z.
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        require_sizes(features=features, dim=dim)
        self.head = nn.Linear(features, 2 * dim)

    def forward(self, features: Tensor) -> Independent:
        return diagonal_gaussian(*self.head(features).chunk(2, -1))


class MixturePrior(nn.Module):
    """p(z) = sum_k w_k N(mean_k, diag(variance_k)), all of it learned: called without arguments.

    Means start spread like a standard normal. There is no closed-form KL from it: see ``sampled_kl``.
    Dilokthanakul et al., "Deep unsupervised clustering with Gaussian mixture variational autoencoders", 2016,
    learn such a latent space.

    Args: `dim` d of z; `num_components` K.
    """

    def __init__(self, dim: int, num_components: int) -> None:
        super().__init__()
        require_sizes(dim=dim, num_components=num_components)
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.mean = nn.Parameter(torch.randn(num_components, dim))
        self.log_variance = nn.Parameter(torch.zeros(num_components, dim))

    def forward(self) -> MixtureSameFamily:
        return MixtureSameFamily(
            Categorical(logits=self.logits), diagonal_gaussian(self.mean, self.log_variance)
        )


class VampPrior(nn.Module):
    """p(z) = 1/K sum_k q(z | u_k): the mean of the posteriors of K learned pseudo-inputs ("variational
    mixture of posteriors").

    Called with the model's encoder, which stays the model's own: ``prior(encode)``. For words let the encoder
    take their embeddings, so that pseudo-inputs can be learned by gradient. There is no closed-form KL from
    it: see ``sampled_kl``. Tomczak and Welling (2018), "VAE with a VampPrior", section 3.

    Args:
        pseudo_inputs: (K, *input), where the pseudo-inputs start; floating-point.
    """

    def __init__(self, pseudo_inputs: Tensor) -> None:
        super().__init__()
        if not pseudo_inputs.is_floating_point() or pseudo_inputs.dim() < 1 or not len(pseudo_inputs):
            raise ValueError(
                "pseudo_inputs must be a floating-point tensor (K, *input) of at least one input, found "
                f"{pseudo_inputs.dtype} {tuple(pseudo_inputs.shape)}"
            )
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())

    def forward(self, encode: Callable[[Tensor], Distribution]) -> MixtureSameFamily:
        posteriors = encode(self.pseudo_inputs)
        count = len(self.pseudo_inputs)
        if posteriors.batch_shape != (count,):
            raise ValueError(
                f"encode must give a distribution for each of {count} pseudo-inputs, batch shape ({count},), "
                f"found {tuple(posteriors.batch_shape)}"
            )
        return MixtureSameFamily(Categorical(logits=self.pseudo_inputs.new_zeros(count)), posteriors)


def sampled_kl(q: Any, p: Distribution, num_samples: int = 1) -> Tensor:
    """KL(q || p), (*b), by the mean of log q(z) - log p(z) over reparameterised samples of q: for flows and
    mixtures.

    Unbiased, and so is its gradient; single values may be negative.
    """
    if hasattr(q, "rsample_and_log_prob"):  # of a flow: what led to z is known
        z, log_prob = q.rsample_and_log_prob((num_samples,))
    else:
        z = q.rsample((num_samples,))
        log_prob = q.log_prob(z)
    return (log_prob - p.log_prob(z)).mean(0)
