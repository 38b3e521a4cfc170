"""The emulated kernels of low-rank trees beside the CPU's: the same numbers, whatever the schedule.

The ordinary tests of the operators run on the emulated kernels too: ``make test-cuda``.
"""

import pytest
import torch

from structlv import reference
from tests.cases import HEADS, SPANS, lowrank
from tests.simt import emulated
from tests.simt.grammars import assert_the_same, both
from tests.tolerance import assert_probabilities

pytestmark = pytest.mark.skipif(
    not emulated.LIBRARY.exists(), reason="make test-cuda builds the emulated kernels"
)
EDGES = (((1, 1), 1), ((4, 8), 8), ((5, 9), 9), ((31, 2), 33), ((2, 31), 4), ((33, 1), 3))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
heads = pytest.mark.parametrize("heads", HEADS)


@pytest.mark.parametrize(("symbols", "rank"), EDGES, ids=str)
@pytest.mark.parametrize("grammar", ["shared", "item"])
@heads
@DTYPES
def test_the_same_as_on_the_cpu(symbols, rank, grammar, heads, dtype):
    emulated.configure(rank)
    case = lowrank((3,), 5, symbols, rank, heads, grammar, "label", holes=0.1, dtype=dtype)
    assert_the_same("lowrank", case)


@pytest.mark.parametrize("spans", SPANS)
@heads
@DTYPES
def test_the_same_samples_as_the_reference(heads, spans, dtype):
    emulated.configure(2)
    case = lowrank((5,), 9, (5, 37), 6, heads, spans=spans, holes=0.1, dtype=dtype)
    _, drawn = both("lowrank_sample", *case, 20, 2**40 + 7)
    assert torch.equal(drawn, reference.lowrank.sample(*case, num_samples=20, seed=2**40 + 7))


@heads
def test_the_schedule_changes_no_bit(heads):
    case = lowrank((3,), 6, (3, 4), 5, heads, spans="one", dtype=torch.float32)
    results = []
    for seed in (0, 1, 2, 3):
        emulated.configure(seed)
        results.append(both("lowrank_marginals", *case, True, True)[1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("symbols", "rank", "fits"), [((3, 2), 3, True), ((64, 2), 24, False)], ids=str)
def test_inside_values_that_a_chart_cannot_hold_are_formed_again(symbols, rank, fits):
    """A folded head leaves no room for nonterminals; and nothing is read from a chart that is not aligned."""
    emulated.configure(1)
    case = lowrank((3,), 9, symbols, rank)
    operators = torch.ops.structlv_emulated
    chart = operators.lowrank_inside(*case, False)[1]
    assert bool(chart.any()) == fits
    narrow = case.to(torch.float32)
    size = operators.lowrank_inside(*narrow, False)[1].numel()
    elsewhere = torch.full((size + 1,), torch.nan)[1:]
    kept = operators.lowrank_vjp(torch.ones(3), chart, *case)
    again = operators.lowrank_vjp(torch.ones(3), elsewhere, *narrow)
    for a, b in zip(kept, again, strict=True):
        assert_probabilities(b, a, torch.float32)
