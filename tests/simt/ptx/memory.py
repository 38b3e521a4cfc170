"""Memory as a kernel sees it: every access is looked up, and what it may not be is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.simt.ptx.counters import bank_passes, sectors
from tests.simt.ptx.operands import SHARED_WINDOW, UNSIGNED, Type, address, as_type, parts, reader, writer
from tests.simt.ptx.parse import Instruction, Kernel, PtxError
from tests.simt.ptx.races import Clock, Shadow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simt.ptx.machine import Lanes, Machine

    Step = Callable[[Machine, Lanes], None]

ALIGNMENT = 256  # of what cudaMalloc gives; banks repeat every 128 bytes


class Space:
    """Global memory, or the shared memory of all blocks, as bytes in a row."""

    def __init__(self, name: str, size: int, clock: Clock) -> None:
        self.name = name
        self.bytes = np.full(-(-size // ALIGNMENT) * ALIGNMENT, 0xFF, np.uint8)
        self.shadow = Shadow(len(self.bytes) // 4, clock)

    def places(self, m: Machine, lanes: np.ndarray, addresses: np.ndarray, size: int) -> np.ndarray:
        raise NotImplementedError


class Shared(Space):
    def __init__(self, m: Machine, size: int) -> None:
        self.size, self.stride = size, -(-size // ALIGNMENT) * ALIGNMENT
        super().__init__("shared", self.stride * m.blocks, m.clock)
        self.written = np.zeros(len(self.bytes) // 4, bool)

    def places(self, m: Machine, lanes: np.ndarray, addresses: np.ndarray, size: int) -> np.ndarray:
        m.check((addresses >= 0) & (addresses + size <= self.size), lanes, addresses,
                f"an access outside the {self.size} bytes of shared memory, at {{}}")  # fmt: skip
        return addresses + m.clock.block_of[lanes] * self.stride


class Global(Space):
    """A copy of arrays of the host, in ascending order. A kernel sees the host's addresses."""

    def __init__(self, m: Machine, arrays: list[np.ndarray]) -> None:
        self.arrays = sorted(arrays, key=lambda x: x.ctypes.data)
        self.begins = np.array([x.ctypes.data for x in self.arrays], np.int64)
        self.sizes = np.array([x.size for x in self.arrays], np.int64)
        room = -(-self.sizes // ALIGNMENT) * ALIGNMENT
        self.starts = np.cumsum(room) - room
        super().__init__("global", int(room.sum()), m.clock)
        for array, start in zip(self.arrays, self.starts, strict=True):
            self.bytes[start : start + array.size] = array

    def places(self, m: Machine, lanes: np.ndarray, addresses: np.ndarray, size: int) -> np.ndarray:
        at = np.searchsorted(self.begins, addresses, side="right") - 1
        offset = addresses - self.begins[at]
        m.check((at >= 0) & (offset + size <= self.sizes[at]), lanes, addresses,
                "an access outside every array, at {:#x}")  # fmt: skip
        return offset + self.starts[at]

    def copy_back(self) -> None:
        for array, start in zip(self.arrays, self.starts, strict=True):
            array[:] = self.bytes[start : start + array.size]


def access(
    m: Machine, space: Space, lanes: np.ndarray, addresses: np.ndarray, size: int, write: bool
) -> np.ndarray:
    """Checks and counts an access of `size` bytes by each lane; returns the first word of each."""
    if size < 4:
        raise PtxError("accesses of less than four bytes are not known here")
    places = space.places(m, lanes, addresses, size)
    m.check(
        places % size == 0,
        lanes,
        addresses,
        f"a misaligned access of {size} bytes of {space.name} memory, at {{:#x}}",
    )
    words, owners = places // 4, lanes
    if size > 4:
        words = (words[:, None] + np.arange(size // 4)).ravel()
        owners = np.repeat(lanes, size // 4)
    others = (space.shadow.write if write else space.shadow.read)(words, owners)
    if (others >= 0).any():
        m.check(others < 0, owners, others, f"a race on {space.name} memory with {{}}", m.lane_name)
    kind = "store" if write else "load"
    if isinstance(space, Shared):
        if write:
            space.written[words] = True
        else:
            m.check(
                space.written[words], owners, words, "shared memory is read before it is written, word {}"
            )
        m.count("shared " + kind, bank_passes(lanes, places, size))
    else:
        m.count(kind, sectors(lanes // 32, places, size))
    return places


def _spaces(m: Machine, name: str, lanes: np.ndarray, addresses: np.ndarray):
    """(space, which of the lanes, their addresses there); a generic address says which space it means."""
    if name == "shared":
        return [(m.shared, slice(None), addresses)]
    if name == "global":
        return [(m.globals, slice(None), addresses)]
    shared = addresses >= SHARED_WINDOW
    return [
        (space, which, addresses[which] - base)
        for space, which, base in ((m.shared, shared, SHARED_WINDOW), (m.globals, ~shared, 0))
        if which.any()
    ]


def _space_of(ins: Instruction) -> str:
    return next((x for x in ins.op if x in ("param", "shared", "global")), "generic")


def decode(kernel: Kernel, ins: Instruction) -> Step:
    """``ld``, ``st`` and ``cvta``."""
    if ins.op[0] == "cvta":
        base = 0 if "global" in ins.op else -SHARED_WINDOW if "to" in ins.op else SHARED_WINDOW
        read, write = reader(kernel, ins.operands[1], Type("u", 64)), writer(kernel, ins.operands[0])
        return lambda m, lanes: write(m, lanes, read(m, lanes) + np.uint64(base % 2**64))
    of, space = Type.of(ins.op[-1]), _space_of(ins)
    if set(ins.op[1:-1]) - {space, "v2", "v4", "nc"}:
        raise PtxError(f"unknown instruction: {ins}")
    where, values = (ins.operands[1], ins.operands[0]) if ins.op[0] == "ld" else ins.operands
    find, size = address(kernel, where), of.bits // 8
    if space == "param":
        return _load_parameters(parts(values), kernel, of, find)
    if ins.op[0] == "ld":
        return _load(space, [writer(kernel, x) for x in parts(values)], of, find, size)
    return _store(space, [reader(kernel, x, Type("b", of.bits)) for x in parts(values)], find, size)


def _load_parameters(names: list[str], kernel: Kernel, of: Type, find: Callable) -> Step:
    writes, size = [writer(kernel, x) for x in names], of.bits // 8

    def step(m: Machine, lanes: Lanes) -> None:
        at = np.asarray(find(m, lanes)).reshape(-1)
        if (at < 0).any() or (at + size * len(writes) > len(m.parameters)).any():
            raise PtxError("an access outside the parameters")
        for i, write in enumerate(writes):
            found = m.parameters[(at + i * size)[:, None] + np.arange(size)].view(UNSIGNED[of.bits])[:, 0]
            write(m, lanes, as_type(found, of))

    return step


def _load(space: str, writes: list, of: Type, find: Callable, size: int) -> Step:
    def step(m: Machine, lanes: Lanes) -> None:
        index, addresses = m.index(lanes), m.each(find(m, lanes), lanes)
        found = np.empty((len(index), len(writes)), UNSIGNED[of.bits])
        for memory, which, at in _spaces(m, space, index, addresses):
            places = access(m, memory, index[which], at, size * len(writes), False)
            found[which] = memory.bytes.view(found.dtype)[(places // size)[:, None] + np.arange(len(writes))]
        for i, write in enumerate(writes):
            write(m, lanes, as_type(np.ascontiguousarray(found[:, i]), of))

    return step


def _store(space: str, reads: list, find: Callable, size: int) -> Step:
    def step(m: Machine, lanes: Lanes) -> None:
        index, addresses = m.index(lanes), m.each(find(m, lanes), lanes)
        for memory, which, at in _spaces(m, space, index, addresses):
            places = access(m, memory, index[which], at, size * len(reads), True)
            for i, read in enumerate(reads):
                memory.bytes.view(UNSIGNED[size * 8])[places // size + i] = m.each(read(m, lanes), lanes)[
                    which
                ]

    return step
