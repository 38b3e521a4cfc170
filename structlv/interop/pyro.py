"""Structured distributions as sample sites of Pyro, `pyro.sample("z", to_pyro(chain))`; needs the extra pyro.

Nothing is enumerated: what Pyro would sum out with `@config_enumerate`, a Markov chain or a grammar, is one
site whose log-probability is exact. An observed `HMM` is log p(x), its states already summed out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import constraints, register_kl

from structlv._extras import require
from structlv.distributions import HMM, StructuredDistribution

_base: Any = require("pyro.distributions", "pyro")

__all__ = ["PyroHMM", "PyroStructure", "to_pyro"]


class PyroStructure(_base.TorchDistribution):
    """A structured distribution whose samples are structures; `base` is ours.

    Samples are not differentiable: `Trace_ELBO` estimates gradients by score function. Entropy is exact, and
    so is `torch.distributions.kl_divergence` of two of them.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(self, base: StructuredDistribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base.support

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Exact samples (*sample_shape, *b, *event)."""
        return self.base.sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Nats, (*s, *b)."""
        return self.base.log_prob(value)

    def entropy(self) -> Tensor:
        """Nats, (*b)."""
        return self.base.entropy()

    def expand(self, batch_shape: Any, _instance: Any = None) -> PyroStructure:
        return PyroStructure(self.base.expand(batch_shape))


class PyroHMM(_base.TorchDistribution):
    """An HMM over sequences of `length` observations, its states summed out; `base` is ours."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self, base: HMM, length: int, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        self.base, self.length, self.lengths, self.mask_ = base, length, lengths, mask
        super().__init__(base.batch_shape, Size((length, *base.event_shape)), validate_args=False)

    @property
    def support(self) -> Any:
        return self.base.support

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """(*sample_shape, *b, length, *event): all of them of full length, whatever `lengths`."""
        return self.base.sample(torch.Size(sample_shape), length=self.length)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x), nats, (*s, *b)."""
        return self.base.log_prob(value, self.lengths, self.mask_)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PyroHMM:
        return PyroHMM(self.base.expand(batch_shape), self.length, self.lengths, self.mask_)


def to_pyro(
    base: StructuredDistribution | HMM,
    length: int | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
) -> Any:
    """`base` as a Pyro distribution: for `pyro.sample`, plates, `to_event`, `poutine.mask` and SVI.

    Args:
        base: a structured distribution (`LinearChain`, `TreePosterior`, ...), or an `HMM` over observations.
        length: of an HMM's sequences, n; needed for it, and refused for others.
        lengths, mask: of an HMM's observations, as `HMM.log_prob` takes them.

    Raises:
        TypeError: `base` is of neither kind.
        ValueError: `length` is missing for an HMM, or something given that is for HMMs alone.
    """
    if isinstance(base, HMM):
        if length is None:
            raise ValueError("to_pyro: an HMM needs length, the number of its observations; found None")
        return PyroHMM(base, length, lengths, mask)
    if not isinstance(base, StructuredDistribution):
        raise TypeError(f"expected a StructuredDistribution or an HMM, found {type(base).__name__}")
    if length is not None or lengths is not None or mask is not None:
        raise ValueError("to_pyro: length, lengths and mask are for HMMs; a structure has its own")
    return PyroStructure(base)


@register_kl(PyroStructure, PyroStructure)
def _kl(p: PyroStructure, q: PyroStructure) -> Tensor:
    return p.base.kl(q.base)
