"""The emulated CUDA kernels beside the CPU's: the same numbers, whatever the schedule and the shared memory.

All ordinary tests of the chain's operators run on the emulated kernels too: ``make test-cuda``.
"""

import pytest
import torch

from tests.cases import SHARINGS, chain
from tests.simt import emulated
from tests.tolerance import NATS, assert_nats, assert_probabilities, assert_second_order

pytestmark = pytest.mark.skipif(
    not emulated.LIBRARY.exists(), reason="make test-cuda builds the emulated kernels"
)
EDGES_OF_A_WARP = (1, 2, 31, 32, 33, 64, 65, 100)
SCHEDULES = (0, 1, 2, 3)
SCARCE = 8 * 1024 + 512  # bytes of shared memory: transitions of any size stay outside


def both(name, *args):
    """An operator's result on the CPU's kernels and on the emulated ones, as tuples."""
    found = [
        getattr(getattr(torch.ops, space), f"chain_{name}")(*args)
        for space in ("structlv", "structlv_emulated")
    ]
    return [x if isinstance(x, tuple) else (x,) for x in found]


@pytest.mark.parametrize("k", EDGES_OF_A_WARP)
@pytest.mark.parametrize(
    ("dtype", "schedule"), [*((torch.float32, s) for s in SCHEDULES), (torch.float64, 1)]
)
def test_the_same_as_on_the_cpu(k, dtype, schedule):
    emulated.configure(schedule)
    sharing = SHARINGS[EDGES_OF_A_WARP.index(k) % 4]
    case = chain(batch=(3,), n=5, k=k, sharing=sharing, holes=0.1 if k > 2 else 0.0, dtype=dtype, seed=k)
    z, expected = both("log_partition", *case, True)
    assert_nats(expected[0], z[0], dtype)
    assert NATS[dtype] <= 1e-6
    for name, flags in (("marginals", (True,)), ("marginals", (False,)), ("marginals", (None,))):
        for mine, theirs in zip(*both(name, *case, *flags), strict=True):
            assert_probabilities(theirs, mine, dtype)
    v = [torch.randn_like(x) for x in case[:4]]
    for mine, theirs in zip(*both("hvp", torch.randn(3, dtype=dtype), *v, *case), strict=True):
        assert_second_order(theirs, mine, dtype)
    mine, theirs = both("argmax", *case)
    assert torch.equal(mine[0], theirs[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("scale", [1.0, 60.0])  # the second leaves the scaled domain
def test_the_same_uniforms_give_the_same_samples(sharing, scale, dtype):
    """But for a uniform within rounding of a threshold: fewer than one draw in 10^4."""
    emulated.configure(1)
    case = chain(batch=(8,), n=20, k=6, sharing=sharing, scale=scale, dtype=dtype, seed=3, ragged=False)
    mine, theirs = both("sample", *case, 20, 2**61 + 7)
    draws = mine[0].numel()
    first = (
        (mine[0] != theirs[0]).any(-1).sum()
    )  # what follows the first difference differs for a good reason
    assert draws == 3200
    assert float(first) <= 1e-4 * draws


@pytest.mark.parametrize("shared", [SCARCE, emulated.HOPPER])
@pytest.mark.parametrize("sharing", ["shared", "item"])
def test_where_the_transition_lies_changes_no_bit(shared, sharing):
    case = chain(batch=(2,), n=4, k=65, sharing=sharing)
    emulated.configure(1)
    reference = [both(name, *case, *flags)[1] for name, flags in (("log_partition", (True,)), ("argmax", ()))]
    emulated.configure(1, shared)
    found = [both(name, *case, *flags)[1] for name, flags in (("log_partition", (True,)), ("argmax", ()))]
    for mine, theirs in zip(found, reference, strict=True):
        assert torch.equal(mine[0], theirs[0])


def test_the_schedule_changes_no_bit():
    case = chain(batch=(4,), n=6, k=33, holes=0.1, dtype=torch.float32)
    results = []
    for seed in SCHEDULES:
        emulated.configure(seed)
        results.append(both("marginals", *case, False)[1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("chunk", ["1", "7", "64", None])  # None: a few long chains are cut anyway
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("sharing", ["shared", "step"])
def test_long_chains_in_chunks(chunk, dtype, sharing, monkeypatch):
    n = 1030 if chunk is None else 100
    case = chain(batch=(3,), n=n, k=3, sharing=sharing, holes=0.02, dtype=dtype, seed=5)
    emulated.configure(1)
    if chunk is not None:
        monkeypatch.setenv("STRUCTLV_CUDA_CHUNK", chunk)
    found = [both("log_partition", *case, True), both("marginals", *case, True)]
    grad = torch.randn(3, dtype=dtype)
    charts = both("inside", *case, True)
    found.append([])
    for space, (_, chart) in zip(("structlv", "structlv_emulated"), charts, strict=True):
        found[-1].append(getattr(torch.ops, space).chain_vjp(grad, chart, *case))
    monkeypatch.setenv("STRUCTLV_CUDA_CHUNK", "0")
    whole = [both("log_partition", *case, True), both("marginals", *case, True)]
    assert_nats(found[0][1][0], found[0][0][0], dtype)
    for mine, theirs in [*zip(*found[1], strict=True), *zip(*found[2], strict=True)]:
        assert_probabilities(theirs, mine, dtype)
    assert not torch.equal(whole[1][1][0], found[1][1][0])  # so it was cut


def test_batches_broadcast_in_groups():
    """Rows of items are found by arithmetic on the device: every pattern of shared and own dimensions."""
    emulated.configure(1)
    batch = (2, 3, 2)
    unary = torch.randn(*batch, 3, 4, dtype=torch.float64)
    for lead in ((), (2, 1, 2), (3, 1), (1, 3, 1), (2, 3, 1), (1, 1, 2), (2, 3, 2)):
        transition = torch.randn(*lead, 4, 4, dtype=torch.float64)
        case = unary, transition, None, None, None
        mine, theirs = both("log_partition", *case, True)
        assert_nats(theirs[0], mine[0])
        grad = torch.randn(batch, dtype=torch.float64)
        for space in ("structlv", "structlv_emulated"):
            operators = getattr(torch.ops, space)
            found = operators.chain_vjp(grad, operators.chain_inside(*case, True)[1], *case)
            if space == "structlv":
                expected = found
        for a, b in zip(found, expected, strict=True):
            assert_probabilities(a, b)
