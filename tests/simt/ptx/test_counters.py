"""What is counted of memory accesses of known patterns."""

import numpy as np
import pytest

from tests.simt.ptx.counters import bank_passes, sectors
from tests.simt.ptx.snippets import execute

LANE = np.arange(32)


@pytest.mark.parametrize(
    ("index", "size", "used", "ideal"),
    [(LANE, 4, 4, 4), (LANE + 1, 4, 5, 4), (LANE * 0, 4, 1, 1), (LANE * 2, 4, 8, 4), (LANE * 8, 4, 32, 4),
     (LANE, 8, 8, 8), (LANE // 8 * 100 + LANE % 8, 4, 6, 4), (LANE[:3], 4, 1, 1), (LANE, 16, 16, 16)],
)  # fmt: skip
def test_sectors(index, size, used, ideal):
    count = sectors(0 * index, index * size, size)
    assert (count.requests, count.used, count.ideal) == (1, used, ideal)


def test_sectors_of_several_warps_add_up():
    lanes = np.arange(96)
    count = sectors(lanes // 32, lanes // 32 * 4096 + lanes % 32 * 8, 4)
    assert (count.requests, count.used, count.ideal) == (3, 24, 12)
    assert count.ratio == 2


@pytest.mark.parametrize(
    ("index", "size", "used", "ideal"),
    [(LANE, 4, 1, 1), (LANE * 0, 4, 1, 1), (LANE * 2, 4, 2, 1), (LANE * 32, 4, 32, 1), (LANE * 33, 4, 1, 1),
     (LANE % 2 * 32, 4, 2, 1), (LANE, 8, 2, 2), (LANE * 2, 8, 4, 2), (LANE, 16, 4, 4), (LANE[:1], 4, 1, 1)],
)  # fmt: skip
def test_passes_over_banks(index, size, used, ideal):
    count = bank_passes(LANE[: len(index)], index * size, size)
    assert (count.requests, count.used, count.ideal) == (1, used, ideal)


def test_counts_have_the_place_of_the_source():
    body = """.loc 1 7 0
        mul.wide.s32 %d3, %r4, 32; add.s64 %d4, %d1, %d3; ld.global.f32 %f1, [%d4];
        .loc 1 8 0
        shl.b32 %r5, %r1, 3; mov.u32 %r6, memory; add.s32 %r7, %r6, %r5; st.shared.f32 [%r7], %f1;"""
    a, b = np.zeros(512, np.float32), np.zeros(1, np.float32)
    counters = execute(body, a, b, threads=64, shared=512)
    assert {k: (v.requests, v.used, v.ideal) for k, v in counters.memory.items()} == {
        ("load", "snippet.cuh:7"): (2, 64, 8),
        ("shared store", "snippet.cuh:8"): (2, 4, 2),
    }
