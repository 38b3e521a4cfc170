"""How the posterior of a factorial hidden Markov model is found: the interface, and the exact way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from structlv.distributions.factorial_chain import FactorialChain

__all__ = ["Exact", "Inference", "Problem"]


class Problem(NamedTuple):
    """A factorial HMM and what was observed of it."""

    initial: tuple[Tensor, ...]  # (*b, k_i) log-probabilities
    transition: tuple[Tensor, ...]  # (*b, k_i, k_i)
    emission: Any
    x: Tensor
    observed: Tensor | None  # (*b, n), False in padding; None where everything is
    lengths: Tensor | None
    batch: Size
    n: int
    start: tuple[Tensor, ...] | None = None  # (*b, n, k_i), where mean field begins; None for uniform

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(x.shape[-1] for x in self.initial)


class Inference(ABC):
    """``Exact``, ``StructuredMeanField`` or ``MeanField``. Abstract."""

    @abstractmethod
    def posterior(self, problem: Problem) -> FactorialChain:
        """p(z | x), or the distribution that stands in for it."""

    @abstractmethod
    def elbo(self, problem: Problem) -> Tensor:
        """A lower bound of log p(x), (*b)."""

    @abstractmethod
    def infer(self, problem: Problem) -> tuple[FactorialChain, Tensor]:
        """``posterior`` and ``elbo`` of one run."""


@dataclass(frozen=True)
class Exact(Inference):
    """The posterior itself, from the table of joint states: O(b n S sum_i k_i) time, O(b n S) memory, S =
    prod_i k_i. Ghahramani and Jordan (1997), appendix B. Its "bound" is log p(x).

    Attributes:
        max_bytes: of the joint table, b n S numbers; beyond that there is a ``ValueError``.
    """

    max_bytes: int = 2**32

    def posterior(self, problem: Problem) -> FactorialChain:
        joint = torch.Size(problem.sizes).numel()
        needed = problem.batch.numel() * problem.n * joint * problem.initial[0].element_size()
        if needed > self.max_bytes:
            raise ValueError(
                f"exact inference needs a table of {problem.batch.numel()} x {problem.n} x {joint} joint "
                f"states, {needed / 2**30:.3g} GiB, and max_bytes allows {self.max_bytes / 2**30:.3g} GiB: "
                "use StructuredMeanField(), or Exact(max_bytes=...)"
            )
        table = problem.emission.log_likelihood(problem.x, problem.observed)
        return FactorialChain(
            table.expand(*problem.batch, *table.shape[-1 - len(problem.sizes) :]),
            problem.transition,
            initial=problem.initial,
            lengths=problem.lengths,
            validate_args=False,
        )

    def elbo(self, problem: Problem) -> Tensor:
        return self.posterior(problem).log_partition()

    def infer(self, problem: Problem) -> tuple[FactorialChain, Tensor]:
        found = self.posterior(problem)
        return found, found.log_partition()
