"""The engine of EM: climbs from several starts, checkpoints, progress. It knows no model, only problems."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from structlv._extras import require
from structlv.learning.checkpoints import refuse_difference, save_atomically
from structlv.learning.em.problem import Problem
from structlv.learning.em.shards import OverShards

KEY = "structlv-em"
SAVE_EVERY = 20  # iterations
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the objective, relative: what may look like a fall


class Climb(ABC):
    """EM from one start: its state between two iterations. Abstract.

    Attributes:
        model: the parameters.
        history: the objective by iteration, in nats.
        value: the log-likelihood (or its bound) that was found last, in nats.
        converged: whether it ended by itself.
    """

    most: int  # iterations, for the progress bar

    def __init__(self, problem: Problem, model: Any) -> None:
        self.problem, self.model = problem, problem.begin(model)
        self.history: list[float] = []
        self.value, self.converged = -torch.inf, False

    @abstractmethod
    def step(self) -> None:
        """One iteration. Interrupted anywhere it leaves the state before it."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether there is nothing left to do."""

    @property
    def objective(self) -> float:
        """Of the model, in nats, once the climb is over."""
        return self.history[-1]

    @abstractmethod
    def more(self) -> dict[str, Any]:
        """By name what a subclass has to remember: tensors, lists of tensors, numbers."""

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers, from which `restore` makes the same climb."""
        return {
            "tensors": [x.contiguous() for x in self.problem.tensors(self.model)],
            "history": self.history,
            "value": self.value,
            "converged": self.converged,
            "objective": self.objective if self.history else None,
            **self.more(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the climb that `state` told of."""
        tensors = [x.clone() for x in state["tensors"]]
        new = {name: value for name, value in state.items() if name not in ("tensors", "objective")}
        vars(self).update(
            {**new, "history": list(state["history"]), "model": self.problem.restored(self.model, tensors)}
        )


class BatchClimb(Climb):
    """EM proper: an E-step over all data, then an M-step. The objective never falls, and this is checked.

    It ends when an iteration adds less than ``tolerance`` nats per observed step (of a Monte Carlo E-step
    that says nothing), or after ``iterations`` M-steps; the last E-step tells the objective of the result.
    """

    def __init__(self, problem: Problem, model: Any, iterations: int, tolerance: float) -> None:
        super().__init__(problem, model)
        self.iterations, self.tolerance, self.most = iterations, tolerance, iterations
        self.carry: Any = None  # of the E-step before, for the next to begin with

    @property
    def over(self) -> bool:
        return self.converged or len(self.history) > self.iterations

    def step(self) -> None:
        found = self.problem.e_step(self.model, self.carry)
        objective = found.value + self.problem.log_prior(self.model)
        gain = objective - self.history[-1] if self.history else torch.inf
        self._refuse_a_fall(objective, gain)
        converged = self.problem.monotone and gain < self.tolerance * self.problem.steps
        model = self.model
        if not converged and len(self.history) < self.iterations:
            model = self.problem.m_step(model, found.counts)
        vars(self).update(  # at once: an interruption finds the state before or after, and nothing between
            model=model,
            carry=found.carry,
            value=found.value,
            converged=converged,
            history=[*self.history, objective],
        )

    def _refuse_a_fall(self, objective: float, gain: float) -> None:
        """Raises RuntimeError where the objective is NaN, or lower than rounding could make it."""
        dtypes = {x.dtype for x in self.problem.tensors(self.model) if x.is_floating_point()}
        rounding = max(ROUNDING.get(dtype, 1e-2) for dtype in dtypes) * max(1.0, abs(objective))
        if objective != objective or (self.problem.monotone and gain < -rounding):
            raise RuntimeError(
                f"EM must not lower its objective, found {self.history[-1:]} then {objective} nats; where "
                "covariances are nearly singular, Prior(covariance=...) helps"
            )

    def more(self) -> dict[str, Any]:
        return {"carry": self.carry}


class Run:
    """Climbs from all starts, one after the other, and the checkpoint.

    Args: ``begin``: a new climb from a seed; ``options``: what the checkpoint must agree with, beside the
    data and the seeds.
    """

    def __init__(
        self,
        problem: Problem,
        begin: Callable[[int], Climb],
        seeds: Sequence[int],
        options: dict[str, Any],
        checkpoint: str | Path | None,
    ) -> None:
        if not seeds:
            raise ValueError("seeds must name at least one start")
        if problem.steps == 0:
            raise ValueError("nothing is observed: x has no step, or lengths and mask leave none")
        self.problem, self.begin, self.seeds = problem, begin, tuple(seeds)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.identity: dict[str, Any] = {}
        if checkpoint is not None:
            self.identity = {"data": problem.fingerprint(), "seeds": list(self.seeds), **options}
        self.done: list[dict[str, Any]] = []  # a state for each start that is over
        self.current: dict[str, Any] | None = None  # that of the start under way

    def best(self, progress: bool) -> tuple[Climb, int]:
        """The climb of the highest objective when all are over, and its seed."""
        self._load()
        while len(self.done) < len(self.seeds):
            climb = self._begin(len(self.done), self.current)
            try:
                self._to_the_end(climb, progress)
            finally:
                self.current = climb.state()
                self._save()
            self.done.append(self.current)
            self.current = None
        self._save()
        place = max(range(len(self.done)), key=lambda i: self.done[i]["objective"])
        return self._begin(place, self.done[place]), self.seeds[place]

    def _begin(self, place: int, state: dict[str, Any] | None) -> Climb:
        climb = self.begin(self.seeds[place])
        if state is not None:
            climb.restore(state)
        return climb

    def _to_the_end(self, climb: Climb, progress: bool) -> None:
        bar_of = require("tqdm", "train").tqdm if progress else _NoBar
        label = f"EM, start {len(self.done) + 1} of {len(self.seeds)}"
        with bar_of(initial=len(climb.history), total=climb.most, desc=label, leave=False) as bar:
            while not climb.over:
                climb.step()
                bar.update()
                bar.set_postfix_str(f"{climb.value / self.problem.steps:.4f} nats per step", refresh=False)
                if len(climb.history) % SAVE_EVERY == 0:
                    self.current = climb.state()
                    self._save()

    def _save(self) -> None:
        """Of shards process 0 writes for all."""
        if self.checkpoint is not None and not self._of_others():
            save_atomically({KEY: self.identity, "done": self.done, "current": self.current}, self.checkpoint)

    def _of_others(self) -> bool:
        return isinstance(self.problem, OverShards) and self.problem.shards.rank > 0

    def _load(self) -> None:
        """Raises ValueError where the checkpoint is damaged, or of another run."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        try:
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            stored, self.done, self.current = content[KEY], content["done"], content["current"]
        except Exception as error:  # torch.load raises many kinds for a damaged file
            message = f"{self.checkpoint}: damaged, or not a checkpoint of EM; remove it to start afresh"
            raise ValueError(message) from error
        refuse_difference(stored, self.identity)


class _NoBar:
    """In place of a progress bar."""

    def __init__(self, **_: Any) -> None: ...

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self) -> None: ...

    def set_postfix_str(self, *_: Any, **__: Any) -> None: ...
