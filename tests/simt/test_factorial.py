"""The emulated kernels of factorial chains beside the CPU's: the same numbers, whatever the schedule.

The ordinary tests of the operators run on the emulated kernels too: ``make test-cuda``.
"""

import pytest
import torch

from tests.cases import factorial
from tests.simt import emulated
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

pytestmark = pytest.mark.skipif(
    not emulated.LIBRARY.exists(), reason="make test-cuda builds the emulated kernels"
)
EDGES_OF_A_WARP = ((1,), (31,), (32,), (33,), (2, 33), (65, 2), (1, 8, 8), (2,) * 6, (3, 1, 4, 2), (4, 8, 9))
SCARCE = 2100  # bytes of shared memory: the joint table lies outside
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
SHARINGS = pytest.mark.parametrize("sharing", ["shared", "item"])


def case_of(sizes, n=5, sharing="shared", batch=(3,), dtype=torch.float64, **options):
    """Potentials in the order of the operators, with ``sizes`` as a tensor."""
    options = {"holes": 0.1 if max(sizes) > 2 else 0.0, "seed": sum(sizes), **options}
    case = factorial(batch, n, sizes, sharing, dtype=dtype, **options)
    return (*case[:3], torch.tensor(sizes), case.lengths)


def both(name, *args):
    """An operator's result on the CPU's kernels and on the emulated ones, as tuples."""
    spaces = torch.ops.structlv, torch.ops.structlv_emulated
    found = [getattr(space, f"factorial_{name}")(*args) for space in spaces]
    return [x if isinstance(x, tuple) else (x,) for x in found]


def gradients(case, grad):
    spaces = torch.ops.structlv, torch.ops.structlv_emulated
    return [x.factorial_vjp(grad, x.factorial_inside(*case, False)[1], *case) for x in spaces]


@pytest.mark.parametrize("sizes", EDGES_OF_A_WARP, ids=str)
@SHARINGS
@DTYPES
def test_the_same_as_on_the_cpu(sizes, sharing, dtype):
    emulated.configure(len(sizes))
    case = case_of(sizes, sharing=sharing, dtype=dtype)
    z, mine = both("log_partition", *case, True)
    assert_nats(mine[0], z[0], dtype)
    for per_step in (False, True):
        for a, b in zip(*both("marginals", *case, per_step), strict=True):
            assert_probabilities(b, a, dtype)
    grad = torch.tensor([1.0, -0.5, 2.0], dtype=dtype)
    for a, b in zip(*gradients(case, grad), strict=True):
        assert_probabilities(b, a, dtype)
    directions = [torch.randn_like(x) for x in case[:3]]
    for a, b in zip(*both("hvp", grad, *directions, *case), strict=True):
        assert_second_order(b, a, dtype)
    a, b = both("argmax", *case)
    assert torch.equal(a[0], b[0])


def test_a_direction_may_be_one_per_step():
    """That of marginals with edges, backwards."""
    emulated.configure(1)
    case = case_of((2, 3), n=6, dtype=torch.float64)
    unary, transition, initial = case[:3]
    per_step = torch.randn(3, 5, transition.shape[-1], dtype=torch.float64)
    directions = torch.randn_like(unary), per_step, torch.randn_like(initial)
    for a, b in zip(*both("hvp", None, *directions, *case), strict=True):
        assert_second_order(b, a)


@DTYPES
@SHARINGS
@pytest.mark.parametrize("scale", [1.0, 60.0])  # the second leaves the CPU's scaled domain
def test_the_same_uniforms_give_the_same_samples(sharing, scale, dtype):
    """But for a uniform within rounding of a threshold: fewer than one draw in 10^4."""
    emulated.configure(1)
    case = case_of((2, 3), n=20, sharing=sharing, batch=(8,), scale=scale, dtype=dtype, ragged=False)
    (mine,), (theirs,) = both("sample", *case, 20, 2**61 + 7)
    assert mine.numel() == 3200
    assert float((mine != theirs).any(-1).sum()) <= 1e-4 * mine.numel()


@pytest.mark.parametrize("sizes", [(5, 7), (5, 5, 10)], ids=str)
@DTYPES
def test_where_the_joint_table_lies_changes_no_bit(sizes, dtype):
    case = case_of(sizes, n=4, dtype=dtype)
    along = None, *map(torch.ones_like, case[:3])
    results = []
    for shared in (emulated.HOPPER, SCARCE):
        emulated.configure(1, shared)
        queries = ("log_partition", *case, True), ("marginals", *case, True), ("argmax", *case)
        results.append([x for query in (*queries, ("hvp", *along, *case)) for x in both(*query)[1]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_schedule_changes_no_bit():
    case = case_of((4, 12), n=6, batch=(4,), dtype=torch.float32)
    results = []
    for seed in (0, 1, 2, 3):
        emulated.configure(seed)
        results.append(both("marginals", *case, False)[1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@DTYPES
def test_the_chart_is_used(dtype):
    emulated.configure(1)
    case = case_of((2, 3), dtype=dtype)
    operators, grad = torch.ops.structlv_emulated, torch.ones(3, dtype=dtype)
    chart = operators.factorial_inside(*case, False)[1]
    again = operators.factorial_marginals(*case, False)[0]
    assert torch.equal(operators.factorial_vjp(grad, chart, *case)[0], again)
    assert not torch.equal(operators.factorial_vjp(grad, torch.zeros_like(chart), *case)[0], again)


@DTYPES
def test_an_item_that_left_the_scaled_domain_needs_no_chart(dtype):
    """What is not a number where 1/Z is kept says so; the item is done in log space, from its potentials."""
    emulated.configure(1)
    case = case_of((2, 3), dtype=dtype)
    operators, grad = torch.ops.structlv_emulated, torch.ones(3, dtype=dtype)
    chart = operators.factorial_inside(*case, False)[1]
    expected, found = (
        operators.factorial_vjp(grad, x, *case) for x in (chart, chart.clone().fill_(torch.nan))
    )
    for a, b in zip(expected, found, strict=True):
        assert_probabilities(b, a, dtype)
    assert not all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@DTYPES
@SHARINGS
@pytest.mark.parametrize("scale", [3.0, 8.0, 20.0, 60.0])  # down the ladder
def test_log_z_on_every_rung(sharing, scale, dtype):
    emulated.configure(1)
    case = case_of((4, 3, 2), n=12, sharing=sharing, batch=(8,), scale=scale, dtype=dtype)
    z, mine = both("log_partition", *case, True)
    assert_nats(mine[0], z[0], dtype)


@DTYPES
@SHARINGS
def test_edges_of_long_sequences_come_in_pieces(sharing, dtype):
    emulated.configure(1)
    case = case_of((2, 3), n=100, sharing=sharing, dtype=dtype)
    for per_step in (False, True):
        for a, b in zip(*both("marginals", *case, per_step), strict=True):
            assert_probabilities(b, a, dtype)
    for a, b in zip(*gradients(case, torch.ones(3, dtype=dtype)), strict=True):
        assert_probabilities(b / 100, a / 100, dtype)


@SHARINGS
def test_an_empty_batch_has_gradients(sharing):
    emulated.configure(1)
    case = case_of((2, 3), batch=(0,), sharing=sharing)
    for a, b in zip(*gradients(case, torch.ones(0, dtype=torch.float64)), strict=True):
        assert torch.equal(a, b)


def test_more_than_the_kernels_can_number_is_refused():
    with pytest.raises(RuntimeError, match="at most 1048576 states"):
        torch.ops.structlv_emulated.factorial_argmax(
            torch.zeros(0, 2**21), torch.zeros(8), None, torch.tensor([2**21]), None
        )
    with pytest.raises(RuntimeError, match="fewer than 2\\^31 elements"):
        torch.ops.structlv_emulated.factorial_argmax(
            torch.zeros(0, 2**16), torch.zeros(8), None, torch.tensor([2**16]), None
        )


def test_too_many_chains_are_refused():
    sizes = torch.ones(33, dtype=torch.long)
    with pytest.raises(RuntimeError, match="at most 32 chains"):
        torch.ops.structlv_emulated.factorial_argmax(torch.zeros(2, 1), torch.zeros(33), None, sizes, None)
