"""What an M-step needs to know of a family of emissions.

A family sees parameters as a tuple of float64 tensors with a row for each state (states that share their
emission are one row), and statistics as a tuple of sums over observations, weighted by the probability of
the row's state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from structlv.learning.em.m_step import Groups, Prior

Parameters = tuple[Tensor, ...]
Statistics = tuple[Tensor, ...]
LEAST = 1e-100  # a row that has less weight than this has none: its digits are gone, its inverse infinite


class Options(NamedTuple):
    """What an M-step must respect: the prior; the names of what is fixed; which rows share a covariance."""

    prior: Prior
    fixed: frozenset[str]
    covariance: Groups | None = None
    spherical: bool = False


class Family(ABC):
    """The M-step of one family of emissions. Abstract.

    ``names`` are those of its parameters, in their order, as `fixed` may give them.
    """

    names: tuple[str, ...]

    @abstractmethod
    def parameters(self, emission: Any) -> Parameters:
        """Of all states, as they are."""

    @abstractmethod
    def emission(self, parameters: Parameters) -> Any:
        """What an `HMM` takes."""

    @abstractmethod
    def statistics(self, parameters: Parameters, x: Tensor, weights: Tensor) -> Statistics:
        """Of observations (N, *event_shape) with weights (N, rows) float64."""

    @abstractmethod
    def step(self, parameters: Parameters, statistics: Statistics, options: Options) -> Parameters:
        """The best parameters for these statistics; the old ones of rows that have none."""

    @abstractmethod
    def log_prior(self, parameters: Parameters, options: Options) -> float:
        """In nats, up to a constant."""

    @abstractmethod
    def free(self, parameters: Parameters, options: Options) -> int:
        """How many numbers may be chosen freely."""

    def moved(self, statistics: Statistics, old: Parameters, new: Parameters) -> Statistics:
        """``statistics`` taken with the old parameters, as they would be with the new."""
        return statistics
