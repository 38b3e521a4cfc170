"""Coordinate ascent of the mean field's bound, a chain at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from structlv.distributions.algebra import inner
from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_likelihoods import Likelihood
from structlv.distributions.inference import Problem
from structlv.distributions.parameters import Tensors, map_tensors
from structlv.ops import chain
from structlv.reference.semiring import softmax

__all__ = ["Ascent", "FactorisedAscent", "StructuredAscent"]


class Settings(Protocol):
    """What an ascent must know of its method: see ``Variational``."""

    @property
    def tolerance(self) -> float: ...

    @property
    def damping(self) -> float: ...

    @property
    def unroll(self) -> bool: ...


class Ascent(ABC):
    """q as it climbs: the chains' probabilities, and what they say to one another."""

    change: Tensor  # the largest change of a probability since the sweep began

    def __init__(self, problem: Problem, likelihood: Likelihood, method: Settings) -> None:
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

    def __init__(self, problem: Problem, likelihood: Likelihood, method: Settings) -> None:
        super().__init__(problem, likelihood, method)
        self.scores: list[Tensor | None] = [None] * len(self.initial)

    def _best(self, i: int) -> Tensor:
        new = self.likelihood.scores(i, self.messages, self.marginals[i])
        old, keep = self.scores[i], self.method.damping
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
        marginals, held, log_zs = [], [], []
        for scores, moves, first in zip(self.scores, problem.transition, problem.initial, strict=True):
            assert scores is not None
            held.append(self._held(scores).double())
            args = (held[-1], moves.double(), first.double(), None, self.lengths)
            log_zs.append(chain.log_partition(*args, as_double=True))
            marginals.append(self._held(chain.state_marginals(*args)))
        log_z = torch.stack(log_zs)
        impossible = (log_z == -torch.inf).any(0)
        total = log_z.masked_fill(impossible, 0.0).sum(0) - inner(marginals, held, impossible.dim())
        total = total + likelihood.expected(marginals)
        return total.masked_fill(impossible, -torch.inf)


class FactorisedAscent(Ascent):
    """States by themselves: q is ``marginals``."""

    def __init__(self, problem: Problem, likelihood: Likelihood, method: Settings) -> None:
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
