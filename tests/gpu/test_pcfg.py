"""The kernels of dense trees on a GPU beside the CPU's: values, derivatives, bits; and nothing waits."""

import pytest
import torch

from structlv.ops import pcfg as ops
from tests.cases import SMALL_PCFGS, name, pcfg
from tests.gpu.grammars import assert_alike, gradient, on
from tests.ops.test_pcfg_hard import CASES
from tests.tolerance import assert_second_order

SIZES = ((1, 1), (2, 31), (31, 2), (1, 32), (33, 1), (30, 60))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


@pytest.mark.parametrize("options", SMALL_PCFGS, ids=name)
def test_small(options, gpu):
    assert_alike(ops, pcfg(**options), gpu)


@pytest.mark.parametrize("symbols", SIZES, ids=str)
@pytest.mark.parametrize("grammar", ["shared", "item"])
@dtypes
def test_sizes(symbols, grammar, dtype, gpu):
    assert_alike(ops, pcfg(batch=(3,), n=9, symbols=symbols, grammar=grammar, dtype=dtype), gpu)


def test_a_long_sentence(gpu):
    assert_alike(ops, pcfg(batch=(3,), n=66, symbols=(3, 4), dtype=torch.float32), gpu)


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_hard(build, gpu):
    assert_alike(ops, build(), gpu)


def test_second_order(gpu):
    case, found = pcfg(), []
    for x in (on(case, gpu), case):
        leaves, _, first = gradient(ops, x, create_graph=True)
        found.append(torch.autograd.grad(sum((g**2).sum() for g in first), leaves))
    for a, b in zip(*found, strict=True):
        assert_second_order(a.cpu(), b)


@pytest.mark.parametrize("grammar", ["shared", "item"])
def test_the_same_trees(grammar, gpu):
    case = pcfg(batch=(5,), n=9, symbols=(5, 37), grammar=grammar, holes=0.1)
    assert torch.equal(ops.argmax(*on(case, gpu)).cpu(), ops.argmax(*case))
    drawn = ops.sample(*on(case, gpu), num_samples=20, seed=2**40 + 7).cpu()
    assert torch.equal(drawn, ops.sample(*case, num_samples=20, seed=2**40 + 7))


def test_the_same_bits_again(gpu):
    case = on(pcfg(batch=(16,), n=12, symbols=(8, 12), dtype=torch.float32), gpu)
    first = gradient(ops, case)[2]
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(gradient(ops, case)[2], first, strict=True))


def test_nothing_waits_for_the_gpu(gpu):
    copy, leaves = on(pcfg(dtype=torch.float32, batch=(3,)), gpu).leaves()
    torch.autograd.grad(ops.log_partition(*copy).sum(), leaves)  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = torch.autograd.grad(ops.log_partition(*copy).sum(), leaves, create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        ops.marginals(*copy)
        ops.argmax(*copy)
        ops.sample(*copy, num_samples=2, seed=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
