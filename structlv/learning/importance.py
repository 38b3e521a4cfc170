"""Importance weights p(x, z) / q(z | x), the bound log mean_k w_k, and its gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from structlv.learning.estimators import VIMCO
from structlv.models.latent import prior_of

GRADIENTS = ("doubly", "plain", "vimco")


def log_joint(model: Any, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
    """log p(x, z), (*s, b) nats: z (*s, b, *event)."""
    return model.log_likelihood(x, lengths, z) + prior_of(model, x, lengths).log_prob(z)


def importance_bound(
    model: Any,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    num_samples: int,
    gradient: str = "doubly",
    q: Distribution | None = None,
) -> Tensor:
    """log 1/K sum_k p(x, z_k) / q(z_k | x), (b) nats, z_k from q: in the mean a bound that rises with K.

    With K = 1 it is the ELBO with a sampled KL. q must not be 0 where p(x, z) is not.

    Args:
        gradient: "doubly" reparameterised, sum_k w_k^2 d log w_k / d z_k d z_k for q's parameters, w
            normalised: as unbiased as the "plain" reparameterised one, whose signal drowns in noise as K
            rises; "vimco" where z is discrete or structured (K at least 2).
        q: in place of the model's own.

    Raises:
        ValueError: another gradient; one by reparameterisation of a q that has none.

    Source: Burda, Grosse & Salakhutdinov 2016; Tucker et al. 2019, "Doubly reparameterized gradient
    estimators for Monte Carlo objectives", equation 8; Mnih & Rezende 2016; Kim, Wiseman & Rush 2018, section
    6.3.2.
    """
    if gradient not in GRADIENTS or num_samples < 1:
        raise ValueError(
            f"expected num_samples >= 1 and gradient among {GRADIENTS}, found {num_samples}, {gradient!r}"
        )
    q = model.encode(x, lengths) if q is None else q
    if gradient == "vimco":
        of_any: Any = VIMCO(num_samples)
        return of_any(q, lambda z: log_joint(model, x, lengths, z) - q.log_prob(z))
    if not q.has_rsample:
        raise ValueError(
            f"gradient {gradient!r} needs a q with pathwise gradients, found {type(q).__name__}: take 'vimco'"
        )
    z = q.rsample((num_samples,))
    if gradient == "plain" or not torch.is_grad_enabled():
        return log_mean_exp(log_joint(model, x, lengths, z) - q.log_prob(z))
    return _doubly(model, x, lengths, q, z)


def log_mean_exp(values: Tensor) -> Tensor:
    """Over the first dimension."""
    return values.logsumexp(0) - math.log(len(values))


def carrying(value: Tensor, surrogate: Tensor) -> Tensor:
    """The number ``value`` with the gradient of ``surrogate``."""
    return value.detach() + (surrogate - surrogate.detach())


def weighted_sum(weight: Tensor, log_prob: Tensor) -> Tensor:
    """sum_k w_k log p_k over the first dimension, without terms of weight 0 (log p may be -inf there)."""
    return (weight * log_prob.masked_fill(weight == 0, 0.0)).sum(0)


def _doubly(model: Any, x: Tensor, lengths: Tensor | None, q: Distribution, z: Tensor) -> Tensor:
    """Draws as leaves: derivatives of the model's parameters at fixed z, and of z through log w alone."""
    leaf = z.detach().requires_grad_()
    joint = log_joint(model, x, lengths, leaf)
    log_weight = joint - q.log_prob(leaf)
    weight = log_weight.detach().softmax(0)
    (slope,) = torch.autograd.grad(weighted_sum(weight.square(), log_weight).sum(), leaf, retain_graph=True)
    path = (slope * z).flatten(2).sum(-1).sum(0) if z.dim() > 2 else (slope * z).sum(0)
    return carrying(log_mean_exp(log_weight), weighted_sum(weight, joint) + path)
