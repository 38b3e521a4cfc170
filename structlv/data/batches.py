"""Length-bucketed batches whose order is a function of (seed, epoch), so that training can resume exactly."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Batch(NamedTuple):
    """Right-padded token indices (b, n), lengths (b), and the lengths of the whole batch over all processes.

    `all_lengths` is `lengths` in a single process; with several, it lets each normalise its loss by the whole
    batch.
    """

    tokens: Tensor
    lengths: Tensor
    all_lengths: Tensor


class Batches:
    """Iterable over `Batch`es of sequences of similar length.

    In each epoch the sequences are shuffled, sorted by length inside pools of `pool` batches, cut into
    batches, and the batches shuffled: all of it a function of (seed, epoch) alone. With `shuffle=False`:
    sorted by length, once. The number of batches is the same in every epoch. Where torch.distributed is
    initialised, each process takes every world_size-th item of each batch, and a final batch too small to
    share is left out.

    With `curriculum=(first, step)` epoch e has only sequences of up to first + step e tokens: while the long
    ones wait, the short ones come round again, so that epochs stay equally long.

    An iteration asks for its (epoch, position) when its first batch is drawn: `set_epoch` and `seek` set
    them, `follow` hands them to a trainer's own counters, the one place where progress is kept.

    Raises ValueError if there is no sequence, one is empty, or the sizes make no sense.
    """

    def __init__(
        self,
        sequences: Sequence[Tensor],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        pool: int = 50,
        curriculum: tuple[int, int] | None = None,
    ) -> None:
        if not sequences or any(len(s) == 0 for s in sequences):
            raise ValueError("sequences must be at least one, each with at least one token")
        if batch_size < _world()[1] or pool < 1:
            raise ValueError(
                f"expected batch_size of at least the number of processes ({_world()[1]}) and pool >= 1, "
                f"found batch_size={batch_size}, pool={pool}"
            )
        self.sequences, self.batch_size = sequences, batch_size
        self.seed, self.shuffle, self.pool = seed, shuffle, pool
        self._lengths = torch.tensor([len(s) for s in sequences])
        self.curriculum = curriculum
        if curriculum and (curriculum[0] < int(self._lengths.min()) or curriculum[1] < 0):
            raise ValueError(
                f"curriculum must start at {int(self._lengths.min())} (the shortest sequence) or above and "
                f"not fall, found {curriculum}"
            )
        self._progress: Callable[[], tuple[int, int]] = lambda: (0, 0)

    def __len__(self) -> int:
        full, rest = divmod(len(self.sequences), self.batch_size)
        return full + (rest >= _world()[1])

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch `epoch`, from its start."""
        self.seek(epoch, 0)

    def seek(self, epoch: int, position: int) -> None:
        """The next iteration is epoch `epoch`, from batch number `position` on."""
        self._progress = lambda: (epoch, position)

    def follow(self, progress: Callable[[], tuple[int, int]]) -> None:
        """From now on each iteration starts at the (epoch, position) that `progress()` tells."""
        self._progress = progress

    def order(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, each a tensor of item numbers, over all processes."""
        if not self.shuffle:
            by_length = torch.argsort(self._lengths, stable=True)
            return list(by_length.split(self.batch_size))[: len(self)]
        # torch's CPU generator looks at 32 bits of its seed only: mix, do not shift
        mixed = int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(mixed)
        items = self._items(epoch, generator)
        pools = items.split(self.batch_size * self.pool)
        ordered = torch.cat([p[torch.argsort(self._lengths[p], stable=True)] for p in pools])
        batches = ordered.split(self.batch_size)[: len(self)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _items(self, epoch: int, generator: torch.Generator) -> Tensor:
        """As many item numbers as there are sequences, shuffled: each once, but for those that wait."""
        count = len(self.sequences)
        if self.curriculum is None:
            return torch.randperm(count, generator=generator)
        first, step = self.curriculum
        ready = torch.nonzero(self._lengths <= first + step * epoch).squeeze(-1)
        rounds = -(-count // len(ready))
        shuffled = [ready[torch.randperm(len(ready), generator=generator)] for _ in range(rounds)]
        return torch.cat(shuffled)[:count]

    def __iter__(self) -> Iterator[Batch]:
        epoch, position = self._progress()  # a generator: this runs at the first draw, not before
        for items in self.order(epoch)[position:]:
            yield self.collate(items)

    def collate(self, items: Tensor) -> Batch:
        """Pad the items of this process; padding is index 0, which no result depends on."""
        rank, world_size = _world()
        mine = items[rank::world_size]
        tokens = pad_sequence([self.sequences[i] for i in mine.tolist()], batch_first=True)
        return Batch(tokens, self._lengths[mine], self._lengths[items])

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place is the trainer's to remember. Tells Lightning that resuming is provided for."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do, see `state_dict`."""

    def fingerprint(self) -> str:
        """A short text that differs where data, batch size, pool or seed differ: resuming must find it."""
        parts: tuple = (
            len(self.sequences),
            self._checksum,
            self.batch_size,
            self.pool,
            self.seed,
            self.shuffle,
        )
        parts += () if self.curriculum is None else self.curriculum
        return ":".join(map(str, parts))

    @cached_property
    def _checksum(self) -> str:
        checksum = 0
        for sequence in self.sequences:
            checksum = zlib.crc32(len(sequence).to_bytes(8, "little"), checksum)
            checksum = zlib.crc32(sequence.numpy().tobytes(), checksum)
        return f"{checksum:08x}"


def _world() -> tuple[int, int]:
    """Rank of this process and number of processes, (0, 1) outside of torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
