"""Kullback-Leibler divergences that ``torch.distributions.kl_divergence`` finds."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import register_kl

from structlv.distributions.base import StructuredDistribution


@register_kl(StructuredDistribution, StructuredDistribution)
def _kl_structured(p: StructuredDistribution, q: StructuredDistribution) -> Tensor:
    return p.kl(q)
