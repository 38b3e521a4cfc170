"""Factorial chains: several chains of states that meet in their scores of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.distributions import constraints

from structlv.distributions.base import StructuredDistribution
from structlv.distributions.constraints import StateSequences
from structlv.distributions.factorial_checks import check_shapes, one_dtype, require_same_chains, tensors
from structlv.distributions.factorial_evidence import conditioned
from structlv.distributions.factorial_parts import FactorialParts, ravel
from structlv.distributions.linear_chain import LinearChain
from structlv.distributions.traces import Trace
from structlv.distributions.validation import checked_lengths, is_eager, require_events, require_labels

Self = TypeVar("Self", bound="FactorialChain")


class FactorialChain(StructuredDistribution):
    """Distribution over the states of m chains at n steps, from scores of steps and of each chain's moves.

    p(z) = exp(score(z)) / Z, with score(z) = sum_t unary[t, z^1_t, ..., z^m_t] + sum_i (initial_i[z^i_1] +
    sum_t transition_i[z^i_t, z^i_t+1]). The chains move independently of one another and meet in the scores
    of a step: the posterior of a factorial hidden Markov model. Potentials are taken as they are, in nats;
    nothing is normalised. An event is (*b, m, n) int64, the sequence of states of each chain, and -1 past
    its end. A length of 0 has one empty structure of score 0.

    The kind of ``unary`` decides the class of the object that is made. A tensor scores the states of all
    chains jointly: with S = prod_i k_i joint states, queries take O(b n S sum_i k_i) time and O(b n S)
    memory, one chain moving at a time (Ghahramani and Jordan 1997, "Factorial hidden Markov models",
    appendix B); ``max_marginals``, ``topk`` and ``filter`` go through the chain on joint states, O(b n
    S^2). A sequence of tensors scores each chain by itself: then the chains are independent, every query is
    the chains' own, and nothing of size S is formed (but by ``filter`` and ``to_chain``).

    Args:
        unary: (*b, n, k_1, ..., k_m) scores of the chains' states at step t, or a sequence of one tensor
            (*b, n, k_i) for each chain.
        transition: for each chain (*b, k_i, k_i), scores of state i followed by state j, ``[..., i, j]``;
            fewer or singleton batch dimensions where shared: a shared matrix is never copied.
        initial: for each chain (*b, k_i) scores of its first state, or None.
        lengths: (*b) integers in 0..n, or None where all have n steps. What is stored past the end changes
            nothing: no value, no gradient.
        validate_args: whether to check values (lengths, NaN, labels); None for structlv's default (on).

    Attributes:
        sizes: (k_1, ..., k_m).

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together, a k is 0, a length is out of range, a potential is
            NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "lengths": constraints.nonnegative_integer
    }
    _parameters = ("unary", "transition", "initial", "lengths")
    _full = ("unary", "lengths")
    _kinds: ClassVar[dict[bool, type[FactorialChain]]] = {}

    def __init_subclass__(cls, joint: bool, **options: Any) -> None:
        """``class Kind(FactorialChain, joint=True)`` is what ``FactorialChain`` makes of joint scores."""
        super().__init_subclass__(**options)
        FactorialChain._kinds[joint] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> FactorialChain:
        if cls is not FactorialChain:
            return super().__new__(cls)
        unary = kwargs["unary"] if "unary" in kwargs else args[0] if args else None
        return super().__new__(FactorialChain._kinds[isinstance(unary, Tensor)])

    def __init__(
        self,
        unary: Tensor | Sequence[Tensor],
        transition: Sequence[Tensor],
        *,
        initial: Sequence[Tensor] | None = None,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        scores = unary if isinstance(unary, Tensor) else tensors("unary", unary)
        moves = tensors("transition", transition)
        first = None if initial is None else tensors("initial", initial)
        self.unary, self.transition, self.initial = one_dtype(unary=scores, transition=moves, initial=first)
        self.lengths = None if lengths is None else checked_lengths(lengths, "unary", self._any_unary)
        self.sizes, n, self._batch_shape = check_shapes(
            self.unary, self.transition, self.initial, self.lengths
        )
        self._event_shape = torch.Size((len(self.sizes), n))
        self._expand_full()
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(self._any_unary):
            self._check_values()

    unary: Any
    transition: tuple[Tensor, ...]
    initial: tuple[Tensor, ...] | None
    lengths: Tensor | None
    sizes: tuple[int, ...]

    # ---- queries that differ between the two kinds -----------------------------------------------------

    def marginals(self) -> FactorialParts:
        """Probabilities of each chain's states (*b, n, k_i), of its moves, the sum over the steps of
        p(z^i_t = a, z^i_t+1 = b) (*b, k_i, k_i), and of joint states (*b, n, k_1, ..., k_m) (None where
        scores are per chain).

        0 in padding and where no structure is possible. Differentiable once.
        """
        raise NotImplementedError

    def edge_marginals(self) -> tuple[Tensor, ...]:
        """p(z^i_t = a, z^i_t+1 = b) of each chain, per step: (*b, n-1, k_i, k_i). Differentiable once."""
        raise NotImplementedError

    def pair_marginals(self, i: int, j: int) -> Tensor:
        """p(z^i_t = a, z^j_t = b) of two different chains, (*b, n, k_i, k_j). Differentiable once."""
        raise NotImplementedError

    def joint(self) -> FactorialChain:
        """The same distribution by joint scores; of per-chain scores their sums, (*b, n, k_1, ..., k_m)."""
        raise NotImplementedError

    # ---- queries ---------------------------------------------------------------------------------------

    def argmax(self) -> Tensor:
        """The best states, (*b, m, n) int64, -1 in padding; all -1 where none is possible."""
        return self._argmax()

    def posterior_decode(self) -> Tensor:
        """The most probable state of each chain at each step by itself, (*b, m, n) int64: minimum Bayes risk.

        It may be a structure of probability 0. -1 in padding, and everywhere where no structure is possible.
        """
        return self.detach().from_parts(self.detach().marginals())

    def filter(self) -> Tensor:
        """log p(z_t | potentials of steps up to t), (*b, n, k_1, ..., k_m): without looking ahead.

        Rows are -inf where nothing is possible, and in padding. Differentiable once. O(b n S^2) time.
        """
        return self.to_chain().filter().unflatten(-1, self.sizes)

    def to_chain(self) -> LinearChain:
        """The same distribution over sequences of joint states 0..S-1, the last chain's state fastest: a
        ``LinearChain`` with an S x S matrix of transitions.
        """
        return self.joint().to_chain()

    def condition(  # type: ignore[override]
        self: Self, *, states: Tensor | None = None, allowed: Sequence[Tensor] | None = None
    ) -> Self:
        """The distribution restricted to the evidence; its log Z minus this one's is log p(evidence).

        Args:
            states: (*b, m, n) integers, the state of each chain where it is known, -1 where it is free.
            allowed: for each chain (*b, n, k_i) bool, the states that it may be in at each step.
        """
        return conditioned(self, states, allowed)

    def to_parts(self, event: Tensor) -> FactorialParts:
        """How often each part occurs in events (*s, *b, m, n): the shapes of ``marginals()`` after (*s)."""
        event = self._without_padding(self._checked_event(event))
        unary, moves = [], []
        for states, k in zip(event.unbind(-2), self.sizes, strict=True):
            row = (states.unsqueeze(-1) == torch.arange(k, device=event.device)).to(self._dtype)
            unary.append(row)
            moves.append(row[..., :-1, :].transpose(-2, -1) @ row[..., 1:, :])
        return FactorialParts(tuple(unary), tuple(moves), self._joint_counts(event))

    def from_parts(self, parts: Any) -> Tensor:
        """The states (*s, *b, m, n) that ``parts.unary`` counts; -1 where it counts none."""
        found = []
        for i, (unary, k) in enumerate(zip(parts[0], self.sizes, strict=True)):
            require_events(f"parts.unary[{i}]", unary, "(*b, n, k)", self._event_shape[-1], k)
            found.append(unary.argmax(-1).masked_fill((unary == 0).all(-1), -1))
        return torch.stack(found, -2)

    @property
    def support(self) -> StateSequences:
        """m sequences of n states, of chain i in 0..k_i-1."""
        return StateSequences(self.sizes, self._event_shape[-1], self.lengths)

    # ---- hooks: those that raise are for the two kinds to supply -------------------------------------

    def max_marginals(self) -> FactorialParts:
        raise NotImplementedError

    def _log_partition(self, *, as_double: bool) -> Tensor:
        raise NotImplementedError

    def _best(self, k: int) -> Tensor:
        raise NotImplementedError

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        raise NotImplementedError

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _score(self, event: Tensor) -> Tensor:
        raise NotImplementedError

    def _part_scores(self) -> FactorialParts:
        raise NotImplementedError

    def _argmax(self) -> Tensor:
        """``argmax()``, in which both kinds are one kind of distribution."""
        raise NotImplementedError

    def _check_values(self) -> None:
        """``ValueError`` where a length is out of range or a potential that counts is NaN (eager only)."""
        raise NotImplementedError

    def _joint_counts(self, event: Tensor) -> Tensor | None:
        """How often each joint state occurs, from events with -1 in padding."""
        raise NotImplementedError

    def _perturbed(self: Self, num_samples: int, seed: int) -> Self:
        raise NotImplementedError

    def _unary_moves(self, parts: Any) -> Any:
        """What ``parts`` adds to ``unary``."""
        raise NotImplementedError

    @property
    def _any_unary(self) -> Tensor:
        return self.unary if isinstance(self.unary, Tensor) else self.unary[0]

    @property
    def _dtype(self) -> torch.dtype:
        return self._any_unary.dtype

    def _event_dims(self, name: str) -> int:
        per_step = 1 + len(self.sizes) if isinstance(self.unary, Tensor) else 2
        return {"unary": per_step, "transition": 2, "initial": 1, "lengths": 0}[name]

    def _rebuild(self: Self, **parameters: Any) -> Self:
        return type(self)(**parameters, validate_args=False)

    def _trace(self, event: Tensor) -> Trace:
        """That of the chain of all joint states."""
        chains: Any = self.joint()
        trace = chains.to_chain()._trace(ravel(event, self.sizes))

        def parts(weights: list[Tensor]) -> FactorialParts:
            joint = weights[0].unflatten(-1, self.sizes)
            states = chains._of_chains(joint)
            edges = tuple(x[..., :-1, :].mT @ x[..., 1:, :] for x in states)
            return FactorialParts(states, edges, joint if isinstance(self.unary, Tensor) else None)

        return Trace(trace.choices, parts)

    def _moved(self: Self, parts: Any) -> Self:
        return self._plus(unary=self._unary_moves(parts), transition=tuple(parts[1]))

    def _aligned(self, other: Any) -> Any:
        return (self, other) if type(self) is type(other) else (self.joint(), other.joint())

    # ---- helpers ---------------------------------------------------------------------------------------

    def _expand_full(self) -> None:
        """What always carries the whole batch shape is made to: views."""
        batch = self._batch_shape

        def full(x: Tensor, event: int) -> Tensor:
            split = x.dim() - event
            return x if x.shape[:split] == batch else x.expand(batch + x.shape[split:])

        if isinstance(self.unary, Tensor):
            self.unary = full(self.unary, 1 + len(self.sizes))
        else:
            self.unary = tuple(full(x, 2) for x in self.unary)
        self.lengths = None if self.lengths is None else full(self.lengths, 0)

    def _without_padding(self, event: Tensor) -> Tensor:
        """``event`` with -1 past the end of each item."""
        if self.lengths is None:
            return event
        steps = torch.arange(self._event_shape[-1], device=event.device)
        return event.masked_fill((steps >= self.lengths.unsqueeze(-1)).unsqueeze(-2), -1)

    def _check_same_structures(self, q: Any) -> None:
        super()._check_same_structures(q)
        require_same_chains(self, q, self._validate_args and is_eager(self._any_unary))

    def _check_labels(self, event: Tensor) -> None:
        for i, (states, k) in enumerate(
            zip(self._without_padding(event).unbind(-2), self.sizes, strict=True)
        ):
            require_labels(f"states of chain {i}", states, -1, k - 1)
