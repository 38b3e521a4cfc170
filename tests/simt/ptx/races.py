"""Who has accessed a word of memory in a launch, and whether that was ordered before who does now.

Barriers order what the threads of a block did before them and after; so does ``bar.warp.sync`` of a warp.
Nothing orders threads of two blocks. A word remembers its last writer and the readers since: the first and
the last lane among them, which is enough to know whether all are ordered before a lane (FastTrack, Flanagan
and Freund 2009).
"""

from __future__ import annotations

import numpy as np

NOBODY = np.iinfo(np.int32).max


class Clock:
    """How many barriers each block, and each warp, has passed."""

    def __init__(self, blocks: int, threads: int) -> None:
        lanes = np.arange(blocks * threads)
        self.block_of, self.warp_of = lanes // threads, lanes // 32
        self.block, self.warp = np.zeros(blocks, np.int32), np.zeros(blocks * threads // 32, np.int32)


class Accesses:
    """Lanes, and the clock of their block and of their warp then, for each word."""

    def __init__(self, words: int, clock: Clock) -> None:
        self.clock = clock
        self.first, self.last = np.full(words, NOBODY, np.int32), np.full(words, -1, np.int32)
        self.block, self.warp = np.zeros(words, np.int32), np.zeros(words, np.int32)

    def note(self, words: np.ndarray, lanes: np.ndarray) -> None:
        """Lanes in ascending order: the last of several that are assigned stays, so the largest here ..."""
        self.last[words] = lanes
        self.first[words[::-1]] = lanes[::-1]  # ... and the smallest here
        self.block[words] = self.clock.block[self.clock.block_of[lanes]]
        self.warp[words] = self.clock.warp[self.clock.warp_of[lanes]]

    def forget(self, words: np.ndarray) -> None:
        self.first[words], self.last[words] = NOBODY, -1

    def unordered(self, words: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Whether some access noted is not ordered before these lanes."""
        first, last = self.first[words], self.last[words]
        there = (last >= 0) & ((first != lanes) | (last != lanes))
        if not there.any():
            return there
        c = self.clock
        warp, block = c.warp_of[lanes], c.block_of[lanes]
        later_block, later_warp = self.block[words] < c.block[block], self.warp[words] < c.warp[warp]
        out = np.zeros_like(there)
        for other in (first, last):
            other = np.where(there, other, lanes)
            ordered = ((c.block_of[other] == block) & later_block) | ((c.warp_of[other] == warp) & later_warp)
            out |= there & (other != lanes) & ~ordered
        return out


class Shadow:
    def __init__(self, words: int, clock: Clock) -> None:
        self.writes, self.reads = Accesses(words, clock), Accesses(words, clock)
        self.written = False  # whether anything was

    def read(self, words: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Notes reads by lanes in ascending order. Where they race with a write: the other lane, else -1."""
        others = np.full(words.shape, -1)
        if self.written:
            race = self.writes.unordered(words, lanes)
            others[race] = self.writes.last[words[race]]
        apart = self.reads.unordered(words, lanes)
        kept = (
            [(words[apart], self.reads.first[words[apart]], self.reads.last[words[apart]])]
            if apart.any()
            else []
        )
        self.reads.note(words, lanes)
        for at, first, last in kept:
            np.minimum.at(self.reads.first, at, first)
            np.maximum.at(self.reads.last, at, last)
        return others

    def write(self, words: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        others = np.full(words.shape, -1)
        for noted in (self.reads, self.writes):
            race = noted.unordered(words, lanes)
            others[race] = np.where(
                noted.last[words[race]] == lanes[race], noted.first[words[race]], noted.last[words[race]]
            )
        self.writes.note(words, lanes)
        self.written = True
        at_once = self.writes.first[words] != self.writes.last[words]
        others[at_once] = np.where(
            self.writes.last[words] == lanes, self.writes.first[words], self.writes.last[words]
        )[at_once]
        self.reads.forget(words)
        return others
