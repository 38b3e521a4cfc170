"""Variational inference for each item by itself: gradient ascent on the parameters lambda of q(z; lambda)."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, TransformedDistribution

from structlv.models.latent import elbo_under

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's

Parameters = tuple[Tensor, ...]


@singledispatch
def parameters_of(q: Distribution) -> Parameters:
    """lambda: tensors (b, ...) of unconstrained numbers that q is made of. ``rebuilt`` is the inverse.

    Known are diagonal Gaussians, transforms of them, and categoricals. Raises TypeError for another family.
    """
    raise TypeError(
        f"expected a diagonal Gaussian, a transform of one, or a Categorical, found {type(q).__name__}"
    )


@parameters_of.register
def _(q: Independent) -> Parameters:
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise TypeError(f"expected a diagonal Gaussian over vectors, found {q}")
    return q.base_dist.loc, q.base_dist.scale.log()


@parameters_of.register
def _(q: TransformedDistribution) -> Parameters:
    return parameters_of(q.base_dist)


@parameters_of.register
def _(q: Categorical) -> Parameters:
    return (q.logits,)


def rebuilt(q: Distribution, parameters: Parameters) -> Distribution:
    """A distribution of the family of q with other parameters."""
    if isinstance(q, Categorical):
        return Categorical(logits=parameters[0])
    if isinstance(q, TransformedDistribution):
        return TransformedDistribution(rebuilt(q.base_dist, parameters), q.transforms)
    mean, log_scale = parameters
    return Independent(Normal(mean, log_scale.exp()), 1)


def detached(q: Distribution) -> Distribution:
    """q, with no gradient to what made it."""
    return rebuilt(q, tuple(x.detach() for x in parameters_of(q)))


def standard(q: Distribution) -> Distribution:
    """The member of q's family whose parameters are 0: N(0, I), the uniform categorical."""
    return rebuilt(q, tuple(torch.zeros_like(x) for x in parameters_of(q)))


def refine(
    q: Distribution,
    model: Any,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    steps: int = 20,
    lr: float = 0.1,
    num_samples: int = 1,
    through: bool = False,
) -> Distribution:
    """q after ``steps`` of ascent of each item's ELBO: lambda_k = lambda_{k-1} + a_k grad ELBO(lambda_{k-1}).

    The rate falls linearly to 0; each coordinate is scaled as Adam does it. Items do not see one another.

    Args:
        q: where it starts, batch shape (b), of a family that ``parameters_of`` knows.
        num_samples: draws of each step's ELBO.
        through: whether the result depends on q's parameters and the model's differentiably, through all
            steps and their scales (second derivatives of the ELBO are needed); else the result is detached.

    Cost: ``steps`` times an ELBO and its gradient, with ``through`` kept in memory. Source: Kim, Wiseman &
    Rush 2018, sections 5.3 (stochastic variational inference) and 6.3.3; Kim et al. 2018, "Semi-amortized
    variational autoencoders". Raises ValueError unless steps >= 0 and lr > 0.
    """
    if steps < 0 or not lr > 0:
        raise ValueError(f"expected steps >= 0 and lr > 0, found {steps} and {lr}")
    with torch.inference_mode(False), torch.enable_grad():  # validation may be in inference mode
        found = tuple(recordable(t) for t in parameters_of(q))
        x, lengths = recordable(x), lengths if lengths is None else recordable(lengths)
        found = tuple(x if through and x.requires_grad else x.detach().requires_grad_() for x in found)
        first, second = ([torch.zeros_like(x) for x in found] for _ in range(2))
        for step in range(steps):
            elbo = elbo_under(rebuilt(q, found), model, x, lengths, num_samples=num_samples).bound.sum()
            slopes = torch.autograd.grad(elbo, found, create_graph=through)
            rate = lr * (1 - step / steps)
            found = tuple(
                _ascended(x, slope, first, second, i, step + 1, rate)
                for i, (x, slope) in enumerate(zip(found, slopes, strict=True))
            )
            if not through:
                found = tuple(x.detach().requires_grad_() for x in found)
    return rebuilt(q, found if through else tuple(x.detach() for x in found))


def recordable(x: Tensor) -> Tensor:
    """x, or a copy of it that autograd can record."""
    return x.clone() if x.is_inference() else x


def _ascended(
    x: Tensor, slope: Tensor, first: list[Tensor], second: list[Tensor], i: int, step: int, rate: float
) -> Tensor:
    """One step of Adam (Kingma & Ba 2015), upward."""
    first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * slope
    second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * slope.square()
    scale = (second[i] / (1 - BETAS[1] ** step) + EPSILON**2).sqrt()  # a root that has a derivative
    return x + rate * first[i] / (1 - BETAS[0] ** step) / scale
