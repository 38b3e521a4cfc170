"""Global loads take at most 1.5 times the fewest possible sectors, but for kernels in uncoalesced.json."""

import json
from pathlib import Path

import pytest

from tests.simt.ptx import launches
from tests.simt.ptx.report import LIMIT, STRUCTURES, load_ratios

pytestmark = pytest.mark.skipif(not launches.COMPILED, reason=launches.WHY_NOT)
KNOWN = json.loads((Path(__file__).parent / "uncoalesced.json").read_text())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_loads_are_coalesced(structure):
    ratios = load_ratios(structure)
    above = {kernel: round(ratio, 2) for kernel, ratio in ratios.items() if ratio > LIMIT}
    assert above.keys() == KNOWN.keys() & ratios.keys()
    grown = {kernel: ratio for kernel, ratio in above.items() if ratio > KNOWN[kernel]["ratio"] + 0.01}
    assert grown == {}
