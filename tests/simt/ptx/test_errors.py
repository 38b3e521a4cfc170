"""Every kind of error that the interpreter looks for is found in a kernel of a few lines that has it, and not
in one that differs from it by what was missing."""

import numpy as np
import pytest

from tests.simt.ptx.parse import PtxError
from tests.simt.ptx.snippets import OWN_ELEMENT, OWN_SHARED, execute

STORE_OWN = OWN_SHARED + "st.shared.u32 [%r7], %r1;"
# thread i reads what thread i + 1 wrote, but for the last
READ_NEXT = (
    "add.s32 %r10, %r3, -1; setp.ge.s32 %p1, %r1, %r10; @%p1 bra $END; ld.shared.u32 %r11, [%r7+4]; $END:"
)


def fails(body: str, message: str, **options) -> None:
    a, b = np.zeros(64, np.float32), np.zeros(64, np.float32)
    with pytest.raises(PtxError, match=message):
        execute(body, a, b, **options)


def passes(body: str, **options) -> None:
    execute(body, np.zeros(64, np.float32), np.zeros(64, np.float32), **options)


# ---- where an access lies --------------------------------------------------------------------------------


def test_a_global_access_outside_every_array():
    passes(OWN_ELEMENT + "ld.global.f32 %f1, [%d4];", threads=64)
    fails(
        OWN_ELEMENT + "ld.global.f32 %f1, [%d4+4];",
        "block 0, thread 63: an access outside every array",
        threads=64,
    )
    fails(
        OWN_ELEMENT + "st.global.f32 [%d4+-4], 0f00000000;",
        "block 0, thread 0: an access outside",
        threads=64,
    )
    fails(OWN_ELEMENT + "ld.f32 %f1, [%d4+4];", "thread 63: an access outside every array", threads=64)


def test_a_shared_access_outside_what_the_launch_gave():
    passes(STORE_OWN, shared=128)
    fails(STORE_OWN, "thread 31: an access outside the 124 bytes of shared memory", shared=124)
    fails(OWN_SHARED + "st.shared.u32 [%r7+-4], %r1;", "thread 0: an access outside", shared=128)


def test_a_misaligned_access():
    fails(
        OWN_ELEMENT + "ld.global.f64 %e1, [%d4];", "thread 1: a misaligned access of 8 bytes of global memory"
    )
    fails(OWN_ELEMENT + "ld.global.f32 %f1, [%d4+2];", "misaligned", threads=32)
    fails(
        STORE_OWN + "bar.sync 0; ld.shared.v2.u32 {%r10, %r11}, [%r7];", "thread 1: a misaligned", shared=256
    )


def test_shared_memory_that_was_not_written():
    fails(
        OWN_SHARED + "ld.shared.u32 %r8, [%r7];",
        "thread 0: shared memory is read before it is written",
        shared=128,
    )
    fails(
        STORE_OWN + "bar.sync 0; ld.shared.u32 %r8, [%r7+4];",
        "thread 31: shared memory is read before",
        shared=132,
    )


def test_an_access_outside_the_parameters():
    fails("ld.param.u32 %r10, [n+4];", "outside the parameters")


def test_a_register_that_was_not_written():
    fails("add.s32 %r10, %r11, 1;", "%r11 is read before it is written")


def test_a_division_by_zero():
    fails("div.u32 %r10, %r4, %r1;", "divided by 0")


# ---- races -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [32, 64])
def test_a_barrier_that_is_missing(threads):
    fails(
        STORE_OWN + READ_NEXT, "a race on shared memory with block 0, thread 1", threads=threads, shared=256
    )
    passes(STORE_OWN + "bar.sync 0;" + READ_NEXT, threads=threads, shared=256)


def test_a_warp_barrier_orders_a_warp_alone():
    ordered = STORE_OWN + "bar.warp.sync -1;" + READ_NEXT
    passes(ordered, threads=32, shared=256)
    fails(
        ordered, "block 0, thread 31: a race on shared memory with block 0, thread 32", threads=64, shared=256
    )


def test_a_shuffle_orders_no_memory():
    fails(
        STORE_OWN + "shfl.sync.bfly.b32 %r12|%p2, %r1, 1, 31, -1;" + READ_NEXT,
        "a race on shared memory",
        shared=256,
    )


def test_a_write_after_others_have_read():
    read_all = STORE_OWN + "bar.sync 0; ld.shared.u32 %r8, [memory+16];"
    write_one = "setp.ne.s32 %p2, %r1, 40; @%p2 bra $OUT; st.shared.u32 [memory+16], 1; $OUT:"
    fails(read_all + write_one, "block 0, thread 40: a race on shared memory", threads=64, shared=256)
    passes(read_all + "bar.sync 0;" + write_one, threads=64, shared=256)
    fails(read_all + "bar.warp.sync -1;" + write_one, "block 0, thread 40: a race", threads=64, shared=256)


def test_readers_of_several_warps_are_all_remembered():
    """Warp 1 reads; warp 0 does, twice, a barrier of its own between; it writes: a race with warp 1."""
    body = (
        STORE_OWN
        + """bar.sync 0;
        setp.lt.s32 %p3, %r1, 32;
        ld.shared.u32 %r8, [memory];
        @!%p3 bra $OUT;
        bar.warp.sync -1;
        ld.shared.u32 %r8, [memory];
        bar.warp.sync -1;
        setp.ne.s32 %p2, %r1, 3; @%p2 bra $OUT; st.shared.u32 [memory], 1; $OUT:"""
    )
    fails(
        body,
        "block 0, thread 3: a race on shared memory with block 0, thread (3[2-9]|[45]|6[0-3])",
        threads=64,
        shared=256,
    )
    passes(body, threads=32, shared=256)


def test_two_lanes_write_one_word_at_once():
    fails("st.shared.u32 [memory], %r1;", "a race on shared memory", shared=128)
    fails("st.global.u32 [%d1], %r1;", "a race on global memory")


def test_blocks_share_global_memory():
    one = OWN_ELEMENT + "st.global.u32 [%d4], %r1;"
    passes(one, blocks=2)
    fails(one + "bar.sync 0; setp.eq.s32 %p1, %r2, 0; @%p1 bra $END; ld.global.u32 %r8, [%d4+-128]; $END:",
          "block 1, thread 0: a race on global memory with block 0, thread 0", blocks=2)  # fmt: skip
    fails(
        "mul.wide.s32 %d3, %r1, 4; add.s64 %d4, %d1, %d3; st.global.u32 [%d4], %r1;",
        "a race on global",
        blocks=2,
    )
    # block 0 reads, then block 1 writes
    read_then_write = """setp.ne.s32 %p1, %r2, 0; @%p1 bra $SKIP; ld.global.u32 %r8, [%d1]; $SKIP:
        setp.ne.s32 %p1, %r4, 40; @%p1 bra $END; st.global.u32 [%d1], %r1; $END:"""
    fails(read_then_write, "block 1, thread 8: a race on global memory with block 0", blocks=2)
    passes(OWN_ELEMENT + "ld.global.u32 %r8, [%d1];", blocks=2)


def test_shared_memory_is_a_block_s_own():
    passes(STORE_OWN, blocks=3, shared=128)


# ---- who comes to a barrier ------------------------------------------------------------------------------


def test_a_barrier_in_divergent_code():
    some = "setp.lt.s32 %p1, %r1, {0}; @%p1 bra $END; bar.sync 0; $END:"
    fails(some.format(40), "block 0: a barrier that 24 of 64 threads come to, others have left", threads=64)
    passes(some.format(0), threads=64)
    passes("setp.lt.s32 %p1, %r2, 1; @%p1 bra $END; bar.sync 0; $END:", blocks=2)  # not divergent in a block
    fails("setp.lt.s32 %p1, %r1, 5; @%p1 bra $ELSE; bar.sync 0; bra $END; $ELSE: bar.sync 0; $END:",
          "others wait elsewhere")  # fmt: skip
    fails("setp.lt.s32 %p1, %r1, 5; @%p1 bra $END; bar.red.or.pred %p2, 0, %p1; $END:", "27 of 32 threads")


def test_a_warp_function_in_divergent_code():
    body = "setp.lt.s32 %p1, %r1, 7; @%p1 bra $END; shfl.sync.idx.b32 %r8|%p2, %r1, 0, 31, -1; $END:"
    fails(body, "thread 7: waits for lanes of its warp that do not come")
    fails(
        body.replace("shfl.sync.idx.b32 %r8|%p2, %r1, 0, 31, -1", "vote.sync.ballot.b32 %r8, %p1, -1"),
        "thread 7: waits",
    )
    fails(
        body.replace("shfl.sync.idx.b32 %r8|%p2, %r1, 0, 31, -1", "bar.warp.sync -1"),
        "thread 7: waits for lanes",
    )
    passes(body.replace("-1;", "0xffffff80;").replace("%r1, 0, 31", "%r1, 9, 31"))


def test_masks_of_warp_functions():
    fails(
        "shfl.sync.idx.b32 %r8|%p2, %r1, 0, 31, 0xfffffffe;",
        "thread 0: a mask that does not name the lane itself",
    )
    body = "setp.lt.s32 %p1, %r1, 7; @%p1 bra $END; shfl.sync.idx.b32 %r8|%p2, %r1, 3, 31, 0xffffff80; $END:"
    fails(body, "thread 7: a shuffle from lane 3, not in its mask")


def test_lanes_that_come_later_are_waited_for():
    """Half of the warp takes a longer way to the same shuffle, which a loop leads back to."""
    body = """mov.u32 %r10, 0; mov.u32 %r12, 0;
        $LOOP: add.s32 %r10, %r10, 1; and.b32 %r11, %r1, 7; setp.gt.s32 %p1, %r11, %r10; @%p1 bra $LOOP;
        shfl.sync.bfly.b32 %r8|%p2, %r1, 1, 31, -1; add.s32 %r12, %r12, 1; setp.lt.s32 %p3, %r12, 2;
        @%p3 bra $LOOP;"""
    passes(body + OWN_ELEMENT + "st.global.u32 [%d4], %r8;")


def test_a_kernel_that_does_not_end(monkeypatch):
    monkeypatch.setattr("tests.simt.ptx.machine.LONGEST", 1000)
    fails("$LOOP: bra $LOOP;", "does not end")


# ---- what is not known -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["tex.2d.v4.f32.s32 %f1, %f2;", "dp4a.u32.u32 %r8, %r1, %r1, %r1;", "ld.global.volatile.f32 %f1, [%d1];",
     "bar.sync 1, 32;", "vote.sync.uni.pred %p1, %p2, -1;", "ld.global.u8 %h1, [%d1];",
     "add.f16 %h1, %h1, %h2;", "setp.lt.and.s32 %p1, %r1, %r1, %p2;",
     "atom.global.add.f32 %f1, [%d1], 0f00000000;"],
)  # fmt: skip
def test_an_unknown_instruction_is_refused(line):
    fails(line, "known|operands|unknown type")
