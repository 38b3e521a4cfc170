"""The chain's kernels on a GPU beside the CPU's: values, derivatives, samples, streams; nothing waits."""

import pytest
import torch

from structlv.ops import chain as ops
from tests.cases import SHARINGS, SMALL, Chain, chain, name
from tests.ops.test_chain_hard import CASES
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

SIZES = (1, 2, 31, 32, 33, 64, 65, 100, 300)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def on(case: Chain, device: torch.device) -> Chain:
    return Chain(*[None if x is None else x.to(device) for x in case])


def derivatives(case: Chain) -> list[torch.Tensor]:
    """log Z, its gradient, and a product with its Hessian."""
    copy, leaves = case.leaves()
    z = ops.log_partition(*copy)
    possible = z.isfinite()
    weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).view_as(x) for x in leaves]
    first = torch.autograd.grad(z[possible].sum(), leaves, create_graph=True)
    dot = sum((x * w).sum() for x, w in zip(first, weights, strict=True))
    return [z, *first, *torch.autograd.grad(dot, leaves)]


def assert_alike(case: Chain, device: torch.device) -> None:
    dtype, there = case.unary.dtype, on(case, device)
    mine, theirs = derivatives(there), derivatives(case)
    assert_nats(mine[0].cpu(), theirs[0], dtype)
    count = len(mine) // 2
    for a, b in zip(mine[1 : count + 1], theirs[1 : count + 1], strict=True):
        assert_probabilities(a.cpu(), b, dtype)
    for a, b in zip(mine[count + 1 :], theirs[count + 1 :], strict=True):
        assert_second_order(a.cpu(), b, dtype)
    for edges in (False, True):
        for a, b in zip(ops.marginals(*there, edges=edges), ops.marginals(*case, edges=edges), strict=True):
            assert_probabilities(a.cpu(), b, dtype)
    best = ops.score(ops.argmax(*there).cpu(), *case), ops.score(ops.argmax(*case), *case)
    assert_nats(*best, dtype)


@pytest.mark.parametrize("options", SMALL, ids=name)
def test_small(options, gpu):
    assert_alike(chain(**options), gpu)


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("sharing", SHARINGS)
@dtypes
def test_sizes(k, sharing, dtype, gpu):
    assert_alike(chain(batch=(3,), n=9, k=k, sharing=sharing, holes=0.05, dtype=dtype, seed=k), gpu)


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_hard(build, gpu):
    case = build()
    there = on(case, gpu)
    assert_nats(ops.log_partition(*there).cpu(), ops.log_partition(*case), torch.float32)
    for a, b in zip(ops.marginals(*there), ops.marginals(*case), strict=True):
        assert_probabilities(a.cpu(), b, torch.float32)


@dtypes
@pytest.mark.parametrize("sharing", SHARINGS)
def test_samples_are_those_of_the_cpu(sharing, dtype, gpu):
    case = chain(batch=(16,), n=50, k=9, sharing=sharing, dtype=dtype, ragged=False)
    mine = ops.sample(*on(case, gpu), num_samples=100, seed=5).cpu()
    theirs = ops.sample(*case, num_samples=100, seed=5)
    assert float((mine != theirs).any(-1).sum()) <= 1e-4 * mine.numel()


def test_the_same_bits_again(gpu):
    case = on(chain(batch=(64,), n=40, k=33, dtype=torch.float32), gpu)
    first = derivatives(case)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(derivatives(case), first, strict=True))


def test_nothing_waits_for_the_gpu(gpu):
    case = on(chain(batch=(8,), n=12, k=20, dtype=torch.float32), gpu)
    leafy, leaves = case.leaves()
    torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves)  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves)
        ops.marginals(*case)
        ops.argmax(*case)
        ops.sample(*case, num_samples=2, seed=1)
        heat = torch.ones(8, device=gpu)
        soft = ops.relaxed_sample(*leafy, temperature=heat, num_samples=2, seed=1)[1]
        torch.autograd.grad(soft.square().sum() + ops.filter(*leafy).exp().square().sum(), leaves[:2])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_current_stream_is_used(gpu):
    """On a side stream, after a long wait: kernels on another stream would read what is not yet written."""
    case = chain(batch=(8,), n=12, k=20, dtype=torch.float32)
    expected = ops.log_partition(*case)
    source = on(case, gpu)
    late = source.unary.clone().fill_(0)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source.unary)
        found = ops.log_partition(late, *source[1:])
    stream.synchronize()
    assert_nats(found.cpu(), expected, torch.float32)


def test_another_device_than_the_current_one(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    case = chain(batch=(4,), n=6, k=5)
    found = ops.log_partition(*on(case, torch.device("cuda", 1)))
    assert found.device.index == 1
    assert torch.cuda.current_device() == 0
    assert_nats(found.cpu(), ops.log_partition(*case))


def test_queries_without_a_kernel_run_the_reference(gpu):
    case = chain(batch=(3,), n=5, k=4)
    there = on(case, gpu)
    assert torch.equal(ops.topk(*there, k=3).cpu(), ops.topk(*case, k=3))
    assert_nats(ops.score(ops.argmax(*there), *there).cpu(), ops.score(ops.argmax(*case), *case))
