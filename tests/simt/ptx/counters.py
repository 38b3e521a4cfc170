"""What instructions cost, by their place in the source of a kernel: sectors of global memory and passes over
the banks of shared memory, beside the fewest that the bytes asked for allow; special functions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields

import numpy as np

SECTOR, BANKS = 32, 32  # bytes; banks of four bytes


@dataclass
class Count:
    requests: int = 0  # instructions of a warp
    used: int = 0  # sectors, or passes over the banks
    ideal: int = 0

    def add(self, other: Count) -> None:
        for f in fields(Count):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    @property
    def ratio(self) -> float:
        return self.used / self.ideal if self.ideal else 1.0


def _distinct(group: np.ndarray, number: np.ndarray) -> np.ndarray:
    """How many distinct numbers each group has, for those groups that have any."""
    return np.unique(np.unique(group.astype(np.int64) << 40 | number) >> 40, return_counts=True)[1]


def sectors(warps: np.ndarray, places: np.ndarray, size: int) -> Count:
    """Of one instruction: lanes of these warps access `size` bytes each, at multiples of it."""
    bytes_asked = _distinct(warps, places) * size
    used = int(_distinct(warps, places // SECTOR).sum())
    return Count(len(bytes_asked), used, int(-(-bytes_asked // SECTOR).sum()))


def bank_passes(lanes: np.ndarray, places: np.ndarray, size: int) -> Count:
    """Wider accesses go half a warp (8 bytes) or a quarter (16) at a time; a bank gives a word in a pass."""
    parts, words = size // 4, places // 4
    group = lanes // (32 // parts)
    group, words = np.repeat(group, parts), (words[:, None] + np.arange(parts)).ravel()
    keys = np.unique(group.astype(np.int64) << 40 | words)
    at_bank, count = np.unique((keys >> 40) * BANKS + (keys & (2**40 - 1)) % BANKS, return_counts=True)
    _, start = np.unique(at_bank // BANKS, return_index=True)
    passes = np.maximum.reduceat(count, start)
    return Count(len(np.unique(lanes // 32)), int(passes.sum()), len(passes))


class Counters:
    """Of one kernel: by the place in the source, ``("load", "chain_scan.cuh:52")``."""

    def __init__(self) -> None:
        self.launches = self.special = 0  # special functions: instructions of a warp
        self.memory: dict[tuple[str, str], Count] = defaultdict(Count)

    def total(self, kind: str) -> Count:
        out = Count()
        for (k, _), count in self.memory.items():
            if k == kind:
                out.add(count)
        return out

    def add(self, other: Counters) -> None:
        self.launches += other.launches
        self.special += other.special
        for key, count in other.memory.items():
            self.memory[key].add(count)
