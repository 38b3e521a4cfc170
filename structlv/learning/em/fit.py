"""Expectation maximisation of HMMs, factorial HMMs, grammars and mixtures: whole, stepwise, or sharded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv.distributions import HMM, PCFG, FactorialHMM
from structlv.learning.em.factorial import FactorialProblem
from structlv.learning.em.hmm import HMMProblem
from structlv.learning.em.m_step import Prior, Tied
from structlv.learning.em.naive_bayes import NaiveBayesProblem, NaiveBayesTables
from structlv.learning.em.pcfg import PCFGProblem
from structlv.learning.em.problem import Problem
from structlv.learning.em.run import BatchClimb, Climb, Run
from structlv.learning.em.shards import OverShards
from structlv.learning.em.stepwise import StepwiseClimb
from structlv.models import NaiveBayes

Model = HMM | FactorialHMM | PCFG | NaiveBayesTables | NaiveBayes


class EMResult(NamedTuple):
    """What EM found.

    Attributes:
        model: the best of all starts.
        objective: its log-likelihood (or lower bound) plus log prior, in nats.
        log_likelihood: sum over sequences of log p(x), or of its lower bound, in nats.
        history: the objective before each M-step and after the last, never decreasing. (Of stepwise EM: what
            each pass saw while it learned, which may fall.)
        converged: whether it stopped by itself, not for lack of iterations.
        seed: of the start that led there.
    """

    model: Any
    objective: float
    log_likelihood: float
    history: tuple[float, ...]
    converged: bool
    seed: int


def fit_em(
    start: Model | Callable[[int], Model],
    x: Tensor,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    method: Any = None,
    prior: Prior | None = None,
    fixed: Collection[str] = (),
    tied: Tied | None = None,
    evidence: Mapping[str, Any] | None = None,
    iterations: int = 200,
    tolerance: float = 1e-5,
    seeds: Sequence[int] = (0,),
    sharded: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> EMResult:
    """Maximise sum_n log p(x_n) + log prior over the parameters of a model by (generalised) EM.

    ======================  =======================================  ==================================
    model                   closed form (else a few steps uphill)    ``fixed`` may name
    ======================  =======================================  ==================================
    ``HMM``                 symbols, normal distributions, Poisson   initial, transition, final, emission;
                            counts, mixtures of the latter two       means, covariance, rates, weights
    ``FactorialHMM``        chains; sums of means; one chain         initial, transition, emission
    ``PCFG``                all                                      root, rules, emission
    ``NaiveBayesTables``,   all                                      prior, words
    ``models.NaiveBayes``
    ======================  =======================================  ==================================

    The objective never decreases, and every iteration checks it: an E-step finds p(z | x) exactly, or the
    mean field that is best, beginning with the one before; an M-step is at least no worse. If it is
    interrupted (Ctrl-C, or killed), the same call with the same ``checkpoint`` goes on to the same result.
    Expected counts are float64; all but factorial HMMs run in float64 whatever the dtype of the start, which
    the result has.

    Args:
        start: parameters to begin with, batch_shape (); or a function that makes them from a seed, such as
            ``hmm_of_symbols`` or ``random_gaussian`` with their other arguments bound.
        x: (*b, n, *event_shape), sequences of which all share the parameters.
        lengths, mask: as the model's ``log_prob`` takes them.
        method: of a factorial HMM's E-step: ``Exact()`` (the default), ``StructuredMeanField()`` or
            ``MeanField()``; of the last two a lower bound of the likelihood is maximised. Of an HMM's:
            ``MonteCarlo()`` counts posterior samples, and promises no ascent.
        prior: see `Prior`; by default none: maximum likelihood.
        fixed: names of parameters that stay as they are (the table above).
        tied: see `Tied`; of an ``HMM``.
        evidence: what is known of hidden structure, so that log p(x, evidence) is maximised. Of an ``HMM``
            what ``LinearChain.condition`` takes as "states" (*b, n), -1 where a label is missing, or
            "allowed" (*b, n, k); of a ``FactorialHMM`` the same of ``FactorialChain.condition``; of
            ``NaiveBayesTables`` "classes" (*b).
        iterations: at most so many M-steps from each start.
        tolerance: a start is done when an iteration adds less than this, in nats per observed step.
        seeds: one for each start; without a function there is one start.
        sharded: whether every process of torch.distributed's default group calls this with its own part of
            the data: counts are added up (float64), and all find the parameters that one process with all
            data would, but for rounding.
        checkpoint: a file; written every 20 iterations and when interrupted, and at the end with the result.
        progress: whether to show a bar (on standard error; it needs tqdm).

    Raises:
        TypeError: there is no EM for such a model, or no M-step for its emission.
        ValueError: the parameters have a batch shape, nothing is observed, an option does not fit, a sequence
            has probability 0, or the checkpoint is damaged or belongs to other data or options.
        RuntimeError: the objective fell by more than rounding.

    Cost: of an iteration that of the marginals of all sequences. Sources: Dempster, Laird & Rubin 1977; the
    tutorial of Kim, Wiseman & Rush 2018, section 5.2; each model's in its `Problem`.
    """
    begin, like, seeds = _starts(start, seeds)
    given = {"method": method, "fixed": fixed, "tied": tied, "evidence": evidence}
    problem = problem_of(like, x, lengths, mask, prior=prior, **given)
    if sharded:
        problem = OverShards(problem)

    def climb(seed: int) -> Climb:
        return BatchClimb(problem, begin(seed), iterations, tolerance)

    options = {"iterations": iterations, "tolerance": tolerance}
    return _result(Run(problem, climb, seeds, options, checkpoint), progress, start)


def fit_stepwise_em(
    start: Model | Callable[[int], Model],
    x: Tensor,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    prior: Prior | None = None,
    fixed: Collection[str] = (),
    tied: Tied | None = None,
    evidence: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    power: float = 0.7,
    passes: int = 5,
    seeds: Sequence[int] = (0,),
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> EMResult:
    """Online EM: an M-step after every batch, from a running average of expected counts.

    Update k mixes what a batch says, as if all data were like it, into the average with weight
    (k + 2)^-power; a pass sees every sequence once, in an order decided by the seed and the pass. Early
    passes learn faster than those of `fit_em`; nothing promises that the likelihood rises, and ``history``
    holds sum log p(x) of each pass as it went, batch by batch, with the log prior. Not for factorial HMMs.

    Args: those of `fit_em`; and ``batch_size`` in sequences; ``power`` in (0.5, 1]; ``passes``.

    Raises: as `fit_em`; ValueError where ``power`` is not within (0.5, 1], ``batch_size`` or ``passes`` < 1.
    Sources: Cappé & Moulines 2009, section 2; Liang & Klein 2009, section 3.
    """
    if not 0.5 < power <= 1:
        raise ValueError(f"power must be within (0.5, 1], found {power}")
    if batch_size < 1 or passes < 1:
        raise ValueError(f"batch_size and passes must be at least 1, found {batch_size} and {passes}")
    begin, like, seeds = _starts(start, seeds)
    given = {"fixed": fixed, "tied": tied, "evidence": evidence}
    problem = problem_of(like, x, lengths, mask, prior=prior, **given)
    if not problem.additive:
        raise TypeError(
            f"stepwise EM needs counts that are sums over sequences; of {_name(like)} they are not"
        )

    def climb(seed: int) -> Climb:
        return StepwiseClimb(problem, begin(seed), seed, batch_size, power, passes)

    options = {"batch_size": batch_size, "power": power, "passes": passes}
    return _result(Run(problem, climb, seeds, options, checkpoint), progress, start)


PROBLEMS: dict[type, Callable[..., Problem]] = {
    HMM: HMMProblem,
    FactorialHMM: FactorialProblem,
    PCFG: PCFGProblem,
    NaiveBayesTables: NaiveBayesProblem,
}


def problem_of(
    like: Any, x: Tensor, lengths: Tensor | None, mask: Tensor | None, *, prior: Prior | None, **options: Any
) -> Problem:
    """What EM does for models like ``like``.

    Raises TypeError where there is nothing, ValueError for an option that such models do not have.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    for kind, problem in PROBLEMS.items():
        if isinstance(like, kind):
            unknown = [name for name in given if name not in signature(problem).parameters]
            if unknown:
                raise ValueError(f"EM of {_name(like)} knows no {', '.join(unknown)}")
            return problem(like, x, lengths, mask, prior=prior or Prior(), **given)
    names = ", ".join(kind.__name__ for kind in PROBLEMS)
    raise TypeError(f"EM needs one of {names}, or a function that makes one; found {_name(like)}")


def _starts(start: Any, seeds: Sequence[int]) -> tuple[Callable[[int], Any], Any, tuple[int, ...]]:
    """How to begin, a model of the kind, and the seeds."""
    if isinstance(start, NaiveBayes):
        start = NaiveBayesTables(start.prior_logits.detach(), start.word_logits.detach())
    if isinstance(start, tuple(PROBLEMS)) or not callable(start):
        return lambda _: start, start, (0,)
    if not seeds:
        raise ValueError("seeds must name at least one start")
    return start, start(seeds[0]), tuple(seeds)


def _result(run: Run, progress: bool, start: Any) -> EMResult:
    climb, seed = run.best(progress)
    model = run.problem.finished(climb.model)
    if isinstance(start, NaiveBayes):
        model = _module(start, model)
    return EMResult(model, climb.objective, climb.value, tuple(climb.history), climb.converged, seed)


def _module(like: NaiveBayes, tables: NaiveBayesTables) -> NaiveBayes:
    """A copy of the module with these parameters."""
    found = deepcopy(like)
    with torch.no_grad():
        found.prior_logits.copy_(tables.prior_logits)
        found.word_logits.copy_(tables.word_logits)
    return found


def _name(model: Any) -> str:
    return type(model).__name__
