"""The emulated kernels of filtering and relaxed sampling beside the CPU's, whatever the schedule.

The ordinary tests of these operators run on the emulated kernels too: ``make test-cuda``.
"""

import pytest
import torch

from tests.cases import SHARINGS, Chain, chain
from tests.simt import emulated
from tests.simt.test_chain import EDGES_OF_A_WARP, SCARCE, SCHEDULES, both
from tests.tolerance import assert_filtered, assert_probabilities, assert_second_order

pytestmark = pytest.mark.skipif(
    not emulated.LIBRARY.exists(), reason="make test-cuda builds the emulated kernels"
)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
operators = (torch.ops.structlv, torch.ops.structlv_emulated)


def relaxed(case, samples=3):
    """On the CPU's kernels and on the emulated ones: samples, and the gradients of a weighted sum of them."""
    batch = case.unary.shape[:-2]
    heat = torch.linspace(0.4, 1.5, batch.numel(), dtype=case.unary.dtype).view(batch)
    grad = torch.linspace(-1, 1, samples * case.unary.numel(), dtype=case.unary.dtype).cos()
    found = []
    for space in operators:
        soft, states, *kept = space.chain_relaxed(*case, heat, samples, 17)
        found.append(
            (states, soft, *space.chain_relaxed_vjp(grad.view(soft.shape), states, soft, *kept, *case, heat))
        )
    return found


@pytest.mark.parametrize("k", EDGES_OF_A_WARP)
@pytest.mark.parametrize(
    ("dtype", "schedule"), [*((torch.float32, s) for s in SCHEDULES), (torch.float64, 1)]
)
def test_the_same_as_on_the_cpu(k, dtype, schedule):
    emulated.configure(schedule)
    sharing = SHARINGS[EDGES_OF_A_WARP.index(k) % 4]
    case = chain(batch=(3,), n=5, k=k, sharing=sharing, holes=0.1 if k > 2 else 0.0, dtype=dtype, seed=k)
    (expected,), (found,) = both("filter", *case)
    assert_filtered(found, expected)
    grad = torch.linspace(-1, 1, case.unary.numel(), dtype=dtype).view(case.unary.shape)
    gradients = [
        space.chain_filter_vjp(grad, space.chain_filter_inside(*case)[1], *case) for space in operators
    ]
    for mine, theirs in zip(*gradients, strict=True):
        assert_second_order(theirs, mine)
    mine, theirs = relaxed(case)
    assert torch.equal(mine[0], theirs[0])
    assert_probabilities(theirs[1], mine[1])
    for a, b in zip(mine[2:], theirs[2:], strict=True):
        assert_second_order(b, a)


@dtypes
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("scale", [1.0, 60.0])  # the second leaves the scaled domain
def test_the_same_noise_gives_the_same_states(sharing, scale, dtype):
    """But for a tie within rounding: fewer than one draw in 10^4."""
    emulated.configure(1)
    case = chain(batch=(8,), n=20, k=6, sharing=sharing, scale=scale, dtype=dtype, seed=3, ragged=False)
    mine, theirs = relaxed(case, samples=20)
    assert mine[0].numel() == 3200
    assert float((mine[0] != theirs[0]).any(-1).sum()) <= 1e-4 * mine[0].numel()
    assert bool(theirs[0].ge(0).all())


def test_batches_broadcast_in_groups():
    """Gradients of what items share are added up over every pattern of shared and own dimensions."""
    emulated.configure(1)
    batch = (2, 3, 2)
    for lead in ((), (2, 1, 2), (3, 1), (1, 3, 1), (2, 3, 1), (1, 1, 2), (2, 3, 2)):
        unary, transition, final = (
            torch.randn(x, dtype=torch.float64) for x in ((*batch, 3, 4), (*lead, 4, 4), (*lead, 4))
        )
        case = Chain(unary, transition, None, final, None)
        mine, theirs = relaxed(case)
        assert torch.equal(mine[0], theirs[0])
        for a, b in zip(mine[1:], theirs[1:], strict=True):
            assert_probabilities(b, a)


@pytest.mark.parametrize("sharing", ["shared", "step"])
def test_neither_schedule_nor_place_of_the_transition_changes_a_bit(sharing):
    case = chain(batch=(4,), n=6, k=65, sharing=sharing, holes=0.1, dtype=torch.float32)
    results = []
    for seed in SCHEDULES:
        emulated.configure(seed, emulated.HOPPER if seed else 65536 + SCARCE)
        results.append(relaxed(case)[1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_no_samples_and_no_steps():
    emulated.configure(0)
    for n, samples in ((0, 2), (3, 0)):
        case = chain(batch=(2,), n=n, k=3, ragged=False)
        mine, theirs = relaxed(case, samples)
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
        assert not any(x.any() for x in theirs[2:])


def test_wrong_arguments_are_refused():
    emulated.configure(0)
    space = torch.ops.structlv_emulated
    case = chain(batch=(2,), n=4, k=3, ragged=False)
    chart = space.chain_filter_inside(*case)[1]
    with pytest.raises(RuntimeError, match="what chain_filter_inside returned"):
        space.chain_filter_vjp(case.unary, chart[1:], *case)
    with pytest.raises(RuntimeError, match="grad: expected shape"):
        space.chain_filter_vjp(case.unary[:, 1:], chart, *case)
    with pytest.raises(RuntimeError, match="temperature: expected shape"):
        space.chain_relaxed(*case, torch.ones(3, dtype=torch.float64), 2, 1)
    with pytest.raises(RuntimeError, match="temperature: its dtype"):
        space.chain_relaxed(*case, torch.ones(2), 2, 1)
    heat = torch.ones(2, dtype=torch.float64)
    soft, states, *kept = space.chain_relaxed(*case, heat, 2, 1)
    for wrong in (states[..., 1:], states[0, 0, 0], states.float()):
        with pytest.raises(RuntimeError, match="states: expected"):
            space.chain_relaxed_vjp(soft, wrong, soft, *kept, *case, heat)
    anything = torch.randint(-(2**40), 2**40, states.shape)
    assert space.chain_relaxed_vjp(soft, anything, soft, *kept, *case, heat)[0].shape == case.unary.shape
