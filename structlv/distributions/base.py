"""The algebra that every structured distribution shares, written once.

A structured distribution gives every structure z of a finite set the probability exp(score(z)) / Z, where
score(z) is the sum of the scores of the parts that z is made of. All it must supply are the recursions
(log-partition, marginals, best structures, samples) and the translation between structures and parts;
entropy, divergences, expectations, conditioning on a temperature and counting are algebra of those.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Generator, Size, Tensor

from structlv.distributions.algebra import (
    added,
    finite,
    flat,
    guarded,
    inner,
    mapped,
    mean_score,
    rebuilt,
    tempered,
)
from structlv.distributions.distinct import DistinctSamples
from structlv.distributions.parameters import ParameterizedDistribution
from structlv.distributions.relaxations import Relaxation, StochasticSoftmax, Temperature
from structlv.distributions.seeding import draw_seed
from structlv.distributions.traces import Trace
from structlv.distributions.validation import (
    broadcast_batch,
    is_eager,
    positive,
    require_floating,
    require_integer,
)

Self = TypeVar("Self", bound="StructuredDistribution")


class StructuredDistribution(ParameterizedDistribution):
    """p(z) = exp(score(z)) / Z over structures z that are sets of scored parts. Abstract.

    Scores and log-probabilities are in nats. A score of -inf forbids a part: it has probability 0, and its
    gradient is 0. Where no structure is possible, log Z, scores and log-probabilities are -inf, events are
    all -1, and entropy, marginals and gradients are 0.

    log_prob, entropy, cross-entropy, KL and expectations are differences of large numbers: they are formed
    in float64 and rounded once, to the dtype of the potentials (float32 where those are half precision).

    A subclass supplies the hooks below: ``_log_partition``, ``marginals``, ``max_marginals``, ``argmax``,
    ``_best``, ``_sample``, ``_sample_distinct``, ``_score``, ``_part_scores``, ``to_parts``, ``from_parts``,
    ``condition``, and where two of its distributions can differ in layout, ``_aligned``; where some marginals
    cost more than others, ``_weights``; for ``rsample`` ``_perturbed``, ``_moved`` and ``_trace``. Its
    potentials are the floating-point parameters.
    """

    has_rsample = True

    # ---- hooks -----------------------------------------------------------------------------------------

    @abstractmethod
    def _log_partition(self, *, as_double: bool) -> Tensor:
        """log Z (*b); in float64 if ``as_double``, whatever the dtype of the potentials."""

    @abstractmethod
    def marginals(self) -> Any:
        """Named tuple of part-shaped tensors, or tuples of them: the expected number of times that z uses
        each part.
        """

    @abstractmethod
    def max_marginals(self) -> Any:
        """Named tuple of part-shaped tensors: the best score of a structure that uses the part, or -inf."""

    @abstractmethod
    def argmax(self) -> Tensor:
        """The structure of highest score, (*b, *event) int64; ties go to the lowest index."""

    @abstractmethod
    def _best(self, k: int) -> Tensor:
        """The k best structures, (k, *b, *event) int64, all -1 where there are fewer."""

    @abstractmethod
    def _sample(self, num_samples: int, seed: int) -> Tensor:
        """Exact samples, (num_samples, *b, *event) int64."""

    @abstractmethod
    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        """k samples without replacement, (k, *b, *event) int64, and their perturbed log-probabilities (k, *b)
        in float64, descending; -1 and -inf where there are fewer.
        """

    @abstractmethod
    def _score(self, event: Tensor) -> Tensor:
        """Float64 scores (*s, *b) of events (*s, *b, *event)."""

    @abstractmethod
    def _part_scores(self) -> Any:
        """The potentials in shapes that broadcast to ``marginals()``'s: score(z) = <to_parts(z), this>.

        None stands for a field of zeros.
        """

    @abstractmethod
    def to_parts(self, event: Tensor) -> Any:
        """How often each part occurs in ``event``, as a named tuple in the shapes of ``marginals()``."""

    @abstractmethod
    def from_parts(self, parts: Any) -> Tensor:
        """The event that ``parts`` describes: the inverse of ``to_parts``."""

    @abstractmethod
    def condition(self: Self, **evidence: Any) -> Self:
        """The same kind of distribution with what contradicts the evidence at -inf: its log Z minus this
        one's is the log-probability of the evidence.
        """

    @abstractmethod
    def _perturbed(self: Self, num_samples: int, seed: int) -> Self:
        """The same kind of distribution, batch shape (num_samples, *b), with Gumbel noise on its nodes."""

    @abstractmethod
    def _moved(self: Self, parts: Any) -> Self:
        """The same kind of distribution with ``parts`` (or None) added to the scores of its parts."""

    def _by_choices(self) -> StructuredDistribution:
        """The same distribution in the form in which the choices that lead to a structure are known."""
        return self

    def _trace(self, event: Tensor) -> Trace:
        """The choices that lead to ``event`` (s, *b, *event), and the parts that their weights stand for."""
        raise NotImplementedError(f"the choices of a {type(self).__name__} are not implemented")

    def _relaxed_sample(
        self, num_samples: int, seed: int, temperature: Temperature, alpha: float
    ) -> tuple[Tensor, Any]:
        """Exact samples (num_samples, *b, *event), and parts in which each of their choices is relaxed."""
        event = self._sample(num_samples, seed)
        return event, self._trace(event).relaxed(seed, self._checked_temperature(temperature), alpha)

    def _weights(self, *scores: Any) -> Any:
        """``marginals()``; a field that is None in all of ``scores`` may be None: nobody asks for it."""
        return self.marginals()

    def _aligned(self: Self, other: Self) -> tuple[Self, Self]:
        """Both distributions with part scores of one layout."""
        return self, other

    @property
    @abstractmethod
    def _dtype(self) -> torch.dtype:
        """Dtype of the potentials."""

    # ---- queries ---------------------------------------------------------------------------------------

    def log_partition(self) -> Tensor:
        """log Z = log sum_z exp(score(z)), shape (*b); differentiable twice."""
        return self._log_partition(as_double=False)

    def max(self) -> Tensor:
        """The score of the best structure, (*b); its gradient is that structure's parts."""
        return self._rounded(self._score(self.argmax()))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """The k best structures: scores (k, *b), descending, and events (k, *b, *event).

        Where there are fewer than k structures the rest have score -inf and events of -1. The scores are
        differentiable once.

        Raises:
            ValueError: k < 1.
        """
        events = self._best(positive(k))
        # An event without content is the empty structure at rank 0, and no structure at every other rank.
        absent = (events == -1).flatten(1 + len(self._batch_shape)).all(-1)
        absent[0] = False
        return self._rounded(self._score(events)).masked_fill(absent, -torch.inf), events

    def sample(
        self, sample_shape: Size | list[int] | tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        """Exact samples, (*sample_shape, *b, *event) int64.

        One 64-bit seed is drawn from ``generator``, or else from torch's default CPU generator, whatever
        the device; a draw is a function of that seed, the item's place in the flattened batch, the sample's
        number and the position. ``generator`` is not supported under ``torch.compile``.
        """
        shape = torch.Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        events = self._sample(shape.numel(), draw_seed(generator))
        return events.reshape(shape + events.shape[1:])

    def sample_without_replacement(self, k: int, generator: Generator | None = None) -> DistinctSamples:
        """k different structures of each item: drawn one by one, and none put back.

        They are those of the k largest perturbed log-probabilities log p(z) + g_z, g_z independent standard
        Gumbel noise of every structure, found exactly without looking at all of them: the largest is
        Gumbel(0), and its structure a sample of p. Where there are at most k structures all are found. Kool,
        van Hoof and Welling (2019), "Stochastic beams and where to find them", section 4.

        A draw is a function of the seed (see ``sample``) and the item's place in the flattened batch; fewer
        are the first of more. Time: as for ``sample`` of k structures, and a logarithm for all that each
        choice is among.

        Returns:
            events (k, *b, *event) int64, perturbed (k, *b), descending and detached, and log_prob (k, *b),
            differentiable as ``log_prob(events)`` is; -1 and -inf where there are fewer than k structures.

        Raises:
            ValueError: k < 1.
        """
        events, perturbed = self._sample_distinct(positive(k), draw_seed(generator))
        log_prob = self._log_prob(events).masked_fill(perturbed == -torch.inf, -torch.inf)
        return DistinctSamples(events, self._rounded(perturbed), self._rounded(log_prob))

    def rsample(
        self,
        sample_shape: Size | list[int] | tuple[int, ...] = (),
        generator: Generator | None = None,
        *,
        method: Relaxation | None = None,
        temperature: float | Tensor | None = None,
    ) -> Any:
        """Differentiable samples, relaxed structures: parts (*sample_shape, *b, ...) like ``marginals()``'s.

        Noise is drawn as by ``sample``: a number is a function of the seed, the item, the sample and the
        position, whatever the padding and the rest of the batch. Differentiable once.

        Args:
            method: ``StochasticSoftmax()`` where None, ``PerturbAndMAP()``, ``GumbelCRF()``,
                ``StraightThroughMarginals()`` or ``IMLE()``.
            temperature: positive, a number or one for each item (*b); 1 where None. The lower, the closer to
                a structure, and the larger the variance of the gradient.

        Raises:
            ValueError: the temperature is not positive, or the method has none.
        """
        method = StochasticSoftmax() if method is None else method
        if temperature is not None and not method.uses_temperature:
            raise ValueError(f"{type(method).__name__} has no temperature, found {temperature!r}")
        shape = torch.Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        parts = method.draw(
            self, shape.numel(), draw_seed(generator), 1.0 if temperature is None else temperature
        )
        return rebuilt(parts, [x.reshape(shape + x.shape[1:]) for x in flat(parts)])

    def score(self, event: Tensor) -> Tensor:
        """The sum of the scores of an event's parts, (*s, *b) for events (*s, *b, *event)."""
        return self._rounded(self._score(self._checked_event(event)))

    def log_prob(self, event: Tensor) -> Tensor:
        """log p(event) = score(event) - log Z, (*s, *b) for events (*s, *b, *event). Differentiable twice."""
        return self._rounded(self._log_prob(self._checked_event(event)))

    def _log_prob(self, event: Tensor) -> Tensor:
        """``log_prob`` in float64."""
        score, log_z = self._score(event), self._log_partition(as_double=True)
        impossible = log_z == -torch.inf
        score = score.masked_fill(impossible, -torch.inf)
        return score - log_z.masked_fill(impossible, 0.0)

    def entropy(self) -> Tensor:
        """H(p) = -E_p[log p] = log Z - <marginals, part scores>, (*b); differentiable once."""
        p = self._double()
        log_z = p._log_partition(as_double=True)
        scores = p._part_scores()
        gap = log_z - inner(p._weights(scores), scores, len(self._batch_shape))
        return self._rounded(gap.masked_fill(log_z == -torch.inf, 0.0))

    def cross_entropy(self, q: StructuredDistribution) -> Tensor:
        """H(p, q) = -E_p[log q], (*b); +inf, with zero gradient, where q forbids what p allows.

        Raises:
            TypeError: q is not of the same kind.
            ValueError: the two are not over the same structures.
        """
        p, q = self._pair(q)
        log_z, log_zq = p._log_partition(as_double=True), q._log_partition(as_double=True)
        scores = q._part_scores()
        surprise = finite(log_zq) - mean_score(p._weights(scores), scores, log_z.dim())
        return self._rounded(guarded(p, q, surprise, log_z))

    def kl(self, q: StructuredDistribution) -> Tensor:
        """KL(p || q) = E_p[log p - log q], (*b); +inf, with zero gradient, where q forbids what p allows.

        Exactly 0 for q = p. Differentiable once.

        Raises:
            TypeError: q is not of the same kind.
            ValueError: the two are not over the same structures.
        """
        p, q = self._pair(q)
        log_z, log_zq = p._log_partition(as_double=True), q._log_partition(as_double=True)
        mine, theirs = p._part_scores(), q._part_scores()
        weights = p._weights(mine, theirs)
        gap = inner(weights, mine, log_z.dim()) - mean_score(weights, theirs, log_z.dim())
        return self._rounded(guarded(p, q, gap + finite(log_zq) - finite(log_z), log_z))

    def expectation(self, parts: Any) -> Tensor:
        """E_p[sum of ``parts`` over the parts of z] = <marginals, parts>, (*b): a risk, a reward, a
        feature's mean.

        Args:
            parts: one tensor (or tuple of tensors) for each field of ``marginals()``, of its shape or
                broadcastable to it; None counts as 0.
        """
        names = self._part_scores()._fields
        if len(parts) != len(names):
            raise ValueError(f"parts must hold {len(names)} tensors, {names}, found {len(parts)}")
        for name, value in zip(names, parts, strict=True):
            mapped([value], partial(require_floating, f"parts.{name}"))
        values = mapped(parts, Tensor.double)
        return self._rounded(inner(self._double()._weights(values), values, len(self._batch_shape)))

    def log_count(self) -> Tensor:
        """The log of the number of structures of non-zero weight, (*b) float64."""
        zeroed = self._rescored(lambda v: torch.where(v == -torch.inf, v, 0.0).double().detach())
        return zeroed._log_partition(as_double=True)

    def with_temperature(self: Self, temperature: float | Tensor) -> Self:
        """The distribution p(z)^(1/t), renormalised: every score divided by t.

        Args:
            temperature: positive; a number, or a tensor that broadcasts to (*b), one value per item.
        """
        t = self._checked_temperature(temperature)
        if isinstance(t, Tensor):
            return self._derived(lambda name, value: tempered(value, t, self._event_dims(name)))
        return self._rescored(lambda value: value / t)

    # ---- shared machinery ------------------------------------------------------------------------------

    def _checked_temperature(self, temperature: Temperature) -> Temperature:
        """A positive number, or a tensor in the dtype of the potentials."""
        if isinstance(temperature, Tensor):
            require_floating("temperature", temperature)
            if self._validate_args and is_eager(temperature) and not bool((temperature > 0).all()):
                raise ValueError(f"temperature must be positive, found {temperature}")
            return temperature.to(self._dtype)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, found {temperature!r}")
        return temperature

    def _rescored(self: Self, fn: Callable[[Tensor], Tensor]) -> Self:
        """The same kind of distribution with ``fn`` applied to every potential."""
        return self._derived(lambda _, value: fn(value) if value.is_floating_point() else value)

    def _plus(self: Self, **moves: Any) -> Self:
        """The same kind of distribution with something (None: nothing) added to the potentials named."""
        given = {name: getattr(self, name) for name in self._parameters}
        result = self._rebuild(**{name: added(value, moves.get(name)) for name, value in given.items()})
        result._validate_args = self._validate_args
        return result

    def _double(self: Self) -> Self:
        """The same distribution in float64."""
        return self if self._dtype == torch.float64 else self._rescored(Tensor.double)

    def _rounded(self, value: Tensor) -> Tensor:
        """A float64 result in the dtype of this distribution's scalars."""
        return value if self._dtype == torch.float64 else value.to(torch.float32)

    def _pair(self: Self, q: Any) -> tuple[Self, Self]:
        """p = self and q in float64, over one batch shape and one layout of parts."""
        if not isinstance(q, StructuredDistribution) or type(self).argmax is not type(q).argmax:
            raise TypeError(f"expected another {type(self).__name__}, found {type(q).__name__}")
        self._check_same_structures(q)
        batch = broadcast_batch({"p": self._batch_shape, "q": q._batch_shape})
        p, q = self._double(), q._double()
        p = p if p._batch_shape == batch else p.expand(batch)
        q = q if q._batch_shape == batch else q.expand(batch)
        return p._aligned(q)

    def _check_same_structures(self, q: Any) -> None:
        """``ValueError`` unless q is over the same structures as self; a subclass may look further."""
        if self._event_shape != q._event_shape:
            raise ValueError(
                f"both distributions must have one event shape, found {tuple(self._event_shape)} "
                f"and {tuple(q._event_shape)}"
            )

    def _checked_event(self, event: Any) -> Tensor:
        """``event`` as int64 of shape (*s, *b, *event_shape)."""
        require_integer("event", event)
        split = event.dim() - len(self._event_shape)
        if split < 0 or event.shape[split:] != self._event_shape:
            raise ValueError(
                f"event must have shape (*s, *b, *event_shape) with event_shape {tuple(self._event_shape)}, "
                f"found {tuple(event.shape)}"
            )
        batch = broadcast_batch({"event": event.shape[:split], "distribution": self._batch_shape})
        if self._validate_args and is_eager(event):
            self._check_labels(event)
        return event.long().expand(batch + self._event_shape)

    def _check_labels(self, event: Tensor) -> None:
        """``ValueError`` where ``event`` holds a label that no structure has (called eagerly only)."""
