"""Weights that change in the course of training, functions of the step alone: training resumes exactly.

Each maps the number of the optimiser's step, from 0, to a number: the weight beta of the KL, or another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Linear:
    """From ``start`` to ``end`` along a line in ``steps`` steps, after ``delay`` of them at the start.

    As weight of the KL: "KL annealing". Bowman et al. 2016, section 3.1; Sønderby et al. 2016. Raises
    ValueError for a negative delay or no steps.
    """

    steps: int
    start: float = 0.0
    end: float = 1.0
    delay: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.delay < 0:
            raise ValueError(f"expected steps >= 1 and delay >= 0, found {self.steps} and {self.delay}")

    def __call__(self, step: int) -> float:
        share = min(1.0, max(0.0, (step - self.delay) / self.steps))
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Sigmoid:
    """``end`` times the logistic function of (step - middle) / width: half of it at ``middle``.

    Bowman et al. 2016, figure 2. Raises ValueError unless the width is positive.
    """

    middle: float
    width: float
    end: float = 1.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width must be positive, found {self.width}")

    def __call__(self, step: int) -> float:
        return self.end * 0.5 * (1 + math.tanh(0.5 * (step - self.middle) / self.width))


@dataclass(frozen=True)
class Cyclical:
    """From 0 to ``end`` along a line in the first ``ramp`` of each ``period``, then ``end`` to its close.

    Fu et al. 2019, "Cyclical annealing schedule". Raises ValueError unless period >= 1 and 0 < ramp <= 1.
    """

    period: int
    ramp: float = 0.5
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.period < 1 or not 0 < self.ramp <= 1:
            raise ValueError(f"expected period >= 1 and 0 < ramp <= 1, found {self.period} and {self.ramp}")

    def __call__(self, step: int) -> float:
        return self.end * min(1.0, (step % self.period) / (self.period * self.ramp))
