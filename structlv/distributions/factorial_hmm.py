"""The factorial hidden Markov model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Generator, Size, Tensor
from torch.distributions import constraints

from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_checks import check_chains, one_dtype, require_count, tensors
from structlv.distributions.factorial_emissions import FactorialEmission, TableEmission
from structlv.distributions.gibbs import gibbs_samples, prior
from structlv.distributions.inference import Exact, Inference, Problem
from structlv.distributions.mean_field import StructuredMeanField
from structlv.distributions.observations import observations
from structlv.distributions.parameters import ParameterizedDistribution
from structlv.distributions.seeding import draw_seed
from structlv.distributions.validation import (
    broadcast_batch,
    describe,
    is_eager,
    require_events,
    require_no_nan,
)
from structlv.reference.semiring import log_normalize

Self = TypeVar("Self", bound="FactorialHMM")


class FactorialHMM(ParameterizedDistribution):
    """Distribution over observations x_1..x_n that m hidden Markov chains emit together.

    p(x) = sum_z prod_i [p(z^i_1) prod_t p(z^i_t+1 | z^i_t)] prod_t p(x_t | z^1_t, ..., z^m_t). The chains
    move independently; given x they do not, as they explain it together. The length is given, not modelled.
    Logits are normalised here; a row that is all -inf stays so. Everything is in nats. Ghahramani and
    Jordan (1997), "Factorial hidden Markov models", section 2.

    ``batch_shape`` is *b; ``event_shape`` is that of one observation, so that x is (*b, n, *event_shape) for
    any n. Hidden states are (*b, m, n).

    Queries take ``lengths`` (*b), integers in 0..n, for right-padded batches, and ``mask`` (*b, n) bool,
    False where an observation is missing (it is summed over). What x holds in padding or where it is
    missing changes nothing, NaN included. ``method`` says how the posterior is found: ``Exact()``, over S =
    prod_i k_i joint states, O(b n S sum_i k_i) time and O(b n S) memory; ``StructuredMeanField()``, O(b n
    sum_i k_i^2) a sweep; or ``MeanField()``.

    Args:
        initial_logits: for each chain (*b, k_i), of its first state.
        transition_logits: for each chain (*b, k_i, k_i), of state j after state i, ``[..., i, j]``; fewer or
            singleton batch dimensions where shared.
        emission: ``AdditiveGaussian``, ``LogLinearCategorical``, ``IndependentBernoulli``; or a function of
            x that returns log p(x_t | z_t) for all joint states, (*b, n, k_1, ..., k_m), for exact
            inference and Gibbs sampling (an attribute ``event_shape`` of it is the shape of one
            observation, else ()).
        validate_args: whether to check values (NaN, symbols, lengths); None for structlv's default (on).

    Attributes:
        initial_logits, transition_logits: tuples of normalised log-probabilities.
        emission: as it was given; a function as a ``TableEmission``.

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together, k is 0, a logit is NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    _parameters = ("initial_logits", "transition_logits", "emission")
    _full = ("initial_logits",)
    initial_logits: tuple[Tensor, ...]
    transition_logits: tuple[Tensor, ...]
    emission: FactorialEmission

    def __init__(
        self,
        initial_logits: Sequence[Tensor],
        transition_logits: Sequence[Tensor],
        emission: FactorialEmission | Callable[[Tensor], Tensor],
        *,
        validate_args: bool | None = None,
    ) -> None:
        initial = tensors("initial_logits", initial_logits)
        moves = tensors("transition_logits", transition_logits)
        require_count(len(initial), transition_logits=moves)
        initial, moves, emission = _uniform(initial, moves, emission)
        emission, batch = _checked(initial, moves, emission)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(initial[0]):
            require_no_nan(**{f"initial_logits[{i}]": x for i, x in enumerate(initial)})
            require_no_nan(**{f"transition_logits[{i}]": x for i, x in enumerate(moves)})
            emission.check_values()
        self._assign(
            tuple(log_normalize(x) for x in initial), tuple(log_normalize(x) for x in moves), emission, batch
        )

    def _assign(
        self, initial: tuple[Tensor, ...], moves: tuple[Tensor, ...], emission: FactorialEmission, batch: Size
    ) -> None:
        self.initial_logits = tuple(x.expand(batch + x.shape[-1:]) for x in initial)
        self.transition_logits, self.emission = moves, emission
        self._batch_shape, self._event_shape = batch, emission.event_shape

    # ---- queries ---------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """log p(x), (*b), for observations (*b, n, *event_shape), exactly; differentiable twice.

        Raises:
            TypeError: x is not of the emission's kind. ValueError: its shape, a symbol, a length or the
                mask does not fit; or the table of joint states is larger than ``Exact`` allows.
        """
        return self.posterior(x, lengths, mask).log_partition()

    def elbo(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        method: Inference | None = None,
    ) -> Tensor:
        """A lower bound of log p(x), (*b), formed in float64; differentiable once. Arguments as ``log_prob``.

        Args:
            method: None for ``StructuredMeanField()``. Of ``Exact()`` the bound is log p(x).
        """
        method = StructuredMeanField() if method is None else method
        return _inference(method).elbo(self._problem(x, lengths, mask))

    def posterior(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        method: Inference | None = None,
    ) -> FactorialChain:
        """p(z | x), or what ``method`` finds in its place. Arguments as ``log_prob``.

        Args:
            method: None for ``Exact()``, of which the log-partition is log p(x). A mean field's result is a
                product of chains with scores of their own, whose log-partition means nothing; it is constant
                (no gradient) unless the method unrolls.
        """
        return _inference(Exact() if method is None else method).posterior(self._problem(x, lengths, mask))

    def infer(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        method: Inference | None = None,
        *,
        start: Sequence[Tensor] | None = None,
    ) -> tuple[FactorialChain, Tensor]:
        """``posterior`` and ``elbo`` of one run of ``method`` (default ``Exact()``). Arguments as ``log_prob``.

        Args:
            start: for each chain (*b, n, k_i), the probabilities that mean field begins with in place of
                uniform ones, such as ``posterior(...).marginals().unary`` for parameters that were a little
                different: then its bound is no worse than that of the old posterior.
        """
        problem = self._problem(x, lengths, mask)
        begin = None if start is None else tensors("start", start)
        if begin is not None:
            require_count(len(self.sizes), start=begin)
            for i, (probabilities, k) in enumerate(zip(begin, self.sizes, strict=True)):
                require_events(f"start[{i}]", probabilities, "(*b, n, k)", problem.n, k)
        return _inference(Exact() if method is None else method).infer(problem._replace(start=begin))

    def filter(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """log p(z_t | x_1..x_t), (*b, n, k_1, ..., k_m), -inf in padding: no looking ahead.

        Differentiable once. O(b n S^2) time.
        """
        return self.posterior(x, lengths, mask).filter()

    def gibbs(
        self,
        x: Tensor,
        num_samples: int,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        burn_in: int = 20,
        thin: int = 1,
        initial: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """States (num_samples, *b, m, n) of a Markov chain over structures whose law tends to p(z | x).

        Chain after chain is drawn whole given the others, by forward filtering and backward sampling: a sweep
        takes O(b n sum_i k_i^2) time beside the emission's, and never a table of joint states (but of a
        callable emission). Ghahramani and Jordan (1997), section 3.3, draw state by state; whole chains mix
        faster (Scott 2002, section 2). Successive samples are dependent; items of the batch are not.

        Args:
            num_samples: of the states kept.
            burn_in: sweeps that come first and are forgotten.
            thin: of how many sweeps the last is kept.
            initial: (*b, m, n) states to begin with; None for a draw of the chains without x.
            generator: draws the seed; None for torch's default CPU generator.

        Raises:
            ValueError: a number is negative (``thin``: not positive), or ``initial`` does not fit.
        """
        problem = self._problem(x, lengths, mask)
        seed = draw_seed(generator)
        return gibbs_samples(problem, num_samples, burn_in, thin, initial, seed)

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
            length: n.
            with_states: whether to return (observations, states); states are (*sample_shape, *b, m, length).
            generator: draws the seed; None for torch's default CPU generator. (Not under ``torch.compile``.)

        Raises:
            ValueError: length is missing or negative.
            NotImplementedError: the emission is a function.
        """
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"length must be a non-negative integer, found {length!r}")
        shape = torch.Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        seed = draw_seed(generator)
        chains = prior(self.initial_logits, self.transition_logits, self._batch_shape, length)
        states = chains._sample(shape.numel(), seed)
        states = states.reshape(shape + states.shape[1:])
        x = self.emission.sample(states, self._batch_shape, seed)
        return (x, states) if with_states else x

    @property
    def sizes(self) -> tuple[int, ...]:
        """(k_1, ..., k_m), the numbers of states of the chains."""
        return tuple(x.shape[-1] for x in self.initial_logits)

    # ---- helpers ---------------------------------------------------------------------------------------

    def _problem(self, x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Problem:
        seen = observations(self, self.emission, x, lengths, mask)
        return Problem(
            self.initial_logits,
            self.transition_logits,
            self.emission,
            x,
            seen.observed,
            seen.lengths,
            seen.batch,
            seen.n,
        )

    def _event_dims(self, name: str) -> int:
        return {"initial_logits": 1, "transition_logits": 2}[name]

    def _rebuild(self: Self, **parameters: Any) -> Self:
        new = type(self).__new__(type(self))  # past the constructor: the parameters are normalised already
        initial = parameters["initial_logits"]
        new._assign(initial, parameters["transition_logits"], parameters["emission"], initial[0].shape[:-1])
        return new

    def _item(self, name: str, value: Any, index: tuple[Any, ...]) -> Any:
        if isinstance(value, FactorialEmission):
            return value.item(index, self._batch_shape)
        return super()._item(name, value, index)


def _uniform(
    initial: tuple[Tensor, ...], moves: tuple[Tensor, ...], emission: Any
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Any]:
    """The parameters of one dtype, the emission's among them."""
    if not isinstance(emission, FactorialEmission):
        return (*one_dtype(initial_logits=initial, transition_logits=moves), emission)
    groups = {name: getattr(emission, name) for name in emission._tensors}
    initial, moves, *rest = one_dtype(initial_logits=initial, transition_logits=moves, **groups)
    return initial, moves, emission.with_tensors(dict(zip(groups, rest, strict=True)))


def _checked(
    initial: tuple[Tensor, ...], moves: tuple[Tensor, ...], emission: Any
) -> tuple[FactorialEmission, Size]:
    """The emission, a function wrapped, and the batch shape."""
    for i, x in enumerate(initial):
        if x.dim() < 1 or x.shape[-1] == 0:
            raise ValueError(
                f"initial_logits[{i}] must have shape (*b, k) with k >= 1, found {tuple(x.shape)}"
            )
    sizes = tuple(x.shape[-1] for x in initial)
    shapes = check_chains(sizes, ("transition_logits", "initial_logits"), moves, initial)
    if not isinstance(emission, FactorialEmission):
        if not callable(emission):
            raise TypeError(
                "emission must be AdditiveGaussian, LogLinearCategorical, IndependentBernoulli or a function "
                f"of x, found {describe(emission)}"
            )
        emission = TableEmission(emission, sizes)
    if emission.sizes != sizes:
        raise ValueError(
            f"emission must be of chains with {sizes} states, as initial_logits, found {emission.sizes}"
        )
    return emission, broadcast_batch({**shapes, "emission": emission.batch_shape})


def _inference(method: Any) -> Inference:
    if not isinstance(method, Inference):
        raise TypeError(
            f"method must be Exact(...), StructuredMeanField(...) or MeanField(...), found {describe(method)}"
        )
    return method
