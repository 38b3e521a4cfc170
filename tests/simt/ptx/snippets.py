"""Kernels of a few lines of PTX for tests of the interpreter."""

from __future__ import annotations

import numpy as np

from tests.simt.ptx.counters import Counters
from tests.simt.ptx.machine import Machine
from tests.simt.ptx.parse import Module

HEAD = """
.file 1 "/x/snippet.cuh"
.extern .shared .align 16 .b8 memory[];
.visible .entry snippet(
    .param .u64 a,
    .param .u64 b,
    .param .u32 n
)
{
    .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<32>; .reg .f32 %f<32>; .reg .b64 %d<32>; .reg .f64 %e<32>;
    ld.param.u64 %d1, [a];
    ld.param.u64 %d2, [b];
    ld.param.u32 %r9, [n];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r4, %r2, %r3, %r1;
"""
# %d1, %d2: the arrays; %r1: thread; %r2: block; %r4: thread in the grid; %r9: n
OWN_ELEMENT = "mul.wide.s32 %d3, %r4, 4; add.s64 %d4, %d1, %d3; add.s64 %d5, %d2, %d3;"  # of a and of b
OWN_SHARED = "shl.b32 %r5, %r1, 2; mov.u32 %r6, memory; add.s32 %r7, %r6, %r5;"


def execute(
    body: str,
    a: np.ndarray,
    b: np.ndarray,
    *,
    blocks: int = 1,
    threads: int = 32,
    shared: int = 0,
    n: int = 0,
    noise: int = 0,
) -> Counters:
    """Runs the body on the arrays, which it may change."""
    kernel = Module(HEAD + body + "\nret;\n}")["snippet"]
    numbers = [np.array([x.ctypes.data for x in (a, b)], np.uint64), np.array([n, 0], np.uint32)]
    parameters = np.concatenate([x.view(np.uint8) for x in numbers])[:20]
    arrays = [x.reshape(-1).view(np.uint8) for x in (a, b)]
    return Machine(kernel, blocks, threads, shared, parameters, arrays, noise=noise).run()
