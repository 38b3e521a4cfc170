"""The emulated kernels of low-rank trees beside the CPU's: the same numbers, whatever the schedule.

The ordinary tests of the operators run on the emulated kernels too: ``make test-cuda``.
"""

import pytest
import torch

from structlv import reference
from tests.cases import HEADS, SPANS, lowrank
from tests.simt import emulated
from tests.simt.grammars import assert_the_same, assert_the_same_second_order, both

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


@pytest.mark.parametrize("grammar", ["shared", "item"])
@pytest.mark.parametrize("spans", SPANS)
@heads
@DTYPES
def test_second_order(heads, spans, grammar, dtype):
    """Directions have sharing of their own."""
    emulated.configure(2)
    case = lowrank((3,), 6, (3, 4), 9, heads, grammar, spans, holes=0.1, dtype=dtype)
    other = "item" if grammar == "shared" else "shared"
    directions = lowrank((3,), 6, (3, 4), 9, heads, other, spans, dtype=dtype)
    assert_the_same_second_order("lowrank", case, directions[:6])


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


@DTYPES
@heads
def test_what_the_scaled_domain_cannot_hold_is_done_again_alone(heads, dtype):
    """Words of the middle item are beyond its range; nothing about the others changes."""
    emulated.configure(1)
    case = lowrank((3,), 6, (3, 4), 5, heads, "item", "label", holes=0.1, dtype=dtype)
    alone = both("lowrank_marginals", *case, True, True)[1]
    case.unary[1] *= 1e3
    assert_the_same("lowrank", case)
    among = both("lowrank_marginals", *case, True, True)[1]
    assert all(torch.equal(a[::2], b[::2]) for a, b in zip(alone, among, strict=True))


@DTYPES
def test_symbols_that_a_chart_cannot_hold_are_formed_again(dtype):
    """A folded head leaves no room for nonterminals: the backward pass has them from their ranks."""
    emulated.configure(2)
    assert_the_same("lowrank", lowrank((3,), 9, (64, 2), 24, holes=0.1, dtype=dtype))


@heads
def test_the_backward_pass_reads_the_chart(heads):
    """Not the potentials again: twice the exponentials of words are twice their gradient."""
    emulated.configure(3)
    case, operators = lowrank((1,), 5, (3, 2), 4, heads, ragged=False), torch.ops.structlv_emulated
    chart = operators.lowrank_inside(*case, False)[1]
    words = case.unary.numel()
    torch.testing.assert_close(chart[:words].log().view(5, 2).diff(), case.unary[0].diff())
    before = operators.lowrank_vjp(torch.ones(1), chart, *case)[4]
    chart[:words] *= 2
    torch.testing.assert_close(operators.lowrank_vjp(torch.ones(1), chart, *case)[4], 2 * before)


@heads
@DTYPES
def test_many_symbols_or_long_sentences_go_width_by_width(heads, dtype):
    emulated.configure(1)
    assert_the_same("lowrank", lowrank((3,), 5, (66, 2), 3, heads, "item", "label", dtype=dtype))
    assert_the_same("lowrank", lowrank((3,), 66, (2, 2), 2, heads, holes=0.05, dtype=dtype))
