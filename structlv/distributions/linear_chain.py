"""The linear chain: sequences of states with scores on states and on neighbouring pairs."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributions import constraints

from structlv.distributions.base import StructuredDistribution
from structlv.distributions.chain_checks import check_shapes, check_values, require_same_states
from structlv.distributions.constraints import StateSequence
from structlv.distributions.evidence import conditioned
from structlv.distributions.relaxations import Temperature
from structlv.distributions.traces import Choices, Trace, log_softmax
from structlv.distributions.validation import (
    checked_lengths,
    is_eager,
    require_events,
    require_labels,
    uniform_floats,
)
from structlv.ops import chain
from structlv.ops.noise import gumbel

Self = TypeVar("Self", bound="LinearChain")
_NEG_INF = -math.inf


class ChainParts(NamedTuple):
    """One number for each part of a chain: marginals, max-marginals, counts or scores.

    Attributes:
        unary: (*b, n, k), state i at step t.
        transition: (*b, n-1, k, k), the pair (i, j) at steps t, t+1; or (*b, k, k) summed over (for
            max-marginals: the best of) the steps, where one transition matrix serves all of them.
    """

    unary: Tensor
    transition: Tensor


class LinearChain(StructuredDistribution):
    """Distribution over sequences of states z_1..z_n from scores of states and of neighbours (a CRF).

    p(z) = exp(score(z)) / Z, with score(z) = initial[z_1] + final[z_n] + sum_t unary[t, z_t] + sum_t
    transition[z_t, z_t+1]. Potentials are taken as they are, in nats; nothing is normalised. An event is a
    sequence of states, (*b, n) int64, and -1 past its end. A chain of length 0 has one empty structure of
    score 0.

    Every query costs O(b n k^2) time and O(b n k) memory, whatever is shared; ``topk`` costs O(k_best)
    times that. Forward-backward: Rabiner (1989), "A tutorial on hidden Markov models", section III;
    conditional random fields: Lafferty, McCallum and Pereira (2001), section 3.

    Args:
        unary: (*b, n, k) scores of state i at step t.
        transition: scores of state i followed by state j, ``[..., i, j]``. (*b, k, k) for one matrix at all
            steps (it may have fewer batch dimensions, or singletons: a shared matrix is never copied); (*b,
            n-1, k, k) for one per step, exactly when it has one dimension more than ``unary``.
        initial: (*b, k) scores of the first state, or None.
        final: (*b, k) scores of the last state, or None.
        lengths: (*b) integers in 0..n, or None where every chain has n states. What is stored past the end
            of a chain changes nothing: no value, no gradient.
        validate_args: whether to check values (lengths, NaN, labels); None for structlv's default (on).

    Raises:
        TypeError: an argument is not a tensor of the right kind, or float dtypes are mixed (outside
            autocast).
        ValueError: shapes or devices do not fit together, k is 0, a length is out of range, a potential is
            NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "unary": constraints.independent(constraints.real, 2),
        "transition": constraints.independent(constraints.real, 2),
        "initial": constraints.real_vector,
        "final": constraints.real_vector,
        "lengths": constraints.nonnegative_integer,
    }
    _parameters = ("unary", "transition", "initial", "final", "lengths")
    _full = ("unary", "lengths")

    def __init__(
        self,
        unary: Tensor,
        transition: Tensor,
        *,
        initial: Tensor | None = None,
        final: Tensor | None = None,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        unary, transition, initial, final = uniform_floats(
            unary=unary, transition=transition, initial=initial, final=final
        )
        if lengths is not None:
            lengths = checked_lengths(lengths, "unary", unary)
        batch, per_step = check_shapes(unary, transition, initial, final, lengths)
        if unary.shape[:-2] != batch:
            unary = unary.expand(batch + unary.shape[-2:])
        if per_step and transition.dim() <= unary.dim():
            transition = transition[(None,) * (unary.dim() + 1 - transition.dim())]
        if lengths is not None and lengths.shape != batch:
            lengths = lengths.expand(batch)
        self.unary, self.transition, self.initial, self.final = unary, transition, initial, final
        self.lengths = lengths
        self._per_step = per_step
        self._batch_shape = batch
        self._event_shape = unary.shape[-2:-1]
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(unary):
            check_values(self)

    # ---- structure-specific queries --------------------------------------------------------------------

    def marginals(self) -> ChainParts:
        """p(z_t = i) (*b, n, k), and the expected number of transitions from i to j: (*b, k, k) summed over
        steps where ``transition`` serves all steps, else p(z_t = i, z_t+1 = j) (*b, n-1, k, k).
        Differentiable once.
        """
        return ChainParts(*chain.marginals(*self._args))

    def state_marginals(self) -> Tensor:
        """p(z_t = i) alone, (*b, n, k): less work than ``marginals()`` for large k. Differentiable once."""
        return chain.state_marginals(*self._args)

    def edge_marginals(self) -> Tensor:
        """p(z_t = i, z_t+1 = j), always per step: (*b, n-1, k, k). Differentiable once."""
        return chain.marginals(*self._args, edges=True)[1]

    def max_marginals(self) -> ChainParts:
        """The best score of any structure that uses a part; -inf where there is none, and in padding.

        For one transition matrix at all steps the transition's is (*b, k, k), the best over steps. Not
        differentiable.
        """
        return ChainParts(*chain.max_marginals(*self._args))

    def argmax(self) -> Tensor:
        """The best sequence (Viterbi), (*b, n) int64, -1 in padding; all -1 where none is possible."""
        return chain.argmax(*self._args)

    def posterior_decode(self) -> Tensor:
        """The most probable state at each step by itself, (*b, n) int64: the fewest expected wrong states.

        It minimises the expected Hamming distance to z (minimum Bayes risk), and may be a sequence of
        probability 0. -1 in padding, and everywhere where no sequence is possible.
        """
        unary = self.state_marginals().detach()
        return unary.argmax(-1).masked_fill((unary == 0).all(-1), -1)

    def filter(self) -> Tensor:
        """log p(z_t = i | potentials of steps up to t) (*b, n, k): what is known without looking ahead.

        ``final`` is not used. Rows are -inf where nothing is possible, and in padding. Differentiable once.
        """
        return chain.filter(*self._args)

    def condition(  # type: ignore[override]
        self: Self,
        *,
        states: Tensor | None = None,
        allowed: Tensor | None = None,
        allowed_transitions: Tensor | None = None,
        allowed_initial: Tensor | None = None,
        allowed_final: Tensor | None = None,
    ) -> Self:
        """The chain restricted to the evidence; its log Z minus this one's is log p(evidence).

        Args:
            states: (*b, n) integers, the state of each step where it is known, -1 where it is free.
            allowed: (*b, n, k) bool, the states that a step may be in.
            allowed_transitions: bool, the pairs that may follow one another: (*b, k, k), or (*b, n-1, k, k)
                per step (with one dimension more than ``unary``).
            allowed_initial: (*b, k) bool, the states that a chain may start in.
            allowed_final: (*b, k) bool, the states that a chain may end in.

        ``structlv.tagging_constraints`` builds the last three for BIO and BILOU tags.
        """
        return conditioned(self, states, allowed, allowed_transitions, allowed_initial, allowed_final)

    def to_parts(self, event: Tensor) -> ChainParts:
        """How often each part occurs in ``event`` (*s, *b, n): the shapes of ``marginals()`` after (*s)."""
        event = self._checked_event(event)
        padding = self._padding()
        if padding is not None:
            event = event.masked_fill(padding, -1)
        states = torch.arange(self.unary.shape[-1], device=event.device)
        unary = (event.unsqueeze(-1) == states).to(self._dtype)
        return self._soft_parts(unary)

    def from_parts(self, parts: Any) -> Tensor:
        """The sequence (*s, *b, n) whose states ``parts.unary`` counts; -1 where it counts none."""
        unary = parts[0]
        require_events("parts.unary", unary, "(*b, n, k)", *self.unary.shape[-2:])
        return unary.argmax(-1).masked_fill((unary == 0).all(-1), -1)

    @property
    def support(self) -> StateSequence:
        """Sequences of n states in 0..k-1."""
        return StateSequence(self.unary.shape[-1], self.unary.shape[-2], self.lengths)

    # ---- hooks -----------------------------------------------------------------------------------------

    @property
    def _args(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        return self.unary, self.transition, self.initial, self.final, self.lengths

    @property
    def _dtype(self) -> torch.dtype:
        return self.unary.dtype

    def _log_partition(self, *, as_double: bool) -> Tensor:
        return chain.log_partition(*self._args, as_double=as_double)

    def _best(self, k: int) -> Tensor:
        return chain.topk(*self._args, k=k)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        return chain.sample(*self._args, num_samples=num_samples, seed=seed)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        return chain.sample_distinct(*self._args, k=k, seed=seed)

    def _score(self, event: Tensor) -> Tensor:
        return chain.score(event, *self._args)

    def _part_scores(self) -> ChainParts:
        unary, steps = self.unary, torch.arange(self.unary.shape[-2], device=self.unary.device)
        if self.initial is not None:
            unary = unary + torch.where((steps == 0).unsqueeze(-1), self.initial.unsqueeze(-2), 0.0)
        if self.final is not None:
            last = (steps.numel() if self.lengths is None else self.lengths.unsqueeze(-1)) - 1
            unary = unary + torch.where((steps == last).unsqueeze(-1), self.final.unsqueeze(-2), 0.0)
        return ChainParts(unary, self.transition)

    def _event_dims(self, name: str) -> int:
        return {"unary": 2, "transition": 3 if self._per_step else 2, "lengths": 0}.get(name, 1)

    def _rebuild(self: Self, **parameters: Any) -> Self:
        missing = parameters["unary"].dim() + 1 - parameters["transition"].dim()
        if self._per_step and missing > 0:
            parameters["transition"] = parameters["transition"][(None,) * missing]
        return type(self)(**parameters, validate_args=False)

    def _aligned(self: Self, other: Self) -> tuple[Self, Self]:
        if self._per_step == other._per_step:
            return self, other
        return self._stepwise(), other._stepwise()

    def _perturbed(self: Self, num_samples: int, seed: int) -> Self:
        noise = gumbel(self.unary, event_dims=2, num_samples=num_samples, seed=seed)
        return self.expand((num_samples, *self._batch_shape))._plus(unary=noise)

    def _relaxed_sample(
        self, num_samples: int, seed: int, temperature: Temperature, alpha: float
    ) -> tuple[Tensor, Any]:
        if alpha != 1:
            return super()._relaxed_sample(num_samples, seed, temperature, alpha)
        heat = self._checked_temperature(temperature)
        if isinstance(heat, Tensor):
            heat = heat.expand(self._batch_shape)
        else:
            heat = self.unary.new_full(self._batch_shape, heat)
        states, relaxed = chain.relaxed_sample(
            *self._args, temperature=heat, num_samples=num_samples, seed=seed
        )
        return states, self._soft_parts(relaxed)

    def _trace(self, event: Tensor) -> Trace:
        """From the last state to the first: p(z_t | z_t+1, scores of steps up to t)."""
        n, k = self.unary.shape[-2:]
        logits = self.filter().expand(*event.shape, k)
        if n > 0:
            index = event.clamp(min=0).unsqueeze(-1)[..., 1:, :].expand(*event.shape[:-1], n - 1, k)
            into = self.transition.mT  # rows by the later state
            if self._per_step:
                steps = (
                    into.expand(*event.shape[:-1], n - 1, k, k).gather(-2, index.unsqueeze(-2)).squeeze(-2)
                )
            else:
                steps = into.expand(*event.shape[:-1], k, k).gather(-2, index)
            follows = (event[..., 1:] >= 0).unsqueeze(-1)
            logits = logits + torch.nn.functional.pad(torch.where(follows, steps, 0.0), (0, 0, 0, 1))
            if self.final is not None:
                last = (event >= 0) & torch.nn.functional.pad(event[..., 1:] < 0, (0, 1), value=True)
                logits = logits + torch.where(last.unsqueeze(-1), self.final.unsqueeze(-2), 0.0)
        logits = log_softmax(logits.masked_fill((event < 0).unsqueeze(-1), -torch.inf))
        return Trace([Choices(logits, event, backwards=True)], lambda weights: self._soft_parts(weights[0]))

    def _soft_parts(self, states: Tensor) -> ChainParts:
        """Parts of independent states with these weights (*s, *b, n, k)."""
        if self._per_step:
            return ChainParts(states, states[..., :-1, :, None] * states[..., 1:, None, :])
        return ChainParts(states, chain.pairs(states))

    def _moved(self: Self, parts: Any) -> Self:
        return self._plus(unary=parts[0], transition=parts[1])

    # ---- helpers ---------------------------------------------------------------------------------------

    def _padding(self) -> Tensor | None:
        """(*b, n) bool, the steps past the end of each chain; None where there are none."""
        if self.lengths is None:
            return None
        steps = torch.arange(self.unary.shape[-2], device=self.unary.device)
        return steps >= self.lengths.unsqueeze(-1)

    def _stepwise(self: Self) -> Self:
        """The same chain with one transition matrix per step (a view)."""
        if self._per_step:
            return self
        n, k = self.unary.shape[-2:]
        lead = (1,) * (self.unary.dim() - self.transition.dim())
        batch = lead + tuple(self.transition.shape[:-2])
        steps = self.transition.reshape(*batch, 1, k, k).expand(*batch, max(n - 1, 0), k, k)
        return type(self)(
            self.unary,
            steps,
            initial=self.initial,
            final=self.final,
            lengths=self.lengths,
            validate_args=False,
        )

    def _check_same_structures(self, q: Any) -> None:
        super()._check_same_structures(q)
        require_same_states(self, q)

    def _check_labels(self, event: Tensor) -> None:
        padding = self._padding()
        labels = event if padding is None else event.masked_fill(padding, -1)
        require_labels("states", labels, -1, self.unary.shape[-1] - 1)
