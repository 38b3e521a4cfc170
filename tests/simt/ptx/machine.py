"""Runs a kernel on a grid, a lane of numpy's arrays for each CUDA thread, all blocks at once.

Lanes at one instruction go on together. Of all groups, that at the lowest instruction goes first, so that
lanes which took different ways meet again where the ways do. Lanes wait at barriers and at warp functions
until all that must come have come; where some never do, that is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.simt.ptx import memory
from tests.simt.ptx.arithmetic import NOISE
from tests.simt.ptx.control import OUT, cross_barrier, decode, is_warp_function
from tests.simt.ptx.counters import Count, Counters
from tests.simt.ptx.parse import Instruction, Kernel, PtxError
from tests.simt.ptx.races import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

Lanes = np.ndarray | slice  # their numbers in the grid, ascending; or all of them
ALL = slice(None)
LONGEST = 20_000_000  # instructions of a launch


class Machine:
    """A launch. What it finds is raised as PtxError, with the instruction and its place in the source."""

    def __init__(
        self,
        kernel: Kernel,
        blocks: int,
        threads: int,
        shared: int,
        parameters: np.ndarray,
        arrays: list[np.ndarray],
        *,
        noise: int = NOISE,
        seed: int = 0,
    ) -> None:
        if threads % 32 or not 32 <= threads <= 1024:
            raise PtxError(f"a block of {threads} threads")
        self.kernel, self.blocks, self.threads, self.size = kernel, blocks, threads, blocks * threads
        self.noise, self.random = noise, np.random.default_rng(seed)
        self.clock, self.counters = Clock(blocks, threads), Counters()
        self.parameters = parameters  # their bytes
        self.shared, self.globals = memory.Shared(self, shared), memory.Global(self, arrays)
        self.registers: dict[str, np.ndarray] = {}
        self.lanes = np.arange(self.size)
        self.special = {
            "%tid.x": self.lanes % threads, "%ctaid.x": self.lanes // threads, "%laneid": self.lanes % 32,
            "%ntid.x": np.full(self.size, threads), "%nctaid.x": np.full(self.size, blocks),
        }  # fmt: skip
        self.groups: dict[int, Lanes] = {0: ALL}  # lanes that can go on, by their next instruction
        self.waiting: dict[int, Lanes] = {}  # lanes that wait for others, by their instruction
        self.done = np.zeros(self.size, bool)
        self.now: Instruction = kernel.code[0]

    # ---- lanes --------------------------------------------------------------------------------------------

    def index(self, lanes: Lanes) -> np.ndarray:
        return self.lanes[lanes]

    def each(self, value: np.ndarray, lanes: Lanes) -> np.ndarray:
        """A value for each lane, where one may stand for all."""
        return np.broadcast_to(value, self.index(lanes).shape)

    def joined(self, *groups: Lanes) -> Lanes:
        lanes = np.sort(np.concatenate([self.index(x) for x in groups]))
        return ALL if len(lanes) == self.size else lanes

    def lane_name(self, lane: int) -> str:
        return f"block {lane // self.threads}, thread {lane % self.threads}"

    def check(
        self,
        good: np.ndarray,
        lanes: np.ndarray,
        what: np.ndarray,
        message: str,
        name: Callable = lambda x: x,
    ) -> None:
        """Raises the message, of the first lane that is not good and of what belongs to it."""
        if not good.all():
            at = int(np.argmin(good))
            raise PtxError(f"{self.lane_name(int(lanes[at]))}: {message.format(name(int(what[at])))}")

    def count(self, kind: str, count: Count) -> None:
        self.counters.memory[kind, self.now.place].add(count)

    # ---- what runs next -----------------------------------------------------------------------------------

    def run(self) -> Counters:
        """The whole launch; what it wrote is in the arrays afterwards."""
        code, steps, longest = self.kernel.code, self.kernel.steps, LONGEST
        while self.groups or self.waiting:
            if not self.groups:
                self.release_blocks()
            pc = min(self.groups)
            lanes = self.groups.pop(pc)
            stop = min(self.groups, default=len(code))
            try:
                with np.errstate(all="ignore"):  # inf - inf is no error of a kernel's
                    while pc < stop and longest > 0:
                        self.now = code[pc]
                        if pc not in steps:
                            steps[pc] = decode(self.kernel, self.now)
                        lanes, pc = steps[pc](self, lanes, pc)
                        longest -= 1
            except PtxError as error:
                raise PtxError(f"{error}; at {self.now}") from error
            if longest <= 0:
                raise PtxError(f"the kernel does not end; at {self.now}")
            if len(code) <= pc < OUT:
                raise PtxError("threads run past the end of the kernel")
            if pc < OUT:
                self.resume(pc, lanes)
        self.counters.launches += 1
        self.globals.copy_back()
        return self.counters

    def resume(self, pc: int, lanes: Lanes) -> None:
        self.groups[pc] = self.joined(self.groups[pc], lanes) if pc in self.groups else lanes

    def wait(self, pc: int, lanes: Lanes) -> None:
        self.waiting[pc] = self.joined(self.waiting[pc], lanes) if pc in self.waiting else lanes

    def release_blocks(self) -> None:
        """Lets the blocks go on whose threads are all at one barrier. What waits otherwise waits for ever."""
        for pc, lanes in list(self.waiting.items()):
            self.now = self.kernel.code[pc]
            index = self.index(lanes)
            if is_warp_function(self.now):
                lane = self.lane_name(index[0])
                raise PtxError(f"{lane}: waits for lanes of its warp that do not come; at {self.now}")
            blocks, arrived = np.unique(self.clock.block_of[index], return_counts=True)
            if (arrived < self.threads).any():
                others = "others have left the kernel" if self.done.any() else "others wait elsewhere"
                raise PtxError(
                    f"block {blocks[np.argmin(arrived)]}: a barrier that {arrived.min()} of {self.threads} "
                    f"threads come to, {others}; at {self.now}"
                )
            cross_barrier(self, self.now, lanes)
            self.clock.block[blocks] += 1
            del self.waiting[pc]
            self.resume(pc + 1, lanes)
