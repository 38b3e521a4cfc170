"""Posteriors of factorial hidden Markov models: exact, structured mean field, mean field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor
from torch.nn.functional import pad

from structlv.distributions.algebra import inner
from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_likelihoods import Likelihood
from structlv.distributions.linear_chain import LinearChain
from structlv.distributions.parameters import Tensors, map_tensors
from structlv.ops import chain
from structlv.reference.semiring import softmax

__all__ = ["Exact", "Inference", "MeanField", "StructuredMeanField"]


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
    """How a factorial HMM finds its posterior: one of the classes below."""

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
                f"exact inference needs a table of {problem.batch.numel()} x {problem.n} x {joint} joint states"
                f", {needed / 2**30:.3g} GiB, and max_bytes allows {self.max_bytes / 2**30:.3g} GiB: use "
                "StructuredMeanField(), or Exact(max_bytes=...)"
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


@dataclass(frozen=True)
class Variational(Inference):
    """Coordinate ascent on the bound F(q) = E_q[log p(x, z) - log q(z)] <= log p(x). Abstract.

    q is a product over chains, and chain after chain gets the q_i that is best given the others: the bound
    never decreases. A sweep is one turn of every chain. It ends after ``max_sweeps``, or once no
    probability of a state changed by more than ``tolerance`` in a sweep, in any item of the batch. It
    begins with uniform q_i; it is deterministic, and what it finds is a local optimum.

    Attributes:
        max_sweeps: at least 1. tolerance: a probability; 0 for ``max_sweeps`` whatever happens (nothing is
            looked at, nothing waits for a device).
        damping: in [0, 1), how much of the old q_i is kept in a turn after the first. The bound still never
            decreases.
        unroll: whether the gradient goes through the sweeps. If not, q is held constant: the bound is
            stationary in q at the optimum, so that its derivative is the partial derivative in the parameters
            (an exact gradient of the bound at the optimum, and a lower bound's gradient anywhere). Either way
            it is differentiable once.
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
        with nullcontext() if self.unroll else torch.no_grad():
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
    With one chain and a Gaussian emission the bound is log p(x).

    Damping mixes the chains' scores, old and new.
    """

    __doc__ += (Variational.__doc__ or "").partition("\n\n")[2]

    def start(self, problem: Problem, likelihood: Likelihood) -> Ascent:
        return StructuredAscent(problem, likelihood, self)


@dataclass(frozen=True)
class MeanField(Variational):
    """q(z) = prod_i prod_t q_it(z^i_t): every state by itself, independent of its neighbours in time too.

    A turn is one of the chain's even steps, then of its odd ones, O(b n k_i^2), so that each is an exact
    ascent. Ghahramani and Jordan (1997), section 3.4 and appendix C. Where a transition is forbidden, a
    chain begins with its best sequence (a uniform q would have a bound of -inf, from which no single step
    leads away), and the optimum may be poor. The bound on log-normalisers is that of ``StructuredMeanField``.

    Damping mixes probabilities, old and new.
    """

    __doc__ += (Variational.__doc__ or "").partition("\n\n")[2]

    def start(self, problem: Problem, likelihood: Likelihood) -> Ascent:
        return FactorisedAscent(problem, likelihood, self)


class Ascent(ABC):
    """q as it climbs: the chains' probabilities, and what they say to one another."""

    change: Tensor  # the largest change of a probability since the sweep began

    def __init__(self, problem: Problem, likelihood: Likelihood, method: Variational) -> None:
        dtype = problem.initial[0].dtype
        dtype = dtype if dtype.itemsize >= 4 else torch.float32
        self.likelihood = _cast(likelihood, dtype)
        self.initial = tuple(x.to(dtype) for x in problem.initial)
        self.transition = tuple(x.to(dtype) for x in problem.transition)
        self.lengths, self.method = problem.lengths, method
        self.change = torch.zeros((), dtype=dtype, device=problem.x.device)
        start = problem.start or [x.new_full((), 1 / x.shape[-1]) for x in self.initial]
        self.marginals = [
            p.to(dtype).expand(*problem.batch, problem.n, x.shape[-1])
            for p, x in zip(start, self.initial, strict=True)
        ]
        self.messages = [self.likelihood.message(i, x) for i, x in enumerate(self.marginals)]

    def turn(self, i: int) -> None:
        """Chain i gets the best q_i given the others."""
        new = self._best(i)
        if self.method.tolerance and new.numel():
            change = (new - self.marginals[i]).detach().abs().amax()
            self.change = torch.maximum(self.change, change)
        self.marginals[i], self.messages[i] = new, self.likelihood.message(i, new)

    @abstractmethod
    def _best(self, i: int) -> Tensor:
        """The probabilities (*b, n, k_i), 0 in padding, of chain i's states after its turn."""

    @abstractmethod
    def posterior(self) -> FactorialChain:
        """q as a distribution."""

    @abstractmethod
    def bound(self, likelihood: Likelihood, problem: Problem) -> Tensor:
        """F(q), (*b) float64, as a function of the parameters, and of q if ``unroll``. -inf where x is
        impossible.
        """

    def _held(self, x: Tensor) -> Tensor:
        """``x``, which depends on q alone."""
        return x if self.method.unroll else x.detach()


def _cast(likelihood: Likelihood, dtype: torch.dtype) -> Likelihood:
    return map_tensors(likelihood, lambda x: x.to(dtype) if x.is_floating_point() else x)


class StructuredAscent(Ascent):
    """Chains with scores: q_i(z) is proportional to exp(scores_i) p(z^i)."""

    def __init__(self, problem: Problem, likelihood: Likelihood, method: Variational) -> None:
        super().__init__(problem, likelihood, method)
        self.scores: list[Tensor | None] = [None] * len(self.initial)

    def _best(self, i: int) -> Tensor:
        new, old, keep = (
            self.likelihood.scores(i, self.messages, self.marginals[i]),
            self.scores[i],
            self.method.damping,
        )
        self.scores[i] = new = new if old is None or not keep else (1 - keep) * new + keep * old
        return chain.state_marginals(new, self.transition[i], self.initial[i], None, self.lengths)

    def posterior(self) -> FactorialChain:
        return FactorialChain(
            self.scores,  # type: ignore[arg-type]
            self.transition,
            initial=self.initial,
            lengths=self.lengths,
            validate_args=False,
        )

    def bound(self, likelihood: Likelihood, problem: Problem) -> Tensor:
        """sum_i (log Z_i - <marginals_i, scores_i>) + E log p(x | z): the first is -KL(q_i || p_i), and log
        Z_i has, scores being held, the expected gradient of log p(z^i).
        """
        marginals, gaps = [], []
        for scores, moves, first in zip(self.scores, problem.transition, problem.initial, strict=True):
            assert scores is not None
            scores = self._held(scores).double()
            args = (scores, moves.double(), first.double(), None, self.lengths)
            log_z = LinearChain(*args[:2], initial=args[2], lengths=self.lengths, validate_args=False)
            marginals.append(self._held(chain.state_marginals(*args)))
            gaps.append(
                (
                    log_z._log_partition(as_double=True),
                    inner([marginals[-1]], [scores], log_z.unary.dim() - 2),
                )
            )
        log_zs = torch.stack([log_z for log_z, _ in gaps])
        impossible = (log_zs == -torch.inf).any(0)
        total = log_zs.masked_fill(impossible, 0.0).sum(0) - sum(gap for _, gap in gaps)
        total = total + likelihood.expected(marginals)
        return total.masked_fill(impossible, -torch.inf)


class FactorisedAscent(Ascent):
    """States by themselves: q is ``marginals``."""

    def __init__(self, problem: Problem, likelihood: Likelihood, method: Variational) -> None:
        super().__init__(problem, likelihood, method)
        steps = torch.arange(problem.n, device=problem.x.device)
        self.valid = None if self.lengths is None else (steps < self.lengths.unsqueeze(-1)).unsqueeze(-1)
        self.moves = [_Moves(x) for x in self.transition]
        self.turns = [0] * len(self.moves)
        for i, moves in enumerate(self.moves):
            forbidden = moves.forbidden is not None or bool((self.initial[i] == -torch.inf).any())
            if forbidden and problem.start is None:
                self.marginals[i] = self._one_sequence(i)
            self.marginals[i] = self._without_padding(self.marginals[i])
            self.messages[i] = self.likelihood.message(i, self.marginals[i])

    def _one_sequence(self, i: int) -> Tensor:
        scores = self.likelihood.scores(i, self.messages, self.marginals[i]).detach()
        best = chain.argmax(scores, self.transition[i].detach(), self.initial[i].detach(), None, self.lengths)
        states = torch.arange(scores.shape[-1], device=scores.device)
        return (best.unsqueeze(-1) == states).to(scores.dtype)

    def _without_padding(self, x: Tensor) -> Tensor:
        return x if self.valid is None else torch.where(self.valid, x, 0.0)

    def _best(self, i: int) -> Tensor:
        scores = self.likelihood.scores(i, self.messages, self.marginals[i])
        first = (torch.arange(scores.shape[-2], device=scores.device) == 0).unsqueeze(-1)
        scores = scores + torch.where(first, self.initial[i].unsqueeze(-2), 0.0)
        found, keep = self.marginals[i], self.method.damping if self.turns[i] else 0.0
        self.turns[i] += 1
        for parity in (0, 1):
            here, there = found[..., parity::2, :], found[..., 1 - parity :: 2, :]
            best = softmax(
                scores[..., parity::2, :] + self.moves[i].around(there, here.shape[-2], parity), -1
            )
            best = best if not keep else (1 - keep) * best + keep * here
            found = _interleaved(best, there) if parity == 0 else _interleaved(there, best)
            found = self._without_padding(found)
        return found

    def posterior(self) -> FactorialChain:
        scores = [torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), -torch.inf) for x in self.marginals]
        still = [torch.zeros_like(x) for x in self.transition]
        return FactorialChain(scores, still, lengths=self.lengths, validate_args=False)

    def bound(self, likelihood: Likelihood, problem: Problem) -> Tensor:
        marginals, total = [], None
        impossible = torch.zeros(problem.batch, dtype=torch.bool, device=problem.x.device)
        for q, moves, first in zip(self.marginals, problem.transition, problem.initial, strict=True):
            q = self._held(q).double()
            mass = q.sum(-1, keepdim=True)
            nowhere = (mass == 0).squeeze(-1)
            if self.valid is not None:
                nowhere = nowhere & self.valid.squeeze(-1)
            impossible = impossible | nowhere.any(-1)
            q = q / torch.where(mass > 0, mass, 1.0)
            marginals.append(q)
            pairs = q[..., :-1, :].transpose(-2, -1) @ q[..., 1:, :]
            weights = [pairs, q[..., :1, :], q]
            scores = [moves.double(), first.double().unsqueeze(-2), -torch.where(q > 0, q, 1.0).log()]
            mine = inner(weights, scores, len(problem.batch))
            total = mine if total is None else total + mine
        assert total is not None
        found = total.masked_fill(impossible, 0.0) + likelihood.expected(marginals)
        return found.masked_fill(impossible, -torch.inf)


class _Moves(Tensors):
    """A chain's transitions as scores of a step given its neighbours' probabilities."""

    def __init__(self, transition: Tensor) -> None:
        forbidden = transition.detach() == -torch.inf
        self.finite = transition.masked_fill(forbidden, 0.0)
        self.forbidden = forbidden.to(transition.dtype) if bool(forbidden.any()) else None

    def around(self, neighbours: Tensor, count: int, parity: int) -> Tensor:
        """Expected scores (*b, count, k) of the moves into and out of every other step, of which
        ``neighbours`` (*b, ., k) lie between: the first step is 0 (``parity`` 0) or 1.
        """
        found = self._of(neighbours, self.finite, count, parity)
        if self.forbidden is None:
            return found
        return found.masked_fill(self._of(neighbours, self.forbidden, count, parity) > 0, -torch.inf)

    @staticmethod
    def _of(neighbours: Tensor, matrix: Tensor, count: int, parity: int) -> Tensor:
        into, out = neighbours @ matrix, neighbours @ matrix.transpose(-2, -1)
        # steps 0, 2, ..: neighbour j lies before step j + 1 and after step j; 1, 3, ..: before j, after j - 1
        before, after = (into, out) if parity else (pad(into, (0, 0, 1, 0)), out)
        after = after[..., 1:, :] if parity else after
        return _first(before, count) + _first(after, count)


def _first(x: Tensor, count: int) -> Tensor:
    """The first ``count`` rows of x (*b, ., k), zeros where it has fewer."""
    return pad(x, (0, 0, 0, count - x.shape[-2]))  # a negative number cuts


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """Rows (*b, n, k) whose even and odd ones are these."""
    both = torch.stack([even, pad(odd, (0, 0, 0, even.shape[-2] - odd.shape[-2]))], -2).flatten(-3, -2)
    return both[..., : even.shape[-2] + odd.shape[-2], :]
