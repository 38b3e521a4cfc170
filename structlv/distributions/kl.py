"""Kullback-Leibler divergences that ``torch.distributions.kl_divergence`` finds."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import register_kl

from structlv.distributions.linear_chain import LinearChain


@register_kl(LinearChain, LinearChain)
def _kl_linear_chain(p: LinearChain, q: LinearChain) -> Tensor:
    return p.kl(q)
