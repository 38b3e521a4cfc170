"""Operands of instructions: functions that read them from, or write them to, the lanes of a machine.

A value is an array with a number for each lane at work, or one number for all. Registers hold bits, as
unsigned integers (predicates: bool); what they mean is up to the instruction.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tests.simt.ptx.parse import Kernel, PtxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simt.ptx.machine import Lanes, Machine

    Read = Callable[[Machine, Lanes], np.ndarray]

UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT = {32: np.float32, 64: np.float64}
SHARED_WINDOW = 1 << 60  # where generic addresses see shared memory
LITERALS = {"0f": np.uint32, "0F": np.uint32, "0d": np.uint64, "0D": np.uint64}


class Type(NamedTuple):
    kind: str  # s, u, b (bits), f or p (predicate)
    bits: int

    @staticmethod
    @functools.cache
    def of(text: str) -> Type:
        if text == "pred":
            return Type("p", 1)
        found = re.fullmatch(r"([subf])(\d+)", text)
        if found is None or (found[1] == "f" and int(found[2]) not in FLOAT):
            raise PtxError(f"unknown type {text}")
        return Type(found[1], int(found[2]))

    @property
    def numpy(self) -> type:
        if self.kind == "p":
            return np.bool_
        return {"s": SIGNED, "f": FLOAT}.get(self.kind, UNSIGNED)[self.bits]


def as_type(bits: np.ndarray, to: Type) -> np.ndarray:
    """The low bits of a register, understood as a number of this type."""
    if to.kind == "p":
        return bits
    if bits.dtype.itemsize * 8 > to.bits:
        bits = bits.astype(UNSIGNED[to.bits])
    if bits.dtype.itemsize * 8 < to.bits:
        raise PtxError(f"a register of {bits.dtype.itemsize * 8} bits is read as {to.bits} bits")
    return bits.view(to.numpy)


def _literal(text: str, to: Type) -> np.generic | None:
    if text[:2] in LITERALS and to.kind != "p":
        return as_type(LITERALS[text[:2]](int(text[2:], 16)), to)
    if not re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", text):
        return None
    number = int(text.rstrip("U"), 0)
    if to.kind == "p":
        return np.bool_(number != 0)
    return UNSIGNED[to.bits](number & ((1 << to.bits) - 1)).view(to.numpy)


def reader(kernel: Kernel, text: str, to: Type) -> Read:
    """What reads an operand as this type; ``!`` before a predicate negates it."""
    if text.startswith("!"):
        positive = reader(kernel, text[1:], to)
        return lambda m, lanes: ~positive(m, lanes)
    if text.startswith("%"):
        if "." in text or text == "%laneid":
            return lambda m, lanes: m.special[text][lanes].astype(UNSIGNED[to.bits]).view(to.numpy)

        def read(m: Machine, lanes: Lanes) -> np.ndarray:
            try:
                return as_type(m.registers[text][lanes], to)
            except KeyError:
                raise PtxError(f"{text} is read before it is written") from None

        return read
    value = _literal(text, to)
    if value is None and text in kernel.shared:
        value = to.numpy(0)  # dynamic shared memory is all there is
    if value is None and text in kernel.parameters:
        value = to.numpy(kernel.parameters[text][0])
    if value is None:
        raise PtxError(f"unknown operand {text}")
    return lambda m, lanes: value


def writer(kernel: Kernel, name: str) -> Callable[[Machine, Lanes, np.ndarray], None]:
    """What writes a register; a narrower number is extended, with its sign if it has one."""
    if name == "_":
        return lambda m, lanes, value: None
    width = kernel.width(name)
    dtype = np.bool_ if width == 1 else UNSIGNED[width]

    def write(m: Machine, lanes: Lanes, value: np.ndarray) -> None:
        if value.dtype != dtype:
            if value.dtype.itemsize * 8 == width:
                value = value.view(dtype)
            elif value.dtype.kind in "iu":
                value = value.astype(dtype)
            else:
                raise PtxError(f"{value.dtype} is written to {name}, which has {width} bits")
        register = m.registers.get(name)
        if register is None:
            register = m.registers[name] = np.zeros(m.size, dtype)
        register[lanes] = value

    return write


def address(kernel: Kernel, text: str) -> Read:
    """``[base+offset]`` as whole numbers that may be negative."""
    base, _, offset = text.strip("[]").partition("+")
    bits = kernel.width(base) if base.startswith("%") else 64
    read, more = reader(kernel, base.strip(), Type("u", bits)), int(offset or 0)
    return lambda m, lanes: read(m, lanes).astype(np.int64) + more


def parts(text: str) -> list[str]:
    """``{%r1, %r2}``: the operands of a vector, or the operand itself."""
    return [x.strip() for x in text.strip("{}").split(",")]
