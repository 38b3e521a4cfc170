"""Baselines of the score function: what is subtracted from f to lower the variance of its gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


class Baseline(ABC):
    """What is subtracted from f to lower the variance, and does not depend on the sample it meets."""

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """Something that broadcasts with ``values`` (s, *b), which are detached."""


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """For each sample the mean of the others: nothing to learn. Kool, van Hoof and Welling (2019)."""

    def __call__(self, values: Tensor) -> Tensor:
        if len(values) < 2:
            raise ValueError(f"leave-one-out needs at least 2 samples, found {len(values)}")
        return (values.sum(0) - values) / (len(values) - 1)


@dataclass
class MovingAverage(Baseline):
    """The exponentially weighted mean of f over former calls; 0 at the first. It remembers: one for a loss.

    Args:
        decay: of the past, in 0..1 (1 excluded).
    """

    decay: float = 0.9
    mean: float = field(default=0.0, init=False)
    weight: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), found {self.decay!r}")

    def __call__(self, values: Tensor) -> Tensor:
        baseline = self.mean / self.weight if self.weight else 0.0
        if values.numel():
            self.mean = self.decay * self.mean + (1 - self.decay) * float(values.mean())
            self.weight = self.decay * self.weight + (1 - self.decay)
        return values.new_tensor(baseline)


@dataclass(frozen=True)
class LearnedBaseline(Baseline):
    """A prediction of f for each item, trained by least squares along with everything else.

    The surrogate carries the gradient of ``loss`` in the prediction's parameters (and value 0), so that the
    same ``backward`` trains it. Mnih and Gregor (2014), "Neural variational inference and learning",
    section 2.3.

    Args:
        predict: called without arguments, gives (*b), such as ``lambda: network(x).squeeze(-1)``; it must
            not see the samples.
    """

    predict: Callable[[], Tensor]

    def __call__(self, values: Tensor) -> Tensor:
        found = self.predict().detach()
        if found.shape != values.shape[1:]:
            raise ValueError(
                f"predict must give one number for each item, {tuple(values.shape[1:])}, "
                f"found {tuple(found.shape)}"
            )
        return found

    def loss(self, values: Tensor) -> Tensor:
        """Half the squared error of the prediction, (*b)."""
        return 0.5 * (self.predict() - values).square().mean(0)
