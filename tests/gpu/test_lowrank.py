"""The kernels of low-rank trees on a GPU beside the CPU's: values, derivatives, bits; and nothing waits."""

import pytest
import torch

from structlv.ops import lowrank as ops
from tests.cases import HEADS, SMALL_LOWRANKS, lowrank, name
from tests.gpu.grammars import assert_alike, gradient, on
from tests.ops.test_lowrank_values import HARD
from tests.tolerance import assert_second_order

SIZES = (((1, 1), 1), ((4, 8), 8), ((31, 2), 33), ((2, 31), 4), ((33, 1), 3), ((60, 90), 25))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
heads = pytest.mark.parametrize("heads", HEADS)


@pytest.mark.parametrize("options", SMALL_LOWRANKS, ids=name)
def test_small(options, gpu):
    assert_alike(ops, lowrank(**options), gpu)


@pytest.mark.parametrize(("symbols", "rank"), SIZES, ids=str)
@pytest.mark.parametrize("grammar", ["shared", "item"])
@heads
@dtypes
def test_sizes(symbols, rank, grammar, heads, dtype, gpu):
    assert_alike(ops, lowrank((3,), 9, symbols, rank, heads, grammar, dtype=dtype), gpu)


@pytest.mark.parametrize("build", HARD.values(), ids=HARD.keys())
def test_hard(build, gpu):
    assert_alike(ops, build(), gpu)


@heads
def test_second_order(heads, gpu):
    case, found = lowrank(heads=heads), []
    for x in (on(case, gpu), case):
        leaves, _, first = gradient(ops, x, create_graph=True)
        found.append(torch.autograd.grad(sum((g**2).sum() for g in first), leaves))
    for a, b in zip(*found, strict=True):
        assert_second_order(a.cpu(), b)


@pytest.mark.parametrize("grammar", ["shared", "item"])
@heads
def test_the_same_samples(heads, grammar, gpu):
    case = lowrank((5,), 9, (5, 37), 6, heads, grammar, holes=0.1)
    drawn = ops.sample(*on(case, gpu), num_samples=20, seed=2**40 + 7).cpu()
    assert torch.equal(drawn, ops.sample(*case, num_samples=20, seed=2**40 + 7))


def test_the_same_bits_again(gpu):
    case = on(lowrank((16,), 12, (8, 12), 9, dtype=torch.float32), gpu)
    first = gradient(ops, case)[2]
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(gradient(ops, case)[2], first, strict=True))


def test_nothing_waits_for_the_gpu(gpu):
    copy, leaves = on(lowrank(dtype=torch.float32), gpu).leaves()
    torch.autograd.grad(ops.log_partition(*copy).sum(), leaves)  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = torch.autograd.grad(ops.log_partition(*copy).sum(), leaves, create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        ops.marginals(*copy)
        ops.sample(*copy, num_samples=2, seed=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
