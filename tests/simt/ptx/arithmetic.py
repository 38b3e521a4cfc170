"""What instructions compute within a lane. Each function takes the operation and numpy arrays, and gives one.

Single precision is computed in double and rounded once more, the double fma in x87's long double: a last bit
may differ from hardware's. Approximate instructions get noise of two units in the last place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.simt.ptx.operands import SIGNED, UNSIGNED, Type, parts, reader, writer
from tests.simt.ptx.parse import Instruction, Kernel, PtxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simt.ptx.machine import Lanes, Machine

    Step = Callable[[Machine, Lanes], None]

NOISE = 2  # units in the last place, either way


class Operation:
    """An opcode's parts: ``fma.rm.f32`` has the modifier ``rm`` and the type f32."""

    def __init__(self, op: tuple[str, ...]) -> None:
        self.name, self.modifiers, self.type = op[0], op[1:-1], Type.of(op[-1])
        self.kind, self.bits = self.type


# ---- floating point --------------------------------------------------------------------------------------


def rounded(op: Operation, exact: np.ndarray) -> np.ndarray:
    """A number of more digits as one of the operation's type, in the direction that it names."""
    to = op.type.numpy
    near = exact.astype(to)
    if "rm" in op.modifiers:
        return np.where(near > exact, np.nextafter(near, to(-np.inf)), near)
    if "rp" in op.modifiers:
        return np.where(near < exact, np.nextafter(near, to(np.inf)), near)
    if "rz" in op.modifiers:
        return np.where(np.abs(near) > np.abs(exact), np.nextafter(near, to(0)), near)
    return near


def _wide(op: Operation, *x: np.ndarray) -> list[np.ndarray]:
    wide = np.float64 if op.bits == 32 else np.longdouble
    return [v.astype(wide) for v in x]


def _plain(op: Operation) -> bool:
    return op.kind != "f" or not {"rm", "rp", "rz"} & set(op.modifiers)


def _two(function: np.ufunc) -> Callable:
    def compute(op: Operation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return function(x, y) if _plain(op) else rounded(op, function(*_wide(op, x, y)))

    return compute


def _fma(op: Operation, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    x, y, z = _wide(op, x, y, z)
    return rounded(op, x * y + z)


def _flush(op: Operation, x: np.ndarray) -> np.ndarray:
    """Subnormal numbers as 0 where the operation says ftz."""
    if "ftz" not in op.modifiers:
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x * x.dtype.type(0), x)


def _special(function: Callable) -> Callable:
    """A function of one number that is exact to rounding, or, as ``approx``, off by the noise."""

    def compute(op: Operation, x: np.ndarray, *, m: Machine) -> np.ndarray:
        out = _flush(op, function(_flush(op, x).astype(np.float64)).astype(x.dtype))
        return noisy(m, out) if "approx" in op.modifiers else out

    return compute


def noisy(m: Machine, x: np.ndarray) -> np.ndarray:
    """Moved by the noise, where it is no 0 and finite; hardware gives the upper half of a double alone."""
    bits = x.view(SIGNED[x.dtype.itemsize * 8])
    if x.dtype == np.float64:
        high = (bits >> 32) + m.random.integers(-m.noise, m.noise + 1, x.shape)
        moved = (high << 32).view(x.dtype)
    else:
        moved = (bits + m.random.integers(-m.noise, m.noise + 1, x.shape).astype(bits.dtype)).view(x.dtype)
    return np.where(np.isfinite(x) & (np.abs(x) >= 2 * np.finfo(x.dtype).smallest_normal), moved, x)


def _divide(op: Operation, x: np.ndarray, y: np.ndarray, *, m: Machine) -> np.ndarray:
    if op.kind != "f":
        return _whole_quotient(x, y)
    return noisy(m, x / y) if {"approx", "full"} & set(op.modifiers) else x / y


def _whole_quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rounded towards 0."""
    if np.any(y == 0):
        raise PtxError("a whole number is divided by 0")
    floor = x // y
    if x.dtype.kind == "u":
        return floor
    return floor + ((floor < 0) & (floor * y != x)).astype(x.dtype)


def _extreme(function: np.ufunc, of_floats: np.ufunc) -> Callable:
    return lambda op, x, y: (of_floats if op.kind == "f" else function)(x, y)


def _negate(op: Operation, x: np.ndarray) -> np.ndarray:
    return np.negative(x) if op.kind == "f" else (~x + x.dtype.type(1))


# ---- whole numbers ---------------------------------------------------------------------------------------


def _multiply(op: Operation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if op.kind == "f" or "lo" in op.modifiers:
        return _two(np.multiply)(op, x, y)
    if op.bits > 32:
        raise PtxError("products of more than 64 bits are not known here")
    twice = Type(op.kind, 2 * op.bits).numpy
    product = x.astype(twice) * y.astype(twice)
    return product if "wide" in op.modifiers else (product >> product.dtype.type(op.bits)).astype(x.dtype)


def _multiply_add(op: Operation, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _fma(op, x, y, z) if op.kind == "f" else _multiply(op, x, y) + z


def _shift(op: Operation, x: np.ndarray, by: np.ndarray) -> np.ndarray:
    """By as many bits as there are, or more, nothing is left but the sign."""
    most = op.bits - 1
    small = np.minimum(by, most).astype(x.dtype)
    if op.name == "shl":
        return np.where(by > most, x.dtype.type(0), x << small)
    return np.where((by > most) & (op.kind != "s"), x.dtype.type(0), x >> small)


def _length(x: np.ndarray) -> np.ndarray:
    """How many bits of an unsigned number there are from its highest one on."""
    low, high = x.astype(np.uint64) & np.uint64(0xFFFFFFFF), x.astype(np.uint64) >> np.uint64(32)
    return np.where(high > 0, 32 + np.frexp(high.astype(np.float64))[1], np.frexp(low.astype(np.float64))[1])


def _leading_zeros(op: Operation, x: np.ndarray) -> np.ndarray:
    return (op.bits - _length(x)).astype(np.uint32)


def _find_bit(op: Operation, x: np.ndarray) -> np.ndarray:
    if op.kind == "s":
        raise PtxError("bfind of signed numbers is not known here")
    length = _length(x)
    place = op.bits - length if "shiftamt" in op.modifiers else length - 1
    return np.where(length == 0, -1, place).astype(np.int32)


def _count_bits(op: Operation, x: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(np.atleast_1d(x)[:, None].view(np.uint8), axis=1)
    return bits.sum(axis=1).astype(np.uint32)


def _reverse(op: Operation, x: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    for bit in range(op.bits):
        out |= (x >> x.dtype.type(bit) & x.dtype.type(1)) << x.dtype.type(op.bits - 1 - bit)
    return out


def _insert(op: Operation, x: np.ndarray, into: np.ndarray, at: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The low ``count`` bits of x in the place of those of ``into`` from ``at`` on."""
    big = [np.asarray(v).astype(np.uint64) for v in (x, into, at & 255, count & 255)]
    mask = ((np.uint64(1) << big[3]) - np.uint64(1)) << big[2]
    return ((big[1] & ~mask) | (big[0] << big[2] & mask)).astype(UNSIGNED[op.bits])


# ---- predicates and conversions --------------------------------------------------------------------------

COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip


def _compare(op: Operation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (relation,) = op.modifiers
    if op.kind != "f" or relation in ("eq", "lt", "le", "gt", "ge"):
        return COMPARE[relation](x, y)
    unordered = np.isnan(x) | np.isnan(y)
    if relation in ("nan", "num"):
        return unordered == (relation == "nan")
    if relation == "ne":
        return (x != y) & ~unordered
    return COMPARE[relation[:2]](x, y) | unordered


ROUND = {"rni": np.rint, "rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc}


def _convert(ins: Instruction, x: np.ndarray, to: Type, source: Type) -> np.ndarray:
    for name, function in ROUND.items():
        if name in ins.op:
            x = function(x)
    if "sat" in ins.op and to.kind == "f":
        x = np.where(np.isnan(x), x.dtype.type(0), np.clip(x, 0, 1))
    if source.kind == "f" and to.kind != "f":
        ends = np.iinfo(to.numpy)
        inside = np.clip(np.where(np.isnan(x), 0, x).astype(np.longdouble), ends.min, ends.max)
        return inside.astype(to.numpy)
    return x.astype(to.numpy)


# ---- the table -------------------------------------------------------------------------------------------

FUNCTIONS: dict[str, tuple[int, Callable]] = {  # how many operands, and what it computes
    "add": (2, _two(np.add)), "sub": (2, _two(np.subtract)), "mul": (2, _multiply),
    "mad": (3, _multiply_add), "fma": (3, _fma), "neg": (1, _negate), "abs": (1, lambda op, x: np.abs(x)),
    "min": (2, _extreme(np.minimum, np.fmin)), "max": (2, _extreme(np.maximum, np.fmax)),
    "rem": (2, lambda op, x, y: x - _whole_quotient(x, y) * y),
    "and": (2, lambda op, x, y: x & y), "or": (2, lambda op, x, y: x | y), "xor": (2, lambda op, x, y: x ^ y),
    "not": (1, lambda op, x: ~x), "shl": (2, _shift), "shr": (2, _shift), "popc": (1, _count_bits),
    "clz": (1, _leading_zeros), "brev": (1, _reverse), "bfind": (1, _find_bit), "bfi": (4, _insert),
    "setp": (2, _compare), "selp": (3, lambda op, x, y, choose: np.where(choose, x, y)),
    "mov": (1, lambda op, x: x),
}  # fmt: skip
NOISY: dict[str, tuple[int, Callable]] = {
    "div": (2, _divide), "ex2": (1, _special(np.exp2)), "lg2": (1, _special(np.log2)),
    "sqrt": (1, _special(np.sqrt)), "rcp": (1, _special(np.reciprocal)),
    "rsqrt": (1, _special(lambda x: 1 / np.sqrt(x))),
}  # fmt: skip
# Operands of another type than the operation's, by their place
OTHER = {("shl", 1): "u32", ("shr", 1): "u32", ("selp", 2): "pred", ("bfi", 2): "u32", ("bfi", 3): "u32"}


def _operand_type(op: Operation, place: int) -> Type:
    if "wide" in op.modifiers and place == 2:
        return Type(op.kind, 2 * op.bits)
    other = OTHER.get((op.name, place))
    return Type.of(other) if other else op.type


def decode(kernel: Kernel, ins: Instruction) -> Step:
    """What an instruction that computes does to the lanes of a machine."""
    name, operands = ins.op[0], ins.operands
    if name == "cvt":
        to, source = Type.of(ins.op[-2]), Type.of(ins.op[-1])
        read, write = reader(kernel, operands[1], source), writer(kernel, operands[0])
        return lambda m, lanes: write(m, lanes, _convert(ins, read(m, lanes), to, source))
    if name == "mov" and "{" in ins.text:
        return _move_parts(kernel, operands, Type.of(ins.op[-1]).bits)
    if name not in FUNCTIONS and name not in NOISY:
        raise PtxError(f"unknown instruction: {ins}")
    op = Operation(ins.op)
    count, function = (FUNCTIONS.get(name) or NOISY[name])[:2]
    if len(operands) != count + 1:
        raise PtxError(f"{len(operands)} operands are not known here: {ins}")
    reads = [reader(kernel, x, _operand_type(op, i)) for i, x in enumerate(operands[1:])]
    write = writer(kernel, operands[0])
    if name in NOISY:
        return lambda m, lanes: write(m, lanes, function(op, *(read(m, lanes) for read in reads), m=m))
    return lambda m, lanes: write(m, lanes, function(op, *(read(m, lanes) for read in reads)))


def _move_parts(kernel: Kernel, operands: tuple[str, ...], bits: int) -> Step:
    """``mov.b64 {%r1, %r2}, %rd1`` takes a number apart, the low half first, or puts one together."""
    whole = Type("b", bits)
    if operands[0].startswith("{"):
        names = parts(operands[0])
        read = reader(kernel, operands[1], whole)
        half = bits // len(names)
        writes = [writer(kernel, x) for x in names]

        def take_apart(m: Machine, lanes: Lanes) -> None:
            value = read(m, lanes)
            for i, write in enumerate(writes):
                write(m, lanes, (value >> value.dtype.type(half * i)).astype(UNSIGNED[half]))

        return take_apart
    names = parts(operands[1])
    half = bits // len(names)
    reads, write = [reader(kernel, x, Type("b", half)) for x in names], writer(kernel, operands[0])

    def put_together(m: Machine, lanes: Lanes) -> None:
        wide = UNSIGNED[bits]
        value = wide(0)
        for i, read in enumerate(reads):
            value = value | read(m, lanes).astype(wide) << wide(half * i)
        write(m, lanes, value)

    return put_together
