"""Every kernel as nvcc compiles it, on small problems of the drivers, in float32 and float64, with noise on
the approximate instructions. Results are compared with plain float64 recursions; accesses and barriers are
checked.

``make test-cuda`` runs the problems that are named here; ``STRUCTLV_PTX=all``, as in ``make experiments``,
all of the drivers' but the largest.
"""

import os

import pytest

from tests.simt.ptx import launches
from tests.simt.ptx.parse import PtxError

pytestmark = pytest.mark.skipif(not launches.COMPILED, reason=launches.WHY_NOT)

FEW = {
    "noise": ["rows", "spans", "one word"],
    "chain": ["partly shared", "holes", "per step", "log space", "impossible", "not resident"],
    "chain_filter": ["holes", "per step", "not resident"],
    "chain_distinct": ["fewer than are wanted"],
    "factorial": ["small", "holes"],
    "lowrank": ["smallest", "simple"],
    "pcfg": ["smallest", "shared"],
}
TOO_LARGE = {("chain_distinct", "pruned"), ("factorial", "digits")}


def chosen(structure: str) -> list[str]:
    if os.environ.get("STRUCTLV_PTX") != "all":
        return FEW[structure]
    return [x for x in launches.problems(structure) if (structure, x) not in TOO_LARGE]


@pytest.mark.parametrize("structure", FEW)
def test_problems(structure):
    """They go through, and reach every kernel of the structure."""
    driver = launches.Driver(structure)
    for problem in chosen(structure):
        driver.run(problem)
    compiled = {launches.readable(name) for name in launches.module(structure).texts}
    assert compiled - driver.counters.keys() == set()


def test_noise_far_above_that_of_hardware_is_noticed():
    """So the results that the drivers compare are those of the interpreted instructions."""
    with pytest.raises(PtxError, match="expected"):
        launches.Driver("chain", noise=2**13).run("holes")


def test_an_unknown_problem_is_refused():
    with pytest.raises(PtxError, match="no problem is called"):
        launches.Driver("chain").run("no such problem")
