"""A barrier of a kernel that is left out is noticed: as a race, or as shared memory that is not written yet."""

from contextlib import contextmanager

import pytest

from tests.simt.ptx import launches
from tests.simt.ptx.parse import Kernel, PtxError

pytestmark = pytest.mark.skipif(
    not (launches.BUILD / "libchain_ptx.so").exists(),
    reason="make test-cuda compiles the kernels to PTX, where nvcc is installed",
)


def barriers(kernel: Kernel) -> list[int]:
    return [
        i for i, x in enumerate(kernel.code) if x.op == ("bar", "sync") or x.op == ("bar", "warp", "sync")
    ]


@contextmanager
def without(kernel: Kernel, at: int):
    """The kernel, but that nobody waits at this instruction."""
    kept = kernel.steps.get(at)
    kernel.steps[at] = lambda m, lanes, pc: (lanes, pc + 1)
    try:
        yield
    finally:
        del kernel.steps[at]
        if kept:
            kernel.steps[at] = kept
