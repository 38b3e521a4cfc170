"""Mean field: posteriors of factorial hidden Markov models that are products over chains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from structlv.distributions.ascent import Ascent, FactorisedAscent, StructuredAscent
from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_likelihoods import Likelihood
from structlv.distributions.inference import Inference, Problem

__all__ = ["MeanField", "StructuredMeanField", "Variational"]


@dataclass(frozen=True)
class Variational(Inference):
    """Coordinate ascent on the bound F(q) = E_q[log p(x, z) - log q(z)] <= log p(x). Abstract.

    q is a product over chains, and chain after chain gets the q_i that is best given the others: the bound
    never decreases. A sweep is one turn of every chain. It ends after ``max_sweeps``, or once no
    probability of a state changed by more than ``tolerance`` in a sweep, in any item of the batch. It
    begins with uniform q_i; it is deterministic, and what it finds is a local optimum.

    Attributes:
        max_sweeps: at least 1.
        tolerance: a probability; 0 for ``max_sweeps`` whatever happens (nothing is looked at, nothing waits
            for a device).
        damping: in [0, 1), how much of the old q_i is kept in a turn after the first. The bound still never
            decreases.
        unroll: whether the gradient goes through the sweeps. If not, q is held constant: the bound is
            stationary in q at the optimum, so that the partial derivative in the parameters is the whole one
            (before the optimum it is that of the bound with this q, as in the M-step of EM). Either way it is
            differentiable once.
    """

    max_sweeps: int = 50
    tolerance: float = 1e-4
    damping: float = 0.0
    unroll: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.max_sweeps, int) or self.max_sweeps < 1:
            raise ValueError(f"max_sweeps must be a positive integer, found {self.max_sweeps!r}")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be a number >= 0, found {self.tolerance!r}")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping must be in [0, 1), found {self.damping!r}")

    def posterior(self, problem: Problem) -> FactorialChain:
        """q(z) as chains with scores of their own; its log-partition is not that of x."""
        return self._posterior(self._climbed(problem, likelihood_of(problem)))

    def elbo(self, problem: Problem) -> Tensor:
        likelihood = likelihood_of(problem)
        return _bound(self._climbed(problem, likelihood), likelihood, problem)

    def infer(self, problem: Problem) -> tuple[FactorialChain, Tensor]:
        likelihood = likelihood_of(problem)
        ascent = self._climbed(problem, likelihood)
        return self._posterior(ascent), _bound(ascent, likelihood, problem)

    def _posterior(self, ascent: Ascent) -> FactorialChain:
        found = ascent.posterior()
        return found if self.unroll else found.detach()

    def _climbed(self, problem: Problem, likelihood: Likelihood) -> Ascent:
        """The ascent, after its last sweep."""
        plain = torch.autocast(
            problem.x.device.type, enabled=False
        )  # products in half precision never settle
        with nullcontext() if self.unroll else torch.no_grad(), plain:
            *_, ascent = self.sweeps(problem, likelihood)
        return ascent

    def sweeps(self, problem: Problem, likelihood: Likelihood) -> Iterator[Ascent]:
        """The ascent (one object) after each sweep, until nothing moves."""
        ascent = self.start(problem, likelihood)
        for _ in range(self.max_sweeps):
            ascent.change = ascent.change * 0
            for i in range(len(problem.sizes)):
                ascent.turn(i)
            yield ascent
            if self.tolerance and bool(ascent.change <= self.tolerance):
                return

    @abstractmethod
    def start(self, problem: Problem, likelihood: Likelihood) -> Ascent:
        """The ascent before its first sweep."""


def _bound(ascent: Ascent, likelihood: Likelihood, problem: Problem) -> Tensor:
    bound = ascent.bound(likelihood, problem)
    return bound if problem.initial[0].dtype == torch.float64 else bound.to(torch.float32)


def likelihood_of(problem: Problem) -> Likelihood:
    return problem.emission.likelihood(problem.x, problem.observed, problem.batch)


@dataclass(frozen=True)
class StructuredMeanField(Variational):
    """q(z) = prod_i q_i(z^i_1..z^i_n): every chain keeps its own transitions, and sees the others through
    scores of its states. A turn is one forward-backward, O(b n k_i^2), and what the emission takes to sum
    the others up.

    Ghahramani and Jordan (1997), section 3.5 and appendix D, for additive Gaussian emissions, for which the
    scores are exact. For ``LogLinearCategorical`` and ``IndependentBernoulli`` the expected log-normaliser
    is bounded in its turn, by E log y <= log zeta + E y / zeta - 1, y = sum_s exp(sum_i logits_i[z_i, s]), in
    which E y factorises over chains; zeta, a coordinate too, is at its optimum E y before every turn.
    Before that, what a chain's logits add to all symbols alike is chosen so that y varies little: it changes
    no probability, and makes the bound tighter. With one chain the bound is log p(x).

    Damping mixes the scores, old and new. Sweeps, their end, and the other arguments: ``Variational``.
    """

    def start(self, problem: Problem, likelihood: Likelihood) -> Ascent:
        return StructuredAscent(problem, likelihood, self)


@dataclass(frozen=True)
class MeanField(Variational):
    """q(z) = prod_i prod_t q_it(z^i_t): every state by itself, independent of its neighbours in time too.

    A turn is one of the chain's even steps, then of its odd ones, O(b n k_i^2), so that each is an exact
    ascent. Ghahramani and Jordan (1997), section 3.4 and appendix C. Where a transition is forbidden, a
    chain begins with its best sequence (a uniform q would have a bound of -inf, from which no single step
    leads away), and the optimum may be poor. The bound on log-normalisers is that of ``StructuredMeanField``.

    Damping mixes probabilities, old and new. Sweeps, their end, and the other arguments: ``Variational``.
    """

    def start(self, problem: Problem, likelihood: Likelihood) -> Ascent:
        return FactorisedAscent(problem, likelihood, self)
