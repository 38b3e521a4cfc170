"""Instructions that decide which lanes go on, or in which lanes meet: branches, barriers, warp functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.simt.ptx import arithmetic, memory
from tests.simt.ptx.operands import Type, reader, writer
from tests.simt.ptx.parse import Instruction, Kernel, PtxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simt.ptx.machine import Lanes, Machine

    Step = Callable[[Machine, Lanes, int], tuple[Lanes, int]]  # to the lanes that go on, and where

OUT = 1 << 30  # where no lane goes on from: all wait, are done, or were put back among the groups
PREDICATE, WORD = Type("p", 1), Type("u", 32)
SPECIAL = {"ex2", "lg2", "rcp", "rsqrt", "sqrt"}  # special functions, where approximate


def is_warp_function(ins: Instruction) -> bool:
    return ins.op[0] in ("shfl", "vote") or ins.op[:2] == ("bar", "warp")


def decode(kernel: Kernel, ins: Instruction) -> Step:
    name = ins.op[0]
    if name == "bra":
        return _branch(kernel, ins)
    if ins.guard and name not in ("ret", "exit") and (is_warp_function(ins) or name == "bar"):
        raise PtxError(f"a guarded {name} is not known here: {ins}")
    if is_warp_function(ins):
        return _warp_function(kernel, ins)
    if name == "bar":
        return _barrier(ins)
    if name in ("ret", "exit"):
        return _guarded(kernel, ins, _leave)
    if name in ("ld", "st", "cvta"):
        return _guarded(kernel, ins, memory.decode(kernel, ins))
    compute = arithmetic.decode(kernel, ins)
    return _guarded(kernel, ins, _counted(compute) if name in SPECIAL and "approx" in ins.op else compute)


def _counted(compute: Callable) -> Callable:
    def step(m: Machine, lanes: Lanes) -> None:
        m.counters.special += len(np.unique(m.clock.warp_of[lanes]))
        compute(m, lanes)

    return step


def _leave(m: Machine, lanes: Lanes) -> None:
    m.done[lanes] = True


def _guarded(kernel: Kernel, ins: Instruction, act: Callable) -> Step:
    """`act` for the lanes that the guard lets through; all go on, but for those that leave."""
    leaves = act is _leave
    if not ins.guard:

        def always(m: Machine, lanes: Lanes, pc: int) -> tuple[Lanes, int]:
            act(m, lanes)
            return lanes, OUT if leaves else pc + 1

        return always
    read = _guard(kernel, ins)

    def sometimes(m: Machine, lanes: Lanes, pc: int) -> tuple[Lanes, int]:
        chosen = m.each(read(m, lanes), lanes)
        index = m.index(lanes)
        if chosen.any():
            act(m, index[chosen])
        if not leaves:
            return lanes, pc + 1
        return index[~chosen], OUT if chosen.all() else pc + 1

    return sometimes


def _guard(kernel: Kernel, ins: Instruction) -> Callable:
    return reader(kernel, ("!" if ins.negated else "") + ins.guard, PREDICATE)


def _branch(kernel: Kernel, ins: Instruction) -> Step:
    target = kernel.labels[ins.operands[0]]
    if not ins.guard:
        return lambda m, lanes, pc: (lanes, target)
    read = _guard(kernel, ins)

    def step(m: Machine, lanes: Lanes, pc: int) -> tuple[Lanes, int]:
        taken = m.each(read(m, lanes), lanes)
        if taken.all():
            return lanes, target
        if not taken.any():
            return lanes, pc + 1
        index = m.index(lanes)
        m.resume(target, index[taken])
        m.resume(pc + 1, index[~taken])
        return lanes, OUT

    return step


# ---- barriers --------------------------------------------------------------------------------------------


def _barrier(ins: Instruction) -> Step:
    whole = (ins.op == ("bar", "sync") and ins.operands == ("0",)) or (
        ins.op[:2] == ("bar", "red") and ins.operands[1] == "0" and len(ins.operands) == 3
    )
    if not whole:
        raise PtxError(f"barriers of a part of a block are not known here: {ins}")

    def step(m: Machine, lanes: Lanes, pc: int) -> tuple[Lanes, int]:
        m.wait(pc, lanes)
        return lanes, OUT

    return step


def cross_barrier(m: Machine, ins: Instruction, lanes: Lanes) -> None:
    """All threads of some blocks have come; ``bar.red.or.pred %p2, 0, %p1``: does any bring true?"""
    if ins.op[1] != "red":
        return
    if ins.op[2] not in ("or", "and"):
        raise PtxError(f"unknown instruction: {ins}")
    mine = m.each(reader(m.kernel, ins.operands[2], PREDICATE)(m, lanes), lanes).reshape(-1, m.threads)
    all_of_block = mine.any(1) if ins.op[2] == "or" else mine.all(1)
    writer(m.kernel, ins.operands[0])(m, lanes, np.repeat(all_of_block, m.threads))


# ---- warp functions --------------------------------------------------------------------------------------


def _warp_function(kernel: Kernel, ins: Instruction) -> Step:
    read_mask = reader(kernel, ins.operands[-1], WORD)
    act = {"shfl": _shuffle, "vote": _vote, "bar": _sync_warp}[ins.op[0]](kernel, ins)

    def step(m: Machine, lanes: Lanes, pc: int) -> tuple[Lanes, int]:
        if pc in m.waiting:
            lanes = m.joined(m.waiting.pop(pc), lanes)
        index, mask = m.index(lanes), m.each(read_mask(m, lanes), lanes)
        here = _all_here(m, index, mask)
        if here.all():
            act(m, lanes, mask)
            return lanes, pc + 1
        m.wait(pc, index[~here])
        ready = index[here]
        if len(ready) == 0:
            return lanes, OUT
        act(m, ready, mask[here])
        return ready, pc + 1

    return step


def _all_here(m: Machine, index: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whether all lanes that a lane's mask names have come, with the same mask."""
    bits = np.uint32(1) << (index % 32).astype(np.uint32)
    m.check((mask & bits) != 0, index, mask, "a mask that does not name the lane itself, {:#x}")
    _, group = np.unique(index // 32 << 32 | mask, return_inverse=True)
    come = np.zeros(group.max() + 1, np.uint32)
    np.bitwise_or.at(come, group, bits)
    return come[group] == mask


def _shuffle(kernel: Kernel, ins: Instruction) -> Callable:
    into, _, valid = ins.operands[0].partition("|")
    write, write_valid = writer(kernel, into.strip()), writer(kernel, valid.strip() or "_")
    read, read_by, read_clamp = (reader(kernel, x, WORD) for x in ins.operands[1:4])
    kind = ins.op[2]

    def act(m: Machine, lanes: Lanes, mask: np.ndarray) -> None:
        index = m.index(lanes)
        lane, by, clamp = (
            index % 32,
            read_by(m, lanes).astype(np.int64) & 31,
            read_clamp(m, lanes).astype(np.int64),
        )
        segment = clamp >> 8 & 31
        most, least = lane & segment | clamp & 31 & ~segment, lane & segment
        source = {"bfly": lane ^ by, "up": lane - by, "down": lane + by, "idx": least | by & ~segment}[kind]
        inside = source >= most if kind == "up" else source <= most
        source = np.where(inside, source, lane)
        m.check(
            mask >> source.astype(np.uint32) & 1 != 0,
            index,
            source,
            "a shuffle from lane {}, not in its mask",
        )
        values = np.zeros(m.size, np.uint32)
        values[index] = read(m, lanes)
        write(m, lanes, values[index - lane + source])
        write_valid(m, lanes, inside)

    return act


def _vote(kernel: Kernel, ins: Instruction) -> Callable:
    write, read, kind = writer(kernel, ins.operands[0]), reader(kernel, ins.operands[1], PREDICATE), ins.op[2]
    if kind not in ("ballot", "any", "all"):
        raise PtxError(f"unknown instruction: {ins}")

    def act(m: Machine, lanes: Lanes, mask: np.ndarray) -> None:
        index = m.index(lanes)
        mine = m.each(read(m, lanes), lanes)
        votes = np.zeros(m.size // 32, np.uint32)
        np.bitwise_or.at(votes, index // 32, mine.astype(np.uint32) << (index % 32).astype(np.uint32))
        ballot = votes[index // 32] & mask
        write(m, lanes, {"ballot": ballot, "any": ballot != 0, "all": ballot == mask}[kind])

    return act


def _sync_warp(kernel: Kernel, ins: Instruction) -> Callable:
    def act(m: Machine, lanes: Lanes, mask: np.ndarray) -> None:
        """Orders memory where it is the whole warp that has come."""
        m.clock.warp[np.unique(m.index(lanes)[mask == 0xFFFFFFFF] // 32)] += 1

    return act
