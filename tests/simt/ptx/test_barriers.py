"""Each barrier that a problem's kernels reach is left out in turn, which is noticed: as a race, or as shared
memory that is not written yet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.simt.ptx import launches
from tests.simt.ptx.parse import Kernel, PtxError

pytestmark = pytest.mark.skipif(not launches.COMPILED, reason=launches.WHY_NOT)

PROBLEMS = [("chain", "shared")]
if os.environ.get("STRUCTLV_PTX") == "all":
    PROBLEMS += [("chain", "log space"), ("chain_filter", "holes"), ("factorial", "small")]
    PROBLEMS += [("lowrank", "smallest"), ("pcfg", "aligned")]
NOT_MISSED = {
    "factorial_backward.cuh:156",  # by items of more than one step
    "pcfg_choose.cuh:102",  # where the next draw of a tree has another barrier before it
}


def barriers(kernel: Kernel) -> list[int]:
    """Those that kernels which ran have come to."""
    return [i for i in kernel.steps if kernel.code[i].op in (("bar", "sync"), ("bar", "warp", "sync"))]


@contextmanager
def without(kernel: Kernel, at: int) -> Iterator[None]:
    """The kernel, but that nobody waits at this instruction."""
    kept = kernel.steps[at]
    kernel.steps[at] = lambda m, lanes, pc: (lanes, pc + 1)
    try:
        yield
    finally:
        kernel.steps[at] = kept


def said_of(driver: launches.Driver, problem: str) -> str:
    try:
        driver.run(problem)
    except PtxError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("structure", "problem"), PROBLEMS)
def test_a_barrier_that_is_left_out_is_noticed(structure, problem):
    kernels = [launches.find_kernel(x) for x in launches.module(structure).texts]
    for kernel in kernels:
        kernel.steps.clear()
    driver = launches.Driver(structure)
    driver.run(problem)
    reached = [(x, at) for x in kernels if "double" not in launches.readable(x.name) for at in barriers(x)]
    assert reached
    not_missed = set()
    for kernel, at in reached:
        with without(kernel, at):
            said = said_of(driver, problem)
        if not said:
            not_missed.add(kernel.code[at].place)
        else:
            assert "a race on" in said or "before it is written" in said, said
    assert not_missed <= NOT_MISSED
