"""What EM needs to know of a kind of model: expected counts, the best parameters for them, a log prior."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from structlv.distributions.algebra import added, flat, rebuilt
from structlv.distributions.validation import checked_lengths, require_bool, require_lengths

Counts = TypeVar("Counts", bound=tuple)
CHUNK = 1 << 15  # steps of the sequences that are looked at together: what an E-step holds in memory


class Expectation(NamedTuple):
    """What an E-step finds.

    Attributes:
        counts: expected counts, sums over the sequences; a named tuple of float64 tensors where they can be
            added up.
        value: sum over sequences of log p(x), or of its lower bound, in nats.
        carry: what the next E-step begins with (tensors, a number), or None.
    """

    counts: Any
    value: float
    carry: Any = None


class Problem(ABC):
    """The data, and what EM does with them for one kind of model. Abstract.

    Attributes:
        items: the number of sequences.
        steps: the number of observations.
        monotone: whether exact arithmetic could never lower the objective.
        additive: whether counts are sums over sequences: then batches and shards are possible.
    """

    items: int
    steps: int
    monotone: bool = True
    additive: bool = True

    @abstractmethod
    def begin(self, model: Any) -> Any:
        """``model`` as EM needs it to begin with. Raises ValueError where it cannot be learned."""

    @abstractmethod
    def e_step(self, model: Any, carry: Any = None, items: Tensor | None = None) -> Expectation:
        """Expectations under ``model``, of all sequences or of those that ``items`` numbers."""

    @abstractmethod
    def m_step(self, model: Any, counts: Any) -> Any:
        """The model that maximises E log p(x, z) + log prior for these counts, or one that is no worse."""

    @abstractmethod
    def log_prior(self, model: Any) -> float:
        """The log prior of the parameters in nats, up to a constant."""

    @abstractmethod
    def tensors(self, model: Any) -> list[Tensor]:
        """The parameters, for a checkpoint."""

    @abstractmethod
    def restored(self, model: Any, tensors: list[Tensor]) -> Any:
        """``model`` with the parameters that `tensors` told of, to the bit."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Differs where data or options differ."""

    def finished(self, model: Any) -> Any:
        """The result, as the caller wants it."""
        return model

    def moved(self, counts: Any, old: Any, new: Any) -> Any:
        """``counts`` that an E-step with ``old`` might have found, as those of one with ``new``.

        Where counts do not refer to parameters they stay as they are. (For online EM.)
        """
        return counts


class Sequences:
    """Padded sequences and what is known of each, in chunks of similar length.

    Args: ``x`` (*b, n, *event_shape); ``lengths`` (*b); ``mask`` (*b, n), False where an observation is
    missing; ``evidence``, by name tensors (*b, n) or, where ``wide`` names them, (*b, n, k). Raises TypeError
    or ValueError where one does not fit.
    """

    def __init__(
        self,
        x: Tensor,
        event_dims: int,
        lengths: Tensor | None,
        mask: Tensor | None,
        evidence: Mapping[str, Tensor] | None = None,
        wide: Collection[str] = (),
    ) -> None:
        split = x.dim() - event_dims - 1
        if split < 0:
            raise ValueError(f"x must have shape (*b, n, *event_shape), found {tuple(x.shape)}")
        batch, n = x.shape[:split], x.shape[split]
        count = batch.numel()
        self.x = x.detach().reshape(count, *x.shape[split:])
        self.lengths = torch.full((count,), n, device=x.device)
        if lengths is not None:
            self.lengths = checked_lengths(lengths, "x", x).expand(batch).reshape(count)
            require_lengths(self.lengths, n)
        self.observed = torch.arange(n, device=x.device) < self.lengths.unsqueeze(-1)
        self.mask: Tensor | None = None
        if mask is not None:
            require_bool("mask", mask)
            self.mask = mask.expand(*batch, n).reshape(count, n)
            self.observed = self.observed & self.mask
        self.evidence = {}
        for name, value in (evidence or {}).items():
            shape = value.shape[-1:] if name in wide else torch.Size()
            if value.shape[value.dim() - 1 - len(shape) : value.dim() - len(shape)] != (n,):
                expected = "(*b, n, k)" if name in wide else "(*b, n)"
                found = tuple(value.shape)
                raise ValueError(f"evidence {name!r} must have shape {expected} with n = {n}, found {found}")
            self.evidence[name] = value.expand(*batch, n, *shape).reshape(count, n, *shape)
        self.steps = int(self.observed.sum())

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, items: Tensor | None = None, steps: int = CHUNK) -> Iterator[Sequences]:
        """The sequences that have steps, of all or of ``items``, some at a time, without needless padding."""
        device = self.lengths.device
        chosen = torch.arange(len(self), device=device) if items is None else items.to(device)
        chosen = chosen[self.lengths[chosen] > 0]
        chosen = chosen[self.lengths[chosen].argsort(stable=True)]
        begin = 0
        ends = self.lengths[chosen].tolist()
        for i, n in enumerate(ends):
            if i > begin and n * (i + 1 - begin) > steps:
                yield self._rows(chosen[begin:i], ends[i - 1])
                begin = i
        if begin < len(ends):
            yield self._rows(chosen[begin:], ends[-1])

    def _rows(self, items: Tensor, n: int) -> Sequences:
        part = Sequences.__new__(Sequences)
        part.x, part.lengths, part.observed = self.x[items, :n], self.lengths[items], self.observed[items, :n]
        part.mask = None if self.mask is None else self.mask[items, :n]
        part.evidence = {name: value[items, :n] for name, value in self.evidence.items()}
        part.steps = int(part.observed.sum())
        return part

    def checksum(self) -> str:
        """Differs where the data do."""
        parts = [self.x, self.lengths, self.mask, *self.evidence.values()]
        return f"{tuple(self.x.shape)}:{','.join(self.evidence)}:{crc(parts):08x}"


def crc(tensors: Iterable[Tensor | None]) -> int:
    """A checksum of the bytes of all."""
    checksum = 0
    for part in tensors:
        if part is not None:
            checksum = zlib.crc32(part.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return checksum


# ---- counts --------------------------------------------------------------------------------------------


def plus(first: Any, second: Any) -> Any:
    """The sum of two expectations, or of two named tuples of counts; None stands for nothing."""
    if first is None:
        return second
    return type(first)(*(added(a, b) for a, b in zip(first, second, strict=True)))


def scaled(counts: Any, factor: float) -> Any:
    """Every count times ``factor``."""
    return rebuilt(counts, (x * factor for x in flat(counts)))
