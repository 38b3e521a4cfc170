"""The hidden Markov model."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, constraints

from structlv.distributions.emissions import (
    CategoricalEmission,
    DistributionEmission,
    Emission,
    normalized_table,
)
from structlv.distributions.filtering import FilterState, filter_step
from structlv.distributions.hmm_checks import check_parameters
from structlv.distributions.linear_chain import LinearChain
from structlv.distributions.markov import stationary_distribution, with_stop
from structlv.distributions.observations import observations
from structlv.distributions.parameters import ParameterizedDistribution
from structlv.distributions.seeding import draw_seed
from structlv.distributions.validation import is_eager, require_no_nan
from structlv.ops import chain
from structlv.reference.semiring import log_normalize

Self = TypeVar("Self", bound="HMM")


class HMM(ParameterizedDistribution):
    """Distribution over observation sequences x_1..x_n whose hidden states z_1..z_n form a Markov chain.

    p(x) = sum_z p(z_1) p(x_1 | z_1) prod_t p(z_t+1 | z_t) p(x_t+1 | z_t+1) [p(stop | z_n)]. The initial
    distribution is that of z_1, the state of the first observation. Without ``final_logits`` the length is
    given, not modelled; with them each state's row of transition logits gets one more outcome, stopping,
    and p(x) includes it. Logits are normalised here; a row that is all -inf stays so. Everything is in
    nats.

    ``batch_shape`` is *b; ``event_shape`` is that of one observation, so that x is (*b, n, *event_shape)
    for any n.

    ``log_prob``, ``posterior``, ``filter`` and ``predict`` take ``lengths`` (*b), integers in 0..n, for
    right-padded batches, and ``mask`` (*b, n) bool, False where an observation is missing (it is summed
    over). What x holds in padding or where it is missing changes nothing, NaN included. O(b n k^2) time,
    O(b n k) memory. Rabiner (1989), "A tutorial on hidden Markov models", section III.

    Args:
        initial_logits: (*b, k), of the first state.
        transition_logits: of state j after state i, ``[..., i, j]``. (*b, k, k) for one matrix at all
            steps, with fewer batch dimensions or singletons where shared; (*b, n-1, k, k) for one per step,
            exactly when it has two dimensions more than ``initial_logits``: then sequences have at most n
            observations.
        emission: logits (*b, k, v) of symbols 0..v-1 in each state, or any
            ``torch.distributions.Distribution`` with batch shape (*b, k). (Where its support differs between
            states, give it ``validate_args=False``: torch refuses values outside the support of any.)
        final_logits: (*b, k), of stopping after each state, normalised together with its transition logits;
            at the end of per-step transitions only stopping is left. None where the length is given.
        validate_args: whether to check values (NaN, symbols, lengths); None for structlv's default (on).

    Attributes:
        initial_logits, transition_logits, emission, final_logits: normalised log-probabilities (the
            Distribution as it is); ``final_logits`` is (*b, n, k) where the transitions are per step.

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together, k is 0, a logit is NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "initial_logits": constraints.real_vector,
        "transition_logits": constraints.independent(constraints.real, 2),
        "final_logits": constraints.real_vector,
    }
    _parameters = ("initial_logits", "transition_logits", "emission", "final_logits")
    _full = ("initial_logits",)

    def __init__(
        self,
        initial_logits: Tensor,
        transition_logits: Tensor,
        emission: Tensor | Distribution,
        *,
        final_logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        initial, transition, emission, final, batch, per_step = check_parameters(
            initial_logits, transition_logits, emission, final_logits
        )
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(initial):
            require_no_nan(
                initial_logits=initial, transition_logits=transition, emission=emission, final_logits=final
            )
        table = normalized_table(emission) if isinstance(emission, Tensor) else emission
        transition, final = with_stop(transition, final, per_step)
        self._assign(log_normalize(initial), transition, table, final, batch, per_step)

    def _assign(
        self,
        initial: Tensor,
        transition: Tensor,
        emission: Tensor | Distribution,
        final: Tensor | None,
        batch: Size,
        per_step: bool,
    ) -> None:
        missing = len(batch) + 3 - transition.dim() if per_step else 0
        self.initial_logits = (
            initial if initial.shape[:-1] == batch else initial.expand(batch + initial.shape[-1:])
        )
        self.transition_logits = transition[(None,) * missing] if missing > 0 else transition
        self.emission, self.final_logits, self._per_step = emission, final, per_step
        self._batch_shape, self._event_shape = batch, self._emission.event_shape

    # ---- queries ---------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """log p(x), (*b), for observations (*b, n, *event_shape); differentiable twice.

        Raises:
            TypeError: x is not of the emission's kind (symbols are integers).
            ValueError: its shape, a symbol, a length or the mask does not fit.
        """
        return self.posterior(x, lengths, mask).log_partition()

    def posterior(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> LinearChain:
        """p(z | x) as a ``LinearChain`` whose log-partition is log p(x). Arguments as ``log_prob``."""
        emission = self._emission
        seen = observations(self, emission, x, lengths, mask)
        self._require_steps(seen.n, f"x: {seen.n} observations")
        unary = emission.log_likelihood(x, seen.observed)
        transition = self.transition_logits
        if self._per_step:
            transition = transition[..., : max(seen.n - 1, 0), :, :]
            transition = transition[(None,) * (len(seen.batch) + 3 - transition.dim())]
        return LinearChain(
            unary.expand(seen.batch + unary.shape[-2:]),
            transition,
            initial=self.initial_logits,
            final=self._stop_scores(seen.n, seen.lengths),
            lengths=seen.lengths,
            validate_args=self._validate_args,
        )

    def filter(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """log p(z_t = i | x_1..x_t), (*b, n, k), -inf in padding: no looking ahead. Differentiable once."""
        return self.posterior(x, lengths, mask).filter()

    def filter_step(self, state: FilterState | None, x: Tensor, mask: Tensor | None = None) -> FilterState:
        """The next row of ``filter``, as its observation arrives: ``state.states`` (*b, k).

        O(b k^2) time and O(b k) memory a step. Differentiable (detach the states to forget what was before).

        Args:
            state: what the observations before have told; None at the first.
            x: (*b, *event_shape), one observation of each stream.
            mask: (*b) bool, False where it is missing; None where none is.

        Raises:
            TypeError: x is not of the emission's kind.
            ValueError: its shape or a symbol does not fit, or per-step transitions have come to their end.
        """
        emission, step = self._emission, 0 if state is None else state.steps
        split = x.dim() - len(emission.event_shape) if isinstance(x, Tensor) else 0
        if split < 0:
            raise ValueError(
                f"x must have shape (*b, *{tuple(emission.event_shape)}), found {tuple(x.shape)}"
            )
        one = x.unsqueeze(split) if isinstance(x, Tensor) else x
        seen = observations(self, emission, one, None, None if mask is None else mask.unsqueeze(-1))
        self._require_steps(step + 1, f"filter_step: {step + 1} observations")
        unary = emission.log_likelihood(one, seen.observed).squeeze(-2)
        transition = self.transition_logits
        if self._per_step:
            transition = transition[..., max(step - 1, 0), :, :]
        return filter_step(state, unary.expand(*seen.batch, unary.shape[-1]), transition, self.initial_logits)

    def predict(
        self, x: Tensor, steps: int, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """log p(z_n+s = i | x_1..x_n) for s = 1..steps, (*b, steps, k): the states after the last
        observation.

        With ``final_logits``, given that the sequence goes on for that long. Differentiable once.

        Raises:
            ValueError: steps < 1, or beyond the last of per-step transitions.
        """
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a positive integer, found {steps!r}")
        known = self.posterior(x, lengths, mask)
        n, k = known.unary.shape[-2:]
        self._require_steps(n + steps, f"predict: {n} observations and {steps} steps")
        # Steps ahead are steps whose observations are missing.
        unary = torch.cat([known.unary, known.unary.new_zeros(*known.batch_shape, steps, k)], -2)
        transition = known.transition
        if self._per_step:
            transition = self.transition_logits[..., : n + steps - 1, :, :]
            transition = transition[(None,) * (unary.dim() + 1 - transition.dim())]
        ends = None if known.lengths is None else known.lengths + steps
        states = chain.filter(unary, transition, self.initial_logits, None, ends)
        if known.lengths is None:
            return states[..., n:, :]
        ahead = known.lengths.unsqueeze(-1) + torch.arange(steps, device=x.device)
        return states.take_along_dim(ahead.unsqueeze(-1), -2)

    def stationary(self) -> Tensor:
        """The probabilities pi (*b, k) with pi P = pi of a chain that runs forever; differentiable, O(k^3).

        Raises:
            ValueError: it is not unique, transitions are per step, or ``final_logits`` let the chain stop.
        """
        if self._per_step:
            raise ValueError(
                "stationary: transitions are per step, and only a single matrix has such a distribution"
            )
        if self.final_logits is not None:
            raise ValueError(
                "stationary: with final_logits the chain stops, and no distribution is stationary"
            )
        return stationary_distribution(self.transition_logits)

    def sample(
        self,
        sample_shape: Size | list[int] | tuple[int, ...] = (),
        length: int | None = None,
        *,
        with_states: bool = False,
        generator: Generator | None = None,
    ) -> Any:
        """Sequences of ``length`` observations, (*sample_shape, *b, length, *event_shape).

        Args:
            sample_shape: of independent samples.
            length: n; None for as many as per-step transitions allow. With ``final_logits``, samples are
                given that the sequence stops there.
            with_states: whether to return (observations, states); states are (*sample_shape, *b, length).
            generator: draws the seed; None for torch's default CPU generator. (Not under ``torch.compile``.)

        Raises:
            ValueError: length is missing, negative, or beyond the last of per-step transitions.
        """
        n = self._sample_length(length)
        shape = torch.Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        seed = draw_seed(generator)
        states = self._prior(n)._sample(shape.numel(), seed)
        states = states.reshape(shape + self._batch_shape + (n,))
        x = self._emission.sample(states, self._batch_shape, seed)
        return (x, states) if with_states else x

    @property
    def support(self) -> constraints.Constraint:
        """Sequences of what the emission emits."""
        if isinstance(self.emission, Tensor):
            return constraints.independent(constraints.integer_interval(0, self.emission.shape[-1] - 1), 1)
        return constraints.independent(self.emission.support, 1)

    # ---- helpers ---------------------------------------------------------------------------------------

    @property
    def _emission(self) -> Emission:
        if isinstance(self.emission, Tensor):
            return CategoricalEmission(self.emission)
        return DistributionEmission(self.emission)

    def _stop_scores(self, n: int, lengths: Tensor | None) -> Tensor | None:
        """Log-probability (*b, k) of stopping after each state at the end of each sequence."""
        final = self.final_logits
        if final is None or not self._per_step:
            return final
        if lengths is None:
            return final[..., max(n - 1, 0), :]
        last = (lengths - 1).clamp_min(0).reshape(*lengths.shape, 1, 1)
        return final.expand(lengths.shape + final.shape[-2:]).take_along_dim(last, -2).squeeze(-2)

    def _prior(self, n: int) -> LinearChain:
        """p(z_1..z_n)."""
        initial, transition = self.initial_logits, self.transition_logits
        unary = initial.new_zeros(()).expand(*self._batch_shape, n, initial.shape[-1])
        transition = transition[..., : max(n - 1, 0), :, :] if self._per_step else transition
        final = self._stop_scores(n, None)
        return LinearChain(unary, transition, initial=initial, final=final, validate_args=False)

    def _sample_length(self, length: int | None) -> int:
        if length is None:
            if not self._per_step:
                raise ValueError("sample needs length, the number of observations")
            return self.transition_logits.shape[-3] + 1
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"length must be a non-negative integer, found {length!r}")
        self._require_steps(length, f"sample: length {length}")
        return length

    def _require_steps(self, n: int, what: str) -> None:
        if self._per_step and n > self.transition_logits.shape[-3] + 1:
            available = self.transition_logits.shape[-3]
            raise ValueError(
                f"{what} need {n - 1} transitions, but transition_logits are per step: there are {available}"
            )

    def _event_dims(self, name: str) -> int:
        steps = int(self._per_step)
        return {
            "initial_logits": 1,
            "transition_logits": 2 + steps,
            "emission": 2,
            "final_logits": 1 + steps,
        }[name]

    def _rebuild(self: Self, **parameters: Any) -> Self:
        new = type(self).__new__(type(self))  # past the constructor: the parameters are normalised already
        initial, transition, emission, final = (parameters[name] for name in self._parameters)
        new._assign(initial, transition, emission, final, initial.shape[:-1], self._per_step)
        return new

    def _item(self, name: str, value: Any, index: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            return super()._item(name, value, index)
        if len(value.batch_shape) > 1:
            raise NotImplementedError(
                "indexing an HMM needs an emission that can be indexed: a tensor of logits or a Distribution "
                f"with batch shape (k,) shared by all items, found one of {tuple(value.batch_shape)}"
            )
        return value
