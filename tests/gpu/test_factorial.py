"""The kernels of factorial chains on a GPU beside the CPU's: values, derivatives, samples; nothing waits."""

import pytest
import torch

from tests.cases import SMALL_FACTORIALS, Factorial, factorial, name
from tests.ops.queries import FACTORIAL_QUERIES as QUERIES
from tests.ops.queries import factorial_score
from tests.ops.test_factorial_hard import CASES
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

SIZES = ((1,), (33,), (2, 33), (65, 2), (10, 10), (2,) * 10, (16, 16, 16), (1, 5, 1), (20, 30, 40))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
sharings = pytest.mark.parametrize("sharing", ["shared", "item"])


def on(case, device):
    return Factorial(*[x.to(device) if isinstance(x, torch.Tensor) else x for x in case])


def derivatives(case):
    """log Z, its gradient, and a product with its Hessian."""
    copy, leaves = case.leaves()
    z = QUERIES["log_partition"](*copy)
    first = torch.autograd.grad(z[z.isfinite()].sum(), leaves, create_graph=True)
    weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).view_as(x) for x in leaves]
    dot = sum((x * w).sum() for x, w in zip(first, weights, strict=True))
    return z, first, torch.autograd.grad(dot, leaves)


def assert_alike(case, device):
    dtype, there = case.unary.dtype, on(case, device)
    mine, theirs = derivatives(there), derivatives(case)
    assert_nats(mine[0].cpu(), theirs[0], dtype)
    for a, b in zip(mine[1], theirs[1], strict=True):
        assert_probabilities(a.cpu(), b, dtype)
    for a, b in zip(mine[2], theirs[2], strict=True):
        assert_second_order(a.cpu(), b, dtype)
    for query in ("marginals", "edges"):
        for a, b in zip(QUERIES[query](*there), QUERIES[query](*case), strict=True):
            assert_probabilities(a.cpu(), b, dtype)
    best, expected = QUERIES["argmax"](*there).cpu(), QUERIES["argmax"](*case)
    assert_nats(factorial_score(best, *case), factorial_score(expected, *case), dtype)


@pytest.mark.parametrize("options", SMALL_FACTORIALS, ids=name)
def test_small(options, gpu):
    assert_alike(factorial(**options), gpu)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@sharings
@dtypes
def test_sizes(sizes, sharing, dtype, gpu):
    assert_alike(factorial(n=5, sizes=sizes, sharing=sharing, holes=0.02, dtype=dtype), gpu)


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_hard(build, gpu):
    case = build()
    there = on(case, gpu)
    assert_nats(QUERIES["log_partition"](*there).cpu(), QUERIES["log_partition"](*case), torch.float32)
    for a, b in zip(QUERIES["marginals"](*there), QUERIES["marginals"](*case), strict=True):
        assert_probabilities(a.cpu(), b, torch.float32)


@dtypes
@sharings
def test_samples_are_those_of_the_cpu(sharing, dtype, gpu):
    case = factorial((64,), 50, (3, 4), sharing, dtype=dtype, ragged=False)
    mine, theirs = QUERIES["sample"](*on(case, gpu)).cpu(), QUERIES["sample"](*case)
    assert float((mine != theirs).any(-1).sum()) <= 1e-3 * mine.numel()


def test_the_same_bits_again(gpu):
    case = on(factorial((64,), 20, (8, 5, 3), dtype=torch.float32), gpu)
    z, first, second = derivatives(case)
    for _ in range(3):
        again = derivatives(case)
        assert torch.equal(again[0], z)
        assert all(torch.equal(a, b) for a, b in zip((*again[1], *again[2]), (*first, *second), strict=True))


def test_nothing_waits_for_the_gpu(gpu):
    case = on(factorial(dtype=torch.float32), gpu)
    copy, leaves = case.leaves()
    torch.autograd.grad(QUERIES["log_partition"](*copy).sum(), leaves)  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(QUERIES["log_partition"](*copy).sum(), leaves)
        for query in ("marginals", "edges", "argmax", "sample"):
            QUERIES[query](*case)
    finally:
        torch.cuda.set_sync_debug_mode("default")
