"""Expectation maximisation for factorial hidden Markov models, and so, with one chain, for HMMs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv._extras import require
from structlv.distributions import Exact, FactorialHMM, FactorialParts
from structlv.distributions.parameters import map_tensors
from structlv.learning.m_step import Prior, expectations, log_prior, m_step
from structlv.learning.training import refuse_difference, save_atomically

KEY = "structlv-em"
SAVE_EVERY = 20  # iterations


class EMResult(NamedTuple):
    """What EM found.

    Attributes:
        model: the best of all starts.
        objective: its log-likelihood (or lower bound) plus log prior, in nats.
        log_likelihood: sum over sequences of log p(x), or of its lower bound, in nats.
        history: the objective before each M-step and after the last, never decreasing.
        converged: whether it stopped by itself, not for lack of iterations.
        seed: of the start that led there.
    """

    model: FactorialHMM
    objective: float
    log_likelihood: float
    history: tuple[float, ...]
    converged: bool
    seed: int


def fit_em(
    start: FactorialHMM | Callable[[int], FactorialHMM],
    x: Tensor,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    method: Any = None,
    prior: Prior | None = None,
    iterations: int = 200,
    tolerance: float = 1e-5,
    seeds: Sequence[int] = (0,),
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> EMResult:
    """Maximise sum_n log p(x_n) + log prior over the parameters of a factorial HMM by (generalised) EM.

    The objective never decreases: an E-step finds p(z | x) exactly, or the mean field that is best, beginning
    with the one before; an M-step is at least no worse. If it is interrupted (Ctrl-C, or killed), the same
    call with the same ``checkpoint`` goes on to the same result.

    Args:
        start: parameters to begin with, batch_shape (); or a function that makes them from a seed, such as
            ``random_categorical`` and ``random_gaussian`` with their other arguments bound.
        x: (*b, n, *event_shape), sequences of which all share the parameters.
        lengths, mask: as `FactorialHMM.log_prob` takes them.
        method: of the E-step: ``Exact()`` (the default), ``StructuredMeanField()`` or ``MeanField()``; of the
            last two a lower bound of the likelihood is maximised.
        prior: see `Prior`; by default none: maximum likelihood.
        iterations: at most so many M-steps from each start.
        tolerance: a start is done when an iteration adds less than this, in nats per observed step.
        seeds: one for each start; without a function there is one start.
        checkpoint: a file; written every 20 iterations and when interrupted, and at the end with the result.
        progress: whether to show a bar (on standard error).

    Raises:
        ValueError: the parameters have a batch shape, nothing is observed, or the checkpoint is damaged or
            belongs to other data or options.

    Cost: of an iteration that of the marginals of all sequences. Source: Dempster, Laird & Rubin 1977;
    Ghahramani & Jordan, "Factorial Hidden Markov Models", 1997, section 3 and appendix A.
    """
    begin = start if not isinstance(start, FactorialHMM) else lambda _: start
    problem = _Problem(begin, x, lengths, mask, Exact() if method is None else method, prior or Prior())
    chosen = tuple(seeds) if not isinstance(start, FactorialHMM) else (0,)
    if not chosen:
        raise ValueError("seeds must name at least one start")
    run = _Run(problem, chosen, iterations, tolerance, None if checkpoint is None else Path(checkpoint))
    return run.result(progress)


class _Problem:
    """The data, and what EM does with them: an E-step and an M-step."""

    def __init__(
        self,
        begin: Callable[[int], FactorialHMM],
        x: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        method: Any,
        prior: Prior,
    ) -> None:
        self.begin, self.x, self.lengths, self.mask = begin, x, lengths, mask
        self.method, self.prior = method, prior

    def observed(self, model: FactorialHMM) -> Tensor:
        """(*b, n) bool."""
        split = self.x.dim() - len(model.event_shape)
        seen = torch.ones(self.x.shape[:split], dtype=torch.bool, device=self.x.device)
        if self.mask is not None:
            seen = seen & self.mask
        if self.lengths is not None:
            seen = seen & (torch.arange(seen.shape[-1], device=seen.device) < self.lengths.unsqueeze(-1))
        if not bool(seen.any()):
            raise ValueError("nothing is observed: x has no step, or lengths and mask leave none")
        return seen

    @torch.no_grad()
    def e_step(self, model: FactorialHMM, before: tuple[Tensor, ...] | None) -> tuple[FactorialParts, float]:
        """The posterior's marginals, and the log-likelihood or its bound in nats."""
        posterior, value = model.infer(self.x, self.lengths, self.mask, self.method, start=before)
        return posterior.marginals(), float(value.double().sum())

    def fingerprint(self) -> str:
        """Differs where data, method or prior differ."""
        checksum = 0
        for part in (self.x, self.lengths, self.mask):
            if part is not None:
                checksum = zlib.crc32(part.detach().cpu().contiguous().numpy().tobytes(), checksum)
        return f"{tuple(self.x.shape)}:{checksum:08x}:{self.method}:{tuple(self.prior)}"


class _Climb:
    """EM from one start: its state between two iterations."""

    def __init__(self, problem: _Problem, model: FactorialHMM, history: Sequence[float] = ()) -> None:
        if model.batch_shape:
            raise ValueError(f"EM needs parameters of batch_shape (), found {tuple(model.batch_shape)}")
        self.problem, self.model, self.history = problem, model, list(history)
        self.observed = problem.observed(model)
        self.steps = int(self.observed.sum())
        self.posterior: tuple[Tensor, ...] | None = None  # of the E-step before, for mean field to begin with
        self.value, self.converged = -torch.inf, False

    def step(self, tolerance: float, last: bool) -> bool:
        """One E-step and, unless that shows the end or ``last``, one M-step; whether to go on."""
        parts, value = self.problem.e_step(self.model, self.posterior)
        objective = value + log_prior(self.model, self.problem.prior)
        converged = bool(self.history) and objective - self.history[-1] < tolerance * self.steps
        ended = converged or last
        model = self.model
        if not ended:
            model = m_step(model, expectations(parts, self.problem.x, self.observed), self.problem.prior)
        vars(self).update(  # at once: an interruption finds the state before or after, and nothing between
            model=model,
            posterior=None if parts.joint is not None else parts.unary,
            value=value,
            converged=converged,
            history=[*self.history, objective],
        )
        return not ended

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers, from which `restore` makes the same climb."""
        return {
            "tensors": _tensors(self.model),
            "history": self.history,
            "posterior": self.posterior,
            "value": self.value,
            "converged": self.converged,
        }

    def restore(self, state: dict[str, Any]) -> _Climb:
        """The climb that `state` told of; its tensors take the places of this model's."""
        tensors = iter(state["tensors"])
        self.model = map_tensors(self.model, lambda _: next(tensors))
        self.history, self.posterior = list(state["history"]), state["posterior"]
        self.value, self.converged = state["value"], state["converged"]
        return self


def _tensors(model: FactorialHMM) -> list[Tensor]:
    """All parameters, in the order in which `map_tensors` comes to them."""
    found: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        found.append(x.contiguous())
        return x

    map_tensors(model, keep)
    return found


class _Run:
    """All starts, and the checkpoint."""

    def __init__(
        self,
        problem: _Problem,
        seeds: Sequence[int],
        iterations: int,
        tolerance: float,
        checkpoint: Path | None,
    ) -> None:
        self.problem, self.seeds, self.iterations, self.tolerance = problem, seeds, iterations, tolerance
        self.checkpoint = checkpoint
        self.done: list[dict[str, Any]] = []  # a state for each start that is over
        self.current: dict[str, Any] | None = None  # that of the start under way

    def result(self, progress: bool) -> EMResult:
        self._load()
        while len(self.done) < len(self.seeds):
            climb = self._begin(len(self.done))
            if self.current is not None:
                climb.restore(self.current)
            try:
                self._climb(climb, progress)
            finally:
                self.current = climb.state()
                self._save()
            self.done.append(self.current)
            self.current = None
        self._save()
        best = max(range(len(self.done)), key=lambda i: self.done[i]["history"][-1])
        found = self._begin(best).restore(self.done[best])
        history = tuple(found.history)
        return EMResult(found.model, history[-1], found.value, history, found.converged, self.seeds[best])

    def _begin(self, index: int) -> _Climb:
        return _Climb(self.problem, self.problem.begin(self.seeds[index]))

    def _climb(self, climb: _Climb, progress: bool) -> None:
        """Iterate one start to its end."""
        tqdm = require("tqdm", "train").tqdm
        label = f"EM, start {len(self.done) + 1} of {len(self.seeds)}"
        done = len(climb.history)
        with tqdm(total=self.iterations, initial=done, desc=label, disable=not progress, leave=False) as bar:
            while self._goes_on(climb):
                bar.update()
                bar.set_postfix_str(f"{climb.value / climb.steps:.4f} nats per step", refresh=False)
                if len(climb.history) % SAVE_EVERY == 0:
                    self.current = climb.state()
                    self._save()

    def _goes_on(self, climb: _Climb) -> bool:
        """One iteration, if the climb is not over (it may come from a checkpoint of its end)."""
        if climb.converged or len(climb.history) > self.iterations:
            return False
        return climb.step(self.tolerance, last=len(climb.history) == self.iterations)

    def _identity(self) -> dict[str, Any]:
        return {
            "data": self.problem.fingerprint(),
            "seeds": list(self.seeds),
            "iterations": self.iterations,
            "tolerance": self.tolerance,
        }

    def _save(self) -> None:
        if self.checkpoint is not None:
            content = {KEY: self._identity(), "done": self.done, "current": self.current}
            save_atomically(content, self.checkpoint)

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
        refuse_difference(stored, self._identity())
