"""Online EM: a running average of expected counts, an M-step after every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from structlv.distributions.algebra import flat, rebuilt
from structlv.learning.em.problem import Problem, plus, scaled
from structlv.learning.em.run import Climb


class StepwiseClimb(Climb):
    """Online EM from one start; an iteration is a pass over the data. It promises no ascent.

    Sources: Cappé & Moulines 2009, section 2; Liang & Klein 2009, section 3 (the order of data, the weights).
    """

    def __init__(
        self, problem: Problem, model: Any, seed: int, batch_size: int, power: float, passes: int
    ) -> None:
        super().__init__(problem, model)
        self.seed, self.batch_size, self.power, self.most = seed, batch_size, power, passes
        self.updates = 0
        self.average: list[Tensor] = []  # of counts, as if each batch were all data
        self.final = -torch.inf

    @property
    def over(self) -> bool:
        return len(self.history) >= self.most

    @property
    def objective(self) -> float:
        return self.final

    def step(self) -> None:
        model, updates, seen, final = self.model, self.updates, 0.0, -torch.inf
        average: Any = None
        for items in self._order().split(self.batch_size):
            found = self.problem.e_step(model, None, items)
            seen += found.value
            if average is None and self.average:
                average = rebuilt(found.counts, self.average)
            weight = (updates + 2) ** -self.power if average is not None else 1.0
            fresh = scaled(found.counts, weight * self.problem.items / len(items))
            average = fresh if average is None else plus(scaled(average, 1 - weight), fresh)
            before, model = model, self.problem.m_step(model, average)
            average = self.problem.moved(average, before, model)
            updates += 1
        if len(self.history) + 1 >= self.most:
            value = self.problem.e_step(model).value
            final = value + self.problem.log_prior(model)
        else:
            value = seen
        vars(self).update(
            model=model,
            updates=updates,
            average=flat(average),
            value=value,
            final=final,
            history=[*self.history, seen + self.problem.log_prior(model)],
        )

    def _order(self) -> Tensor:
        """All sequences, in the order of this pass."""
        word = np.random.SeedSequence((self.seed, len(self.history))).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(word >> np.uint64(1)))
        return torch.randperm(self.problem.items, generator=generator)

    def more(self) -> dict[str, Any]:
        return {"average": self.average, "updates": self.updates, "final": self.final}
