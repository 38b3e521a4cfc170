"""What learning and evaluation ask of a model with one latent variable z for each sequence, and its bound."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, kl_divergence

from structlv.models.base import Elbo, Model
from structlv.models.families import sampled_kl


class LatentVariableModel(Protocol):
    """p(z), p(x | z) and an approximate (or exact) posterior q(z | x), of an nn.Module.

    x is (b, n), right-padded, with lengths (b) (None: all of n); z is (*s, b, *event). Log-probabilities are
    in nats.
    """

    def prior(self, context: Any = None) -> Distribution:
        """p(z), or p(z | context): batch shape () or (b)."""

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Distribution:
        """q(z | x), batch shape (b)."""

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        """log p(x | z), (*s, b) for z (*s, b, *event)."""

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """Reconstruction and KL under q(z | x), (b) each."""


class Generative(LatentVariableModel, Protocol):
    """A latent-variable model that also draws x given z, as wake-sleep and the inspection of samples need."""

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (b, n) drawn from p(x | z), and lengths (b): z (b, *event).

        A model that is conditional on the lengths asks for them; another draws its own, and ignores these.
        """


class LatentModel(Model):
    """A `LatentVariableModel` that can be saved, and whose `elbo` follows from its three parts. Abstract."""

    @abstractmethod
    def prior(self, context: Any = None) -> Distribution:
        """p(z), batch shape () (or, where the model takes a context, that of the context)."""

    @abstractmethod
    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Distribution:
        """q(z | x), batch shape (b)."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        """log p(x | z), (*s, b) nats for z (*s, b, *event)."""

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """The bound under q(z | x), (b): see ``elbo_under``."""
        return elbo_under(self.encode(x, lengths), self, x, lengths)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """As ``elbo``."""
        return self.elbo(x, lengths)


def prior_of(model: Any, x: Tensor, lengths: Tensor | None = None) -> Any:
    """p(z) for sequences like x: a structured prior (``prior_for``) knows their lengths."""
    return model.prior_for(x, lengths) if hasattr(model, "prior_for") else model.prior()


def elbo_under(
    q: Distribution, model: Any, x: Tensor, lengths: Tensor | None = None, *, num_samples: int = 1
) -> Elbo:
    """E_q[log p(x | z)] and KL(q || p) for any q with batch shape (b), not only the model's own: (b) each.

    The expectation is exact where q can be enumerated, else a mean over reparameterised draws. The KL is in
    closed form where torch knows one, else a sampled one. Source: Kim, Wiseman & Rush 2018, sections 5.3 and
    6.2. Cost: one ``log_likelihood`` of ``num_samples`` draws, or of every value of z.

    Raises:
        ValueError: q can neither be enumerated nor reparameterised (``structlv.learning.estimators`` then has
            gradients).
    """
    p = prior_of(model, x, lengths)
    if q.has_enumerate_support:
        z = q.enumerate_support()
        log_q = q.log_prob(z)
        nats = torch.stack([model.log_likelihood(x, lengths, z), log_q - p.log_prob(z)])
        means = (log_q.exp() * nats.masked_fill(log_q == -torch.inf, 0.0)).sum(1)  # 0 times infinity is 0
        return Elbo(means[0], means[1])
    if not q.has_rsample:
        raise ValueError(
            f"expected a q(z | x) that can be enumerated or reparameterised, found {type(q).__name__}"
        )
    return elbo_at(q.rsample((num_samples,)), q, model, x, lengths)


def elbo_at(z: Tensor, q: Distribution, model: Any, x: Tensor, lengths: Tensor | None = None) -> Elbo:
    """The bound with the reconstruction at draws z (s, b, *event) of q, their mean: (b)."""
    kl, parts = kl_of(q, prior_of(model, x, lengths))
    return Elbo(model.log_likelihood(x, lengths, z).mean(0), kl, parts)


def kl_of(q: Any, p: Any) -> tuple[Tensor, Tensor | None]:
    """KL(q || p) (b) in nats, and by dimension (b, d) where both are products over dimensions, else None.

    Products seen through the same transform (logistic normals) count as such: a KL does not see the
    transform. Without a closed form it is estimated from one draw of q.
    """
    inner_q, inner_p = _untransformed(q, p)
    if (
        isinstance(inner_q, Independent)
        and isinstance(inner_p, Independent)
        and len(inner_q.event_shape) == 1
    ):
        try:
            parts = kl_divergence(inner_q.base_dist, inner_p.base_dist)
        except NotImplementedError:
            pass
        else:
            return parts.sum(-1), parts
    try:
        return kl_divergence(q, p), None
    except NotImplementedError:
        return sampled_kl(q, p), None


def _untransformed(q: Any, p: Any) -> tuple[Any, Any]:
    both = isinstance(q, TransformedDistribution) and isinstance(p, TransformedDistribution)
    return (q.base_dist, p.base_dist) if both and q.transforms == p.transforms else (q, p)


def require_tokens(x: Tensor, lengths: Tensor | None) -> None:
    """Raise ValueError unless x is (b, n) of integers and lengths, where given, (b) in 0..n."""
    if x.dim() != 2 or x.is_floating_point():
        raise ValueError(f"x must be integers of shape (b, n), found {x.dtype} {tuple(x.shape)}")
    if lengths is not None and lengths.shape != x.shape[:1]:
        raise ValueError(f"lengths must have shape ({len(x)},), found {tuple(lengths.shape)}")
    if (
        lengths is not None
        and lengths.numel()
        and not 0 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]
    ):
        found = f"{int(lengths.min())}..{int(lengths.max())}"
        raise ValueError(f"lengths must be in 0..{x.shape[1]}, found {found}")


def require_latent(z: Tensor, batch: int, event: tuple[int, ...]) -> None:
    """Raise ValueError unless z has shape (*s, b, *event)."""
    tail = (batch, *event)
    if tuple(z.shape[z.dim() - len(tail) :]) != tail or z.dim() < len(tail):
        raise ValueError(f"z must have shape (*s, {', '.join(map(str, tail))}), found {tuple(z.shape)}")
