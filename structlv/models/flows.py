"""Posteriors q(z | x) by normalising flows: a Gaussian sample z_0, then invertible maps whose log-determinant
is cheap.

Each is a module from an encoder's features (b, features) to a distribution with batch shape (b) and event
shape (d), whose ``rsample_and_log_prob`` gives samples and their densities in one pass. Kim, Wiseman & Rush
2018, section 6.3.1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, TransformedDistribution, constraints
from torch.distributions.transforms import Transform
from torch.nn.functional import softplus

from structlv._extras import require
from structlv.models.families import GaussianFamily
from structlv.models.grammar import require_sizes


class Planar(Transform):
    """z + û tanh(w·z + b), invertible: û is u moved along w so far that w·û > -1.

    û = u + (m(w·u) - w·u) w / |w|² with m(a) = softplus(a + log(e - 1)) - 1, so that û is bounded where w
    vanishes (m(0) = 0, unlike that of the paper). Where w·û < -1 several z would have one image. The inverse
    has no closed form: only what was just mapped can be mapped back. Rezende and Mohamed (2015),
    "Variational inference with normalizing flows", section 4.1 and appendix A.1.

    Args:
        w, u: (*b, d).
        b: (*b).
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, w: Tensor, u: Tensor, b: Tensor) -> None:
        super().__init__(cache_size=1)
        product = (w * u).sum(-1)
        self.w, self.b = w, b
        self._gap = softplus(product + math.log(math.e - 1))  # 1 + w·û, positive
        move = (self._gap - 1 - product) / w.square().sum(-1).clamp(min=1e-12)
        self.u = u + move.unsqueeze(-1) * w

    def _call(self, z: Tensor) -> Tensor:
        return z + self.u * self._height(z).unsqueeze(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(
            "a planar flow has no closed-form inverse: it gives densities of its own latest sample only, and "
            "none of a given z; expected that sample itself (see rsample_and_log_prob), or another family, "
            "such as InverseAutoregressiveFlow or CouplingFlow"
        )

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        square = self._height(z).square()
        return (square + (1 - square) * self._gap).log()  # 1 + (1 - tanh²) w·û, a sum of what is positive

    def _height(self, z: Tensor) -> Tensor:
        return ((z * self.w).sum(-1) + self.b).tanh()


class PlanarDistribution(TransformedDistribution):
    """A base distribution mapped by ``Planar`` steps; ``log_prob`` of its own latest sample only."""

    def rsample_and_log_prob(self, sample_shape: Size | tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Samples (*sample_shape, *b, d) and their log-densities (*sample_shape, *b), in one pass."""
        z = self.base_dist.rsample(torch.Size(sample_shape))
        log_prob = self.base_dist.log_prob(z)
        for step in self.transforms:
            image = step(z)
            log_prob = log_prob - step.log_abs_det_jacobian(z, image)
            z = image
        return z, log_prob


class PlanarFlow(nn.Module):
    """``layers`` steps of ``Planar`` whose w, u and b are linear in the features, after a diagonal Gaussian.

    It cannot give the density of a given z, and so serves neither wake-sleep nor mutual information.

    Args: `features` of the encoder; `dim` d of z; `layers`.
    """

    def __init__(self, features: int, dim: int, layers: int = 4) -> None:
        super().__init__()
        require_sizes(layers=layers)
        self.base = GaussianFamily(features, dim)
        self.steps = nn.Linear(features, layers * (2 * dim + 1))
        self.dim, self.layers = dim, layers

    def forward(self, features: Tensor) -> PlanarDistribution:
        steps = self.steps(features).unflatten(-1, (self.layers, -1)).unbind(-2)
        split = [step.split((self.dim, self.dim, 1), -1) for step in steps]
        return PlanarDistribution(self.base(features), [Planar(w, u, b.squeeze(-1)) for w, u, b in split])


class _Zuko(nn.Module):
    """A flow of the package zuko between a diagonal Gaussian and z. Abstract."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.base = GaussianFamily(features, dim)

    def _distribution(self, transform: Transform, base: Independent) -> Distribution:
        """z = transform^-1(z_0)."""
        result: Distribution = require("zuko", "flows").distributions.NormalizingFlow(transform, base)
        return result


class InverseAutoregressiveFlow(_Zuko):
    """Each step z_j <- shift_j(z_<j, x) + scale_j(z_<j, x) z_j by a masked network; the order turns round.

    Samples and their densities take one pass, the density of a given z one for each of the d dimensions. It
    is zuko's masked autoregressive flow, inverted. Kingma, Salimans & Welling (2016), "Improving variational
    inference with inverse autoregressive flow", section 3; Germain et al. (2015). Needs the extra "flows".

    Args: `features` of the encoder; `dim` d of z; `transforms` steps; `hidden` width of the networks, which
    have two such layers.
    """

    def __init__(self, features: int, dim: int, *, transforms: int = 2, hidden: int = 32) -> None:
        super().__init__(features, dim)
        require_sizes(transforms=transforms, hidden=hidden)
        flow: Any = require("zuko", "flows").flows.MAF
        self.transform = flow(dim, features, transforms, hidden_features=(hidden, hidden)).transform

    def forward(self, features: Tensor) -> Distribution:
        return self._distribution(self.transform(features).inv, self.base(features))


class CouplingFlow(_Zuko):
    """Each step moves half of z by a shift and a scale that depend on the other half (and x); halves take
    turns.

    Samples, densities of samples and those of given z take one pass each. Dinh, Sohl-Dickstein and Bengio
    (2017), "Density estimation using Real NVP", section 3. Needs the extra "flows".

    Args: `features` of the encoder; `dim` d of z, at least 2; `transforms` steps; `hidden` width of the
    networks, which have two such layers.
    """

    def __init__(self, features: int, dim: int, *, transforms: int = 4, hidden: int = 32) -> None:
        super().__init__(features, dim)
        require_sizes(transforms=transforms, hidden=hidden)
        if dim < 2:
            raise ValueError(f"dim must be at least 2, so that there are two halves, found {dim}")
        flow: Any = require("zuko", "flows").flows.RealNVP
        self.transform = flow(dim, features, transforms, hidden_features=(hidden, hidden)).transform

    def forward(self, features: Tensor) -> Distribution:
        return self._distribution(self.transform(features), self.base(features))
