"""The operators as ``torch.ops`` has them: a wrong call gets an error or an empty result, never a crash."""

import pytest
import torch

from structlv.ops import chain as _registers_the_operators  # noqa: F401
from tests.cases import SHARINGS, chain

pytestmark = pytest.mark.usefixtures("native")
raw = torch.ops.structlv
U, T = torch.zeros(2, 4, 3), torch.zeros(3, 3)
NONE = (None, None, None)
STATES = torch.zeros(5, 2, 4, dtype=torch.long)


def chart_of(unary, transition):
    return raw.chain_inside(unary, transition, *NONE, False)[1]


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2,), (5, 1), (2, 5), (5, 2, 1), (0, 2)])
def test_score_vjp_refuses_a_gradient_of_another_shape(shape):
    with pytest.raises(RuntimeError, match=r"grad: expected shape \(5, 2\), found"):
        raw.chain_score_vjp(torch.ones(shape, dtype=torch.float64), STATES, U, T, *NONE)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (0,)])
def test_vjp_and_hvp_refuse_a_gradient_of_another_shape(shape):
    with pytest.raises(RuntimeError, match=r"grad: expected shape \(2\), found"):
        raw.chain_vjp(torch.ones(shape), chart_of(U, T), U, T, *NONE)
    with pytest.raises(RuntimeError, match=r"grad: expected shape \(2\), found"):
        raw.chain_hvp(torch.ones(shape), U, T, None, None, U, T, *NONE)


OTHER_CHARTS = {
    "empty": lambda: torch.zeros(0),
    "one less": lambda: chart_of(U, T)[:-1],
    "float64": lambda: chart_of(U, T).double(),
    "more items": lambda: chart_of(torch.zeros(3, 4, 3), T),
    "more steps": lambda: chart_of(torch.zeros(2, 5, 3), T),
    "strided": lambda: chart_of(U, T).repeat_interleave(2)[::2],
}


@pytest.mark.parametrize("chart", OTHER_CHARTS.values(), ids=OTHER_CHARTS.keys())
def test_vjp_refuses_the_chart_of_another_problem(chart):
    with pytest.raises(RuntimeError, match="chart: expected what chain_inside returned"):
        raw.chain_vjp(torch.ones(2), chart(), U, T, *NONE)


@pytest.mark.parametrize("value", [0.0, 1e30, -1.0, torch.nan, torch.inf])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_any_numbers_in_a_chart_are_survived(sharing, value):
    case = chain(sharing=sharing, dtype=torch.float32)
    size = raw.chain_inside(*case, False)[1].numel()
    for x, y in zip(raw.chain_vjp(torch.ones(3), torch.full((size,), value), *case), case[:4], strict=True):
        assert x.shape == y.shape


def test_hvp_refuses_directions_of_other_shapes():
    for v_unary, v_transition in ((U[:1], T), (U[..., :2], T), (U, T[:2]), (U, torch.zeros(2, 4, 3, 3))):
        with pytest.raises(RuntimeError, match=r"expected|broadcast"):
            raw.chain_hvp(None, v_unary, v_transition, None, None, U, T, *NONE)
    with pytest.raises(RuntimeError, match="dtype"):
        raw.chain_hvp(None, U, T.double(), None, None, U, T, *NONE)


@pytest.mark.parametrize("place", range(5))
def test_another_layout_is_refused(place):
    arguments = [U, T, torch.zeros(3), torch.zeros(3), torch.tensor([4, 2])]
    arguments[place] = arguments[place].to_sparse()
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        raw.chain_log_partition(*arguments, False)


def test_lazy_zeros_and_negations_are_read_as_what_they_mean():
    """``x.imag`` of a conjugate is a view whose minus sign has not been carried out."""
    negated = torch.randn(3, 3, dtype=torch.cfloat).conj().imag
    assert negated.is_neg()
    expected = raw.chain_log_partition(U, negated.resolve_neg().clone(), *NONE, False)
    assert torch.equal(raw.chain_log_partition(U, negated, *NONE, False), expected)
    zeros = torch._efficientzerotensor(3, 3)
    assert torch.equal(
        raw.chain_log_partition(U, zeros, *NONE, False), raw.chain_log_partition(U, T, *NONE, False)
    )


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 4, 3)])
def test_any_number_of_structures_without_states_is_at_once_there(shape):
    unary = torch.zeros(shape)
    assert raw.chain_sample(unary, T, *NONE, 2**40, 0).shape == (2**40, *shape[:2])
    assert raw.chain_topk(unary, T, *NONE, 2**40).shape == (2**40, *shape[:2])


def test_more_structures_than_there_are_take_no_memory():
    """Three states at four positions are 81 structures: lists of a million would be 288 MB an item."""
    found = raw.chain_topk(U, T, *NONE, 10**6)
    assert found.shape == (10**6, 2, 4)
    assert found[:81].ge(0).all()
    assert found[81:].eq(-1).all()
    assert len({tuple(z.tolist()) for z in found[:81, 0]}) == 81


@pytest.mark.parametrize("threads", [1, 2])
def test_no_memory_is_an_error_that_leaves_the_kernels_usable(threads):
    torch.set_num_threads(threads)
    unary, transition = torch.zeros(4, 3, 3000), torch.zeros(3000, 3000)
    with pytest.raises((MemoryError, RuntimeError)):  # lists of 9e9 elements an item: 216 GB
        raw.chain_topk(unary, transition, *NONE, 10**6)
    assert raw.chain_topk(U, T, *NONE, 2).shape == (2, 2, 4)


@pytest.mark.parametrize("lead", [(), (1,), (1, 1), (3, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("per_step", [False, True])
def test_broadcasting_is_that_of_expanded_potentials(lead, per_step):
    batch, n, k = (3, 2), 4, 3
    if per_step and len(lead) < len(batch):
        lead = (1,) * len(batch)
    core = (n - 1, k, k) if per_step else (k, k)
    unary, transition = torch.randn(*batch, n, k), torch.randn(*lead, *core)
    initial, final = torch.randn(*lead, k), torch.randn(2, k)
    lengths = torch.tensor([[4, 0], [1, 2], [3, 4]])
    full = transition.expand(*batch, *core), initial.expand(*batch, k), final.expand(*batch, k)
    short = unary, transition, initial, final, lengths
    long = unary, *(x.contiguous() for x in full), lengths
    a, b = raw.chain_marginals(*short, True), raw.chain_marginals(*long, True)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(raw.chain_max_marginals(*short)[0], raw.chain_max_marginals(*long)[0])
    grad = torch.randn(batch)
    summed = raw.chain_vjp(grad, raw.chain_inside(*short, False)[1], *short)
    each = raw.chain_vjp(grad, raw.chain_inside(*long, False)[1], *long)
    for x, y, like in zip(summed, each, short, strict=False):
        torch.testing.assert_close(x, y.sum_to_size(like.shape))


@pytest.mark.parametrize("weight", [1e-30, 1e-39, 1e-42, 1e-45, 1e-60, 1e-300, 0.0])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_smallest_weights_give_no_nan(sharing, weight):
    """A gradient in float64 (``as_double``) may be far under what float32 holds."""
    case = chain(sharing=sharing, dtype=torch.float32)
    chart = raw.chain_inside(*case, True)[1]
    unit = raw.chain_vjp(torch.ones(3, dtype=torch.float64), chart, *case)
    for x, one in zip(
        raw.chain_vjp(torch.full((3,), weight, dtype=torch.float64), chart, *case), unit, strict=True
    ):
        assert torch.allclose(x.double(), one.double() * weight, rtol=1e-4, atol=2e-38)


def test_huge_weights_give_no_nan():
    case = chain(dtype=torch.float32)
    chart = raw.chain_inside(*case, True)[1]
    for x in raw.chain_vjp(torch.full((3,), 1e35, dtype=torch.float64), chart, *case):
        assert x.isfinite().all()
