"""Second order, filtering and relaxed samples on every rung of the ladder of precision.

What is expected comes from float64: of the kernels in log space (a direction for each step takes them), or of
the reference.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlv import _native, reference
from structlv.ops import _chain_ops as ops
from structlv.ops import chain
from structlv.ops.noise import gumbel
from tests.tolerance import assert_filtered, assert_nats, assert_probabilities, assert_second_order

pytestmark = pytest.mark.skipif(not _native.available(), reason="needs the compiled kernels")

DTYPES = [torch.float32, torch.float64]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
SIZES = [(3, 7, 5), (1, 1, 1), (2, 1, 4), (17, 40, 33), (40, 65, 16), (4, 20, 100), (5, 200, 8)]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda s: "x".join(map(str, s)))
# how far scores spread, what part of them is -inf: float32, float64 and log space are all needed
RANGES = [(1.0, 0.0), (1.0, 0.2), (6.0, 0.2), (40.0, 0.0), (400.0, 0.1)]
ranges = pytest.mark.parametrize(("spread", "forbidden"), RANGES)


def problem(size: tuple[int, int, int], spread: float, forbidden: float, dtype: torch.dtype) -> list[Tensor]:
    b, n, k = size
    torch.manual_seed(b + n + k)
    shapes = ((b, n, k), (k, k), (k,), (b, k))
    scores = [torch.randn(shape, dtype=torch.float64) * spread for shape in shapes]
    for x in scores[:2]:
        x[torch.rand_like(x) < forbidden] = -torch.inf
    lengths = torch.randint(0, n + 1, (b,))
    return [*(x.to(dtype) for x in scores), lengths]


def directions(potentials: list[Tensor], per_item: bool) -> list[Tensor]:
    shapes = [x.shape for x in potentials[:4]]
    k = shapes[0][-1]
    shapes[1] = torch.Size((len(potentials[0]), k, k) if per_item else (k, k))
    return [torch.randn(shape, dtype=torch.float64).to(potentials[0].dtype) for shape in shapes]


def wide(tensors: list[Tensor]) -> list[Tensor]:
    return [x.double() if x.is_floating_point() else x for x in tensors]


@dtypes
@sizes
@ranges
@pytest.mark.parametrize("per_item", [False, True], ids=["one V", "V of each item"])
def test_hessian_vector_products(size, spread, forbidden, dtype, per_item):
    b, n, k = size
    potentials = problem(size, spread, forbidden, dtype)
    if per_item:
        potentials[1] = potentials[1].expand(b, k, k)
    v, weight = directions(potentials, per_item), torch.randn(b).to(dtype)
    found = ops.HVP.raw(weight, *v, *potentials)
    steps = wide(v)
    steps[1] = steps[1].unsqueeze(-3).expand(b, max(n - 1, 0), k, k)
    wanted = ops.HVP.raw(weight.double(), *steps, *wide(potentials))
    assert_nats(found[0], wanted[0] if dtype == torch.float64 else wanted[0].float().double(), torch.float32)
    for x, y in zip(found[1:], wanted[1:], strict=True):
        assert_second_order(x, y)


@dtypes
def test_a_direction_may_have_any_size(dtype):
    """Scaled by a power of two, the result is scaled, to the last bit."""
    potentials = problem((9, 30, 16), 1.0, 0.0, dtype)
    v = directions(potentials, True)
    potentials[1] = potentials[1].expand(9, 16, 16)
    once = ops.HVP.raw(None, *v, *potentials)
    for exponent in (-60, 60):
        scaled = ops.HVP.raw(None, *(x * 2.0**exponent for x in v), *potentials)
        for x, y in zip(once, scaled, strict=True):
            assert torch.equal(x * 2.0**exponent, y)
    nothing = ops.HVP.raw(None, *(torch.zeros_like(x) for x in v), *potentials)
    assert not any(x.any() for x in nothing)


@dtypes
def test_items_do_not_see_one_another(dtype):
    """Directions and weights of very different sizes in one block."""
    potentials = problem((8, 20, 16), 1.0, 0.0, dtype)
    v, weight = directions(potentials, True), torch.tensor([1, 1e-9, 1, 0, 1, 1e9, 1, 1], dtype=dtype)
    potentials[1] = potentials[1].expand(8, 16, 16)
    for x in (v[0], v[1], v[3]):
        x[2], x[3], x[4] = x[2] * 1e-20, x[3] * 1e12, 0.0
    together = ops.HVP.raw(weight, *v, *potentials)
    for b in range(8):
        item = slice(b, b + 1)
        alone = ops.HVP.raw(
            weight[item], v[0][item], v[1][item], v[2], v[3][item], potentials[0][item], potentials[1][item],
            potentials[2], potentials[3][item], potentials[4][item],
        )  # fmt: skip
        size = max(float(alone[1].abs().max()), 1e-30)
        assert_second_order(together[1][b] / size, alone[1][0] / size)


def test_a_long_chain_does_not_lose_its_digits():
    torch.manual_seed(0)
    unary, transition = torch.randn(2, 20000, 8), torch.randn(8, 8)
    v = torch.randn_like(unary) + 10  # a large mean, which does not count
    zero = torch.zeros_like(transition)
    found = ops.HVP.raw(None, v, zero, None, None, unary, transition, None, None, None)
    wide_args = (v.double(), zero.double(), None, None, unary.double(), transition.double(), None, None, None)
    wanted = ops.HVP.raw(None, *wide_args)
    assert_nats(found[0], wanted[0])
    assert_second_order(found[1], wanted[1])


@dtypes
@sizes
@ranges
def test_filtering(size, spread, forbidden, dtype):
    potentials = problem(size, spread, forbidden, dtype)
    found, wanted = chain.filter(*potentials), reference.chain.filter(*wide(potentials))
    assert_filtered(found, wanted)
    grad = torch.randn(found.shape, dtype=torch.float64).to(dtype)
    kept, chart = ops.FILTER_INSIDE.raw(*potentials)
    assert torch.equal(kept, found)
    gradients = ops.FILTER_VJP.raw(grad, chart, *potentials)
    expected = reference.chain.filter_vjp(grad.double(), *wide(potentials))
    for x, y in zip(gradients, expected, strict=True):
        assert_second_order(x, y)


@dtypes
def test_the_filtered_log_probability_of_what_is_most_improbable(dtype):
    """Hundreds of nats under its neighbours, where its probability is 0 in any floating-point format."""
    unary = torch.zeros(2, 5, 3, dtype=dtype)
    unary[:, 2, 1] = -900.0
    found = chain.filter(unary, torch.zeros(3, 3, dtype=dtype))
    assert_nats(
        found[:, 2, 1], torch.full((2,), -900.0 - torch.log(torch.tensor(2.0))).double(), torch.float32
    )


@dtypes
@pytest.mark.parametrize("per_step", [False, True], ids=["one transition", "per step"])
@ranges
def test_relaxed_samples(dtype, per_step, spread, forbidden):
    """Kernel and reference, with one noise: states, weights, gradients."""
    potentials = problem((6, 9, 5), spread, forbidden, dtype)
    if per_step:
        potentials[1] = potentials[1].expand(6, 8, 5, 5).clone()
    temperature = torch.rand(6, dtype=dtype) + 0.3
    soft, states, filtered, chart = ops.RELAXED.raw(*potentials, temperature, 4, 11)
    assert torch.equal(filtered, chain.filter(*potentials))
    unary, transition, initial, final, lengths = wide(potentials)
    inputs = [x.double().requires_grad_() for x in (filtered, transition, final, temperature)]
    z, wanted = reference.chain.relaxed_sample(*inputs[:3], lengths, inputs[3], num_samples=4, seed=11)
    assert (states == z).double().mean() > 0.99  # but for ties within rounding
    same = (states == z).all(-1)
    assert_probabilities(soft[same], wanted[same].detach(), dtype)
    assert torch.equal(soft.argmax(-1)[states >= 0], states[states >= 0])
    if not bool(same.all()):
        return
    grad = torch.randn_like(soft)
    found = ops.RELAXED_VJP.raw(grad, states, soft, filtered, chart, *potentials, temperature)
    d_filtered, d_transition, d_final, heat = torch.autograd.grad((wanted * grad).sum(), inputs)
    of_filter = reference.chain.filter_vjp(d_filtered, unary, transition, initial, final, lengths)
    expected = of_filter[0], of_filter[1] + d_transition, of_filter[2], d_final, heat
    for x, y in zip(found, expected, strict=True):
        assert_second_order(x, y)


@dtypes
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 3), (33, 16), (70, 17), (5, 0)])
def test_pairs_of_states(shape, dtype):
    """A product of neighbours, and its derivatives of both orders."""
    torch.manual_seed(1)
    states = torch.rand(2, 3, *shape, dtype=dtype).requires_grad_()
    weight = torch.rand(2, 3, shape[1], shape[1], dtype=dtype)
    wanted = states.double()[..., :-1, :].mT @ states.double()[..., 1:, :]
    found = chain.pairs(states)
    assert_probabilities(found / max(shape[0], 1), wanted / max(shape[0], 1), dtype)
    once = [torch.autograd.grad((x * weight).sum(), states, create_graph=True)[0] for x in (found, wanted)]
    twice = [torch.autograd.grad((g.square() + states).sum(), states)[0] for g in once]
    for x, y in (once, twice):
        assert_second_order(x, y)


def test_relaxed_samples_are_exact_samples():
    """Chi-square of 20,000 hard states against the law of the chain."""
    torch.manual_seed(3)
    unary, transition, final = torch.randn(1, 3, 2), torch.randn(2, 2), torch.randn(2)
    heat = torch.ones(1)
    states, _ = chain.relaxed_sample(
        unary, transition, None, final, temperature=heat, num_samples=20000, seed=5
    )
    every = torch.cartesian_prod(*[torch.arange(2)] * 3)
    score = chain.score(every[:, None], unary, transition, None, final)[:, 0]
    code = (states[:, 0] * torch.tensor([4, 2, 1])).sum(-1).bincount(minlength=8)
    expected = score.softmax(0) * 20000
    assert float(((code - expected) ** 2 / expected).sum()) < 24.3  # p = 0.001 with 7 degrees of freedom


def test_the_noise_is_that_of_gumbel():
    filtered = torch.randn(2, 4, 3).log_softmax(-1)
    noise = gumbel(filtered, event_dims=2, num_samples=5, seed=9)
    soft, states = ops.RELAXED.raw(filtered, torch.zeros(3, 3), None, None, None, torch.ones(2), 5, 9)[:2]
    assert torch.equal(states, (filtered + noise).argmax(-1))
    assert_probabilities(soft, (filtered + noise).softmax(-1))
