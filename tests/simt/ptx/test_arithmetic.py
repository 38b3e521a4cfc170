"""What the interpreter's instructions compute, beside the PTX manual; and the noise of approximate ones."""

import struct

import numpy as np
import pytest

from tests.simt.ptx.snippets import OWN_ELEMENT, execute


def result(lines: str, register: str, dtype: type) -> object:
    """What is in a register of 32 or 64 bits afterwards."""
    bits = np.dtype(dtype).itemsize * 8
    a, b = np.zeros(1, dtype), np.zeros(1, dtype)
    execute(
        f"{lines} setp.ne.s32 %p1, %r1, 0; @%p1 bra $END; st.global.b{bits} [%d1], {register}; $END:",
        a, b,
    )  # fmt: skip
    return a[0]


def f32(x: float) -> str:
    return "0f" + struct.pack(">f", x).hex()


def f64(x: float) -> str:
    return "0d" + struct.pack(">d", x).hex()


U = np.uint32
INTEGERS = [
    ("div.s32 %r8, -7, 2;", np.int32, -3),
    ("rem.s32 %r8, -7, 2;", np.int32, -1),
    ("div.s32 %r8, 7, -2;", np.int32, -3),
    ("div.s32 %r8, -8, 2;", np.int32, -4),
    ("rem.u32 %r8, 4294967295, 10;", np.uint32, 5),
    ("div.s64 %d8, -9223372036854775807, 3;", np.int64, -3074457345618258602),
    ("add.s32 %r8, 2147483647, 1;", np.int32, -(2**31)),
    ("mul.lo.s32 %r8, 65537, 65537;", np.int32, 131073),
    ("mul.hi.u32 %r8, 4294967295, 4294967295;", np.uint32, 4294967294),
    ("mul.hi.s32 %r8, -1, 1;", np.int32, -1),
    ("mul.wide.s32 %d8, -3, 5;", np.int64, -15),
    ("mul.wide.u32 %d8, 4294967295, 2;", np.int64, 8589934590),
    ("mad.lo.s32 %r8, 3, 4, -5;", np.int32, 7),
    ("mad.wide.s32 %d8, 3, -4, 4294967296;", np.int64, 2**32 - 12),
    ("shl.b32 %r8, 1, 31;", np.uint32, 2**31),
    ("shl.b32 %r8, 1, 32;", np.uint32, 0),
    ("shl.b64 %d8, 1, 63;", np.uint64, 2**63),
    ("shr.s32 %r8, -8, 1;", np.int32, -4),
    ("shr.s32 %r8, -8, 40;", np.int32, -1),
    ("shr.u32 %r8, -8, 40;", np.int32, 0),
    ("shr.u64 %d8, -1, 60;", np.uint64, 15),
    ("neg.s32 %r8, 5;", np.int32, -5),
    ("abs.s32 %r8, -5;", np.int32, 5),
    ("not.b32 %r8, 0;", np.uint32, 2**32 - 1),
    ("xor.b64 %d8, 5, 3;", np.uint64, 6),
    ("min.s32 %r8, -1, 1;", np.int32, -1),
    ("max.u32 %r8, -1, 1;", np.uint32, 2**32 - 1),
    ("popc.b32 %r8, 4278190081;", np.uint32, 9),
    ("clz.b32 %r8, 0;", np.uint32, 32),
    ("clz.b32 %r8, 1;", np.uint32, 31),
    ("clz.b64 %r8, 4294967296;", np.uint32, 31),
    ("brev.b32 %r8, 1;", np.uint32, 2**31),
    ("bfind.u32 %r8, 40;", np.uint32, 5),
    ("bfind.shiftamt.u32 %r8, 40;", np.uint32, 26),
    ("bfind.shiftamt.u32 %r8, 0;", np.int32, -1),
    ("bfi.b32 %r8, 5, 4294967295, 4, 3;", np.uint32, 0xFFFFFFDF),
    ("bfi.b32 %r8, 5, 0, 30, 32;", np.uint32, 1 << 30),
    ("setp.lt.u32 %p2, 1, -1; selp.b32 %r8, 10, 20, %p2;", np.uint32, 10),
    ("setp.lt.s32 %p2, 1, -1; selp.b32 %r8, 10, 20, %p2;", np.uint32, 20),
    ("setp.lo.u32 %p2, 1, 2; not.pred %p3, %p2; xor.pred %p4, %p3, -1; selp.b32 %r8, 1, 0, %p4;", U, 1),
    ("mov.b64 {%r8, %r10}, 12884901890; mov.b64 %d8, {%r10, %r8};", np.uint64, 3 + (2 << 32)),
    ("{ .reg .b32 %r8; mov.u32 %r8, 9; } mov.u32 %r8, 4; { .reg .b32 %r8; mov.u32 %r8, 9; }", np.uint32, 4),
    ("mov.u32 %r10, 200; cvt.s32.s8 %r8, %r10;", np.int32, -56),
    ("mov.u32 %r10, -1; cvt.s64.s32 %d8, %r10;", np.int64, -1),
    ("mov.u32 %r10, -1; cvt.u64.u32 %d8, %r10;", np.int64, 2**32 - 1),
    ("mov.u32 %r10, 65537; cvt.u16.u32 %h1, %r10; cvt.u32.u16 %r8, %h1;", np.uint32, 1),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "dtype", "expected"), INTEGERS, ids=[x[0] for x in INTEGERS])
def test_whole_numbers(lines, dtype, expected):
    assert result(lines, "%d8" if np.dtype(dtype).itemsize == 8 else "%r8", dtype) == expected


INF, NAN, TINY = float("inf"), float("nan"), 2.0**-126
FLOATS = [
    (f"div.rn.f32 %f8, {f32(1)}, {f32(3)};", np.float32, np.float32(1) / np.float32(3)),
    (f"fma.rn.f32 %f8, {f32(1 + 2**-20)}, {f32(1 + 2**-20)}, {f32(-1)};", np.float32, 2**-19 + 2**-40),
    (f"fma.rm.f32 %f8, {f32(1)}, {f32(-(2**-30))}, {f32(1)};", np.float32, 1 - 2**-24),
    (f"fma.rm.f32 %f8, {f32(1)}, {f32(2**-30)}, {f32(1)};", np.float32, 1),
    (f"add.rz.f32 %f8, {f32(-1)}, {f32(2**-30)};", np.float32, -(1 - 2**-24)),
    (f"add.rp.f32 %f8, {f32(1)}, {f32(2**-30)};", np.float32, 1 + 2**-23),
    (f"fma.rn.f64 %e8, {f64(1 + 2**-30)}, {f64(1 + 2**-30)}, {f64(-1)};", np.float64, 2**-29 + 2**-60),
    (f"sub.f64 %e8, {f64(INF)}, {f64(INF)};", np.float64, NAN),
    (f"max.f32 %f8, {f32(NAN)}, {f32(1)};", np.float32, 1),
    (f"min.f64 %e8, {f64(-INF)}, {f64(NAN)};", np.float64, -INF),
    (f"neg.f32 %f8, {f32(0)};", np.float32, -0.0),
    (f"abs.f64 %e8, {f64(-2)};", np.float64, 2),
    (f"sqrt.rn.f64 %e8, {f64(2)};", np.float64, 2**0.5),
    (f"rcp.rn.f64 %e8, {f64(3)};", np.float64, 1 / 3),
    (f"cvt.sat.f32.f32 %f8, {f32(NAN)};", np.float32, 0),
    (f"cvt.sat.f32.f32 %f8, {f32(7)};", np.float32, 1),
    (f"cvt.rn.f32.f64 %f8, {f64(1 + 2**-24 + 2**-50)};", np.float32, 1 + 2**-23),
    ("cvt.rn.f64.s64 %e8, -5;", np.float64, -5),
    (f"cvt.rni.f64.f64 %e8, {f64(2.5)};", np.float64, 2),
    (f"cvt.rzi.s64.f64 %d8, {f64(-2.9)};", np.int64, -2),
    (f"cvt.rzi.s64.f64 %d8, {f64(1e30)};", np.int64, 2**63 - 1),
    (f"cvt.rzi.u32.f32 %r8, {f32(-3)};", np.uint32, 0),
    (f"ex2.approx.ftz.f32 %f8, {f32(-127)};", np.float32, 0),
    (f"ex2.approx.f32 %f8, {f32(-INF)};", np.float32, 0),
    (f"lg2.approx.ftz.f32 %f8, {f32(TINY / 2)};", np.float32, -INF),
    (f"rcp.approx.ftz.f64 %e8, {f64(-0.0)};", np.float64, -INF),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "dtype", "expected"), FLOATS, ids=[x[0] for x in FLOATS])
def test_floating_point(lines, dtype, expected):
    register = (
        "%f8" if dtype == np.float32 else "%e8" if dtype == np.float64 else "%" + lines.split("%")[1][:2]
    )
    found = result(lines, register, dtype)
    np.testing.assert_equal(found, dtype(expected))


@pytest.mark.parametrize("relation", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("other", [0.0, 1.0, 2.0, NAN])
def test_comparisons_of_numbers_that_may_be_nan(relation, other):
    ordered = not np.isnan(other)
    holds = getattr(np.float64(1), f"__{relation}__")(np.float64(other))
    for suffix, expected in (("", ordered and holds), ("u", not ordered or holds)):
        lines = f"setp.{relation}{suffix}.f64 %p2, {f64(1)}, {f64(other)}; selp.u32 %r8, 1, 0, %p2;"
        assert result(lines, "%r8", np.uint32) == expected


def test_shuffles_ballots_and_votes_of_a_block():
    a, b = np.zeros(64, np.uint32), np.zeros(64, np.uint32)
    kinds = {"bfly": (5, 31, lambda i: i ^ 5), "up": (3, 0, lambda i: i - 3 if i >= 3 else i),
             "down": (3, 31, lambda i: i + 3 if i < 29 else i), "idx": (9, 31, lambda i: 9)}  # fmt: skip
    for kind, (by, clamp, source) in kinds.items():
        shuffle = f"shfl.sync.{kind}.b32 %r8|%p2, %r1, {by}, {clamp}, -1;"
        execute(OWN_ELEMENT + shuffle + "st.global.u32 [%d4], %r8;", a, b, threads=64)
        assert a.tolist() == [32 * w + source(i) for w in range(2) for i in range(32)]
    ballot = "and.b32 %r10, %r4, 1; setp.eq.s32 %p2, %r10, 1; vote.sync.ballot.b32 %r8, %p2, -1;"
    execute(OWN_ELEMENT + ballot + "st.global.u32 [%d4], %r8;", a, b, threads=64)
    assert set(a.tolist()) == {0xAAAAAAAA}
    some = "setp.eq.s32 %p1, %r4, 40; bar.red.or.pred %p2, 0, %p1; selp.u32 %r8, 1, 0, %p2;"
    execute(OWN_ELEMENT + some + "st.global.u32 [%d4], %r8;", a, b, blocks=2)
    assert a.tolist() == [0] * 32 + [1] * 32


def test_a_branch_that_divides_a_warp_and_a_loop_of_different_lengths():
    """Each thread adds up 1 .. its number; generic addresses reach both kinds of memory."""
    body = (
        OWN_ELEMENT
        + """mov.u32 %r10, 0; mov.u32 %r11, %r1;
        setp.eq.s32 %p1, %r11, 0; @%p1 bra $DONE;
        $LOOP: add.s32 %r10, %r10, %r11; add.s32 %r11, %r11, -1; setp.ne.s32 %p2, %r11, 0; @%p2 bra $LOOP;
        $DONE: mov.u64 %d6, memory; cvta.shared.u64 %d7, %d6; mul.wide.s32 %d8, %r1, 4; add.s64 %d9, %d7, %d8;
        st.u32 [%d9], %r10; bar.sync 0; and.b32 %r12, %r1, 1; setp.eq.s32 %p3, %r12, 0; @%p3 mov.u64 %d9, %d5;
        ld.u32 %r13, [%d9]; @!%p3 add.s32 %r13, %r13, 1000; st.global.u32 [%d4], %r13;"""
    )
    a, b = np.zeros(32, np.uint32), np.arange(500, 532, dtype=np.uint32)
    execute(body, a, b, shared=128)
    assert a.tolist() == [500 + i if i % 2 == 0 else i * (i + 1) // 2 + 1000 for i in range(32)]


@pytest.mark.parametrize(
    "function", ["ex2.approx.ftz.f32", "lg2.approx.f32", "rcp.approx.f32", "sqrt.approx.f32"]
)
def test_approximate_functions_are_off_by_up_to_two_units(function):
    exact = {"ex2": np.exp2, "lg2": np.log2, "rcp": lambda x: 1 / x, "sqrt": np.sqrt}[
        function[:4].strip(".")[:4].split(".")[0]
    ]
    a, b = np.zeros(1024, np.float32), np.linspace(1.5, 9, 1024, dtype=np.float32)
    body = OWN_ELEMENT + f"ld.global.f32 %f1, [%d5]; {function} %f2, %f1; st.global.f32 [%d4], %f2;"
    right = exact(b.astype(np.float64)).astype(np.float32)
    execute(body, a, b, threads=1024, noise=2)
    off = np.abs(a.view(np.int32) - right.view(np.int32))
    assert set(off.tolist()) == {0, 1, 2}
    execute(body, a, b, threads=1024)
    assert (a == right).all()
    counters = execute(body, a, b, threads=1024, noise=2)
    assert counters.special == 32


def test_the_approximate_reciprocal_of_a_double_has_half_its_digits():
    a, b = np.zeros(32), np.linspace(1, 3, 32)
    body = """mul.wide.s32 %d3, %r4, 8; add.s64 %d4, %d1, %d3; add.s64 %d5, %d2, %d3;
        ld.global.f64 %e1, [%d5]; rcp.approx.ftz.f64 %e2, %e1; st.global.f64 [%d4], %e2;"""
    execute(body, a, b, noise=2)
    assert ((a.view(np.uint64) & np.uint64(0xFFFFFFFF)) == 0).all()
    assert 0 < np.abs(a * b - 1).max() < 2.0**-17
