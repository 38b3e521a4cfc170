"""Dynamic range: results agree with float64 log space however large, small, forbidden or late they are."""

import pytest
import torch

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import Chain
from tests.tolerance import NATS, PROBABILITIES, assert_nats, assert_probabilities

INF = torch.inf
B, N, K = 3, 40, 17


def base(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, N, K, generator=g), torch.randn(K, K, generator=g), torch.randn(K, generator=g)


def left_to_right():
    unary, transition, _ = base()
    banned = torch.ones(K, K).triu().logical_not() | torch.ones(K, K).triu(2).bool()
    start, end = torch.full((K,), -INF), torch.full((K,), -INF)
    start[0] = end[-1] = 0.0
    return Chain(unary * 5, transition.masked_fill(banned, -INF), start, end, None)


def masked():
    """Hard constraints: most states are excluded at most positions, sometimes all but one."""
    unary, transition, initial = base(1)
    keep = torch.rand(B, N, K, generator=torch.Generator().manual_seed(2)) < 0.15
    keep[..., 0] = True
    return Chain(unary.masked_fill(~keep, -INF), transition, initial, None, None)


def sharp(nats):
    """Emissions that differ by this many nats from state to state."""
    unary, transition, initial = base(3)
    return Chain(unary * nats, transition, initial, None, None)


def hopeless_start(nats):
    """State 1 cannot be reached but from itself, is hopeless at the start, and must win at the end."""
    unary, transition, initial = base(4)
    transition[:, 1] = -INF
    transition[1, :] = -INF
    transition[1, 1] = 0.0
    unary[:, 0, 1] = -nats
    unary[:, -1, :] -= 2 * nats
    unary[:, -1, 1] += 3.5 * nats
    return Chain(unary, transition, initial, None, None)


def slow_decline(nats):
    """As before, but it falls behind and catches up a little at every step: no single step shows a loss."""
    unary, transition, initial = base(4)
    transition[:, 1] = -INF
    transition[1, :] = -INF
    transition[1, 1] = 0.0
    unary[:, : N // 2, 1] -= nats
    unary[:, N // 2 :, 1] += 2 * nats
    return Chain(unary, transition, initial, None, None)


def shifted(nats):
    unary, transition, initial = base(5)
    return Chain(unary + nats, transition, initial, None, None)


def spread(nats):
    unary, transition, initial = base(6)
    return Chain(unary * nats, transition * nats, initial, None, torch.tensor([N, N // 2, 1]))


def wide_transition():
    unary, transition, initial = base(7)
    return Chain(unary, transition * 60, initial, None, torch.tensor([N, 7, 2]))


def empty_rows():
    """Whole rows of -inf: states without a way out, items without any structure."""
    unary, transition, initial = base(8)
    transition[::3] = -INF
    unary[1, N // 2] = -INF
    return Chain(unary, transition, initial, None, None)


def per_step_wide():
    g = torch.Generator().manual_seed(9)
    return Chain(
        torch.randn(B, N, K, generator=g), torch.randn(B, N - 1, K, K, generator=g) * 100, None, None, None
    )


def cliffs():
    """One step in which everything that mattered so far becomes hopeless."""
    unary, transition, initial = base(10)
    unary[:, N // 2, : K // 2] -= 300.0
    unary[:, : N // 2, K // 2 :] -= 300.0
    return Chain(unary, transition - 90 * (1 - torch.eye(K)), initial, None, None)


def dead_states():
    """Two states, one of them forbidden at every other step, with transitions 265 nats apart."""
    unary = torch.tensor(
        [[-148.907, 95.213], [-INF, -181.312], [-22.590, 90.402], [-INF, -32.359], [-31.529, -60.430]]
    )
    return Chain(
        unary.expand(B, 5, 2), torch.tensor([[191.239, 54.020], [-47.290, -73.973]]), None, None, None
    )


def one_forbidden():
    """A single gap in the transition; the second item leaves the range of float32, the first does not."""
    unary, _, _ = base(11)
    unary = unary[..., :3].clone()
    unary[1, N // 2 :, 1] = -200.0
    return Chain(
        unary, torch.tensor([[-1.3, -INF, -0.4], [-0.5, -1.1, -INF], [1.0, -INF, 1.5]]), None, None, None
    )


CASES = {
    "left to right": left_to_right,
    "masked": masked,
    "sharp 1e2": lambda: sharp(1e2),
    "sharp 1e3": lambda: sharp(1e3),
    "sharp 1e4": lambda: sharp(1e4),
    "slow decline 5": lambda: slow_decline(5.0),
    "slow decline 15": lambda: slow_decline(15.0),
    "hopeless start 50": lambda: hopeless_start(50.0),
    "hopeless start 200": lambda: hopeless_start(200.0),
    "hopeless start 1e4": lambda: hopeless_start(1e4),
    "shifted +1e5": lambda: shifted(1e5),
    "shifted -1e5": lambda: shifted(-1e5),
    "spread 1e4": lambda: spread(1e4),
    "spread 1e30": lambda: spread(1e30),
    "wide transition": wide_transition,
    "empty rows": empty_rows,
    "per step wide": per_step_wide,
    "cliffs": cliffs,
    "dead states": dead_states,
    "one forbidden": one_forbidden,
}
hard = pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())


@pytest.fixture(params=["f32", "f64"])
def case(request, build):
    return build() if request.param == "f32" else build().to(torch.float64)


def wide(case):
    return case.to(torch.float64)


@hard
def test_log_partition(build, case, native):
    z = ops.log_partition(*case)
    assert_nats(
        z, reference.chain.log_partition(*wide(case)), torch.float32 if z.dtype == torch.float32 else None
    )
    assert NATS[torch.float32] <= 1e-6


@hard
def test_marginals(build, case, native):
    assert PROBABILITIES[torch.float32] <= 1e-5
    mine, exact = ops.marginals(*case), reference.chain.marginals(*wide(case))
    pairs = [*zip(mine, exact, strict=True), (ops.state_marginals(*case), exact[0])]
    for found, expected in pairs:
        tolerance = torch.float32 if found.dtype == torch.float32 else None
        assert_probabilities(found, expected, tolerance)


@hard
def test_gradient(build, case, native):
    leafy, leaves = case.leaves()
    wide_leafy, wide_leaves = wide(case).leaves()
    z = reference.chain.log_partition(*wide_leafy)
    found = torch.autograd.grad(ops.log_partition(*leafy), leaves, torch.ones(B, dtype=leaves[0].dtype))
    for mine, theirs in zip(found, torch.autograd.grad(z.sum(), wide_leaves), strict=True):
        assert_probabilities(mine, theirs, mine.dtype)


@hard
def test_viterbi_and_k_best(build, case, native):
    expected = ops.score(reference.chain.topk(*wide(case), k=3), *wide(case))
    assert_nats(ops.score(ops.topk(*case, k=3), *wide(case)), expected, case.unary.dtype)
    assert_nats(ops.score(ops.argmax(*case), *wide(case)), expected[0], case.unary.dtype)


@hard
def test_filter_and_max_marginals(build, case, native):
    found, expected = ops.filter(*case), reference.chain.filter(*wide(case))
    assert_probabilities(found.exp(), expected.exp(), case.unary.dtype)
    assert_nats(ops.max_marginals(*case)[0], reference.chain.max_marginals(*wide(case))[0], case.unary.dtype)


@hard
def test_samples_are_possible(build, case, native):
    states = ops.sample(*case, num_samples=4, seed=11)
    possible = reference.chain.log_partition(*wide(case)).isfinite()
    assert ops.score(states, *wide(case))[:, possible].isfinite().all()
    assert states[:, ~possible].eq(-1).all()


@hard
def test_second_order_is_finite(build, case, native):
    leafy, leaves = case.leaves()
    z = ops.log_partition(*leafy)
    first = torch.autograd.grad(z.sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves)
    assert not any(x.isnan().any() for x in second)


@pytest.mark.parametrize("step", [-1.0, 1.0])
def test_shift_of_a_position_shifts_log_z(step, native):
    case = masked()
    moved = case._replace(unary=case.unary + step * 1e5)
    expected = reference.chain.log_partition(*wide(case)) + step * 1e5 * N
    assert_nats(ops.log_partition(*moved, as_double=True), expected, torch.float32)
