"""Every query against enumeration (small) and the chain of joint states in float64 (awkward sizes)."""

import pytest
import torch

from structlv import reference
from structlv.ops import factorial as ops
from tests.cases import SMALL_FACTORIALS, factorial, name
from tests.ops.queries import FACTORIAL_QUERIES, factorial_score, sized
from tests.oracle import EnumeratedFactorial
from tests.tolerance import assert_nats, assert_probabilities

log_partition, marginals = sized(ops.log_partition), sized(ops.marginals)
argmax, sample = sized(ops.argmax), sized(ops.sample)
small = pytest.mark.parametrize("options", SMALL_FACTORIALS, ids=name)
AWKWARD = [(1,), (17,), (16, 3), (1, 5, 1), (5, 7), (2,) * 7, (8, 8), (2, 33), (65, 2), (3, 1, 4, 2)]
AWKWARD += [(4, 8, 16)]
rest = [(1 + i % 3, "shared") if i % 2 else (37, "item") for i in range(len(AWKWARD))]
shared = [(k, *x) for k, x in zip(AWKWARD + AWKWARD, rest + rest[::-1], strict=True)]
awkward = pytest.mark.parametrize(("sizes", "n", "sharing"), shared, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@small
def test_log_partition(options, backend):
    case = factorial(**options)
    assert_nats(log_partition(*case), EnumeratedFactorial(case).log_partition())


@small
def test_marginals(options, backend):
    case = factorial(**options)
    unary, edges = EnumeratedFactorial(case).marginals()
    for per_step in (False, True):
        found = marginals(*case, edges=per_step)
        assert_probabilities(found[0], unary)
        assert_probabilities(found[1], edges if per_step else edges.sum(-2))


@small
def test_argmax(options, backend):
    case = factorial(**options)
    best, top = argmax(*case), EnumeratedFactorial(case).topk(1)[0]
    assert_nats(torch.where(top.isfinite(), factorial_score(best, *case), -torch.inf), top)
    assert best[~top.isfinite()].eq(-1).all()


@small
def test_score(options, backend):
    case = factorial(**options)
    *batch, n, joint = case.unary.shape
    states = torch.randint(0, joint, (2, 3, *batch, n))
    found = factorial_score(states, *case).view(6, -1)
    rows = states.view(6, max(found.shape[1], 1) if n else -1, n) if states.numel() else None
    for b, (paths, scores) in enumerate(EnumeratedFactorial(case).items):
        size = paths.shape[-1]
        own = states.new_zeros(6, 0) if rows is None else rows[:, b, :size]
        where = (own[:, None] == paths).all(-1).int().argmax(-1)
        assert_nats(found[:, b], scores[where])


@pytest.mark.parametrize("illegal", [-1, -7, 6, 1000])
def test_score_of_an_illegal_state_is_minus_infinity(illegal, backend):
    case = factorial()._replace(lengths=torch.tensor([4, 3, 0]))
    states = torch.zeros(3, 4, dtype=torch.long)
    states[:, 3] = illegal
    scores = factorial_score(states, *case)
    assert scores[0] == -torch.inf
    assert scores[1].isfinite()
    assert scores[2] == 0


@awkward
@dtypes
def test_awkward_sizes(sizes, n, sharing, dtype, native):
    case = factorial((2,), n, sizes, sharing, holes=0.1, dtype=dtype)
    joint = case.to(torch.float64).chain()
    assert_nats(log_partition(*case), reference.chain.log_partition(*joint), dtype)
    assert_probabilities(marginals(*case)[0], reference.chain.marginals(*joint)[0], dtype)
    best = reference.chain.score(reference.chain.argmax(*joint), *joint)
    assert_nats(reference.chain.score(argmax(*case), *joint), best, dtype)


@awkward
@dtypes
def test_kernels_are_the_reference(sizes, n, sharing, dtype, native):
    case = factorial((5,), n, sizes, sharing, holes=0.05, seed=1, dtype=dtype)
    wide = case.to(torch.float64)
    pairs = (marginals(*case, edges=x) for x in (False, True))
    exact = (sized(reference.factorial.marginals)(*wide, edges=x) for x in (False, True))
    for mine, theirs in zip(pairs, exact, strict=True):
        for found, expected in zip(mine, theirs, strict=True):
            assert_probabilities(found, expected, dtype)
    weight = torch.tensor([0.5, -2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    (case, leaves), (wide, wide_leaves) = case.leaves(), wide.leaves()
    z, z_wide = log_partition(*case, as_double=True), sized(reference.factorial.log_partition)(*wide)
    assert_nats(z, z_wide, dtype)
    found = torch.autograd.grad(z, leaves, weight)
    for mine, theirs in zip(found, torch.autograd.grad(z_wide, wide_leaves, weight), strict=True):
        assert_probabilities(mine, theirs, dtype)


def test_as_double_is_wider_than_float32(native):
    case = factorial(n=200, ragged=False, dtype=torch.float32, scale=10.0)
    z = log_partition(*case, as_double=True)
    assert z.dtype == torch.float64
    assert_nats(z, sized(reference.factorial.log_partition)(*case.to(torch.float64)), torch.float32)
    assert torch.equal(z.float(), log_partition(*case))


def test_ties_go_to_the_lowest_joint_state(backend):
    unary = torch.zeros(2, 3, 6)
    assert not ops.argmax(unary, torch.zeros(13), sizes=(2, 3)).any()
    unary[:, 1, [4, 5]] = 1.0  # from the last position: the first of the two
    assert torch.equal(ops.argmax(unary, torch.zeros(13), sizes=(2, 3))[0], torch.tensor([0, 4, 0]))
    for batch in (1, 2, 40):  # in lanes, and beside one another
        unary = torch.zeros(batch, 3, 4 * 8 * 16)
        unary[:, 1, [37, 300, 460]] = 1.0
        best = ops.argmax(unary, torch.zeros(4 * 4 + 8 * 8 + 16 * 16), sizes=(4, 8, 16))
        assert best.tolist() == [[0, 37, 0]] * batch


def test_no_structure_possible(backend):
    case = factorial((2,), ragged=False)
    case.unary[0, 2] = -torch.inf
    assert torch.equal(log_partition(*case).isinf(), torch.tensor([True, False]))
    for edges in (False, True):
        assert not any(x[0].any() for x in marginals(*case, edges=edges))
    assert argmax(*case)[0].eq(-1).all()
    assert sample(*case, num_samples=3, seed=1)[:, 0].eq(-1).all()
    leafy, leaves = case.leaves()
    for gradient in torch.autograd.grad(log_partition(*leafy).sum(), leaves):
        assert not gradient.isnan().any()
    assert not torch.autograd.grad(log_partition(*leafy)[0], leaves[0])[0].any()


def test_lengths_are_clamped(backend):
    case = factorial((3,), 4)
    wild = case._replace(lengths=torch.tensor([-5, 99, 2]))
    tame = case._replace(lengths=torch.tensor([0, 4, 2]))
    for query in FACTORIAL_QUERIES.values():
        found, expected = query(*wild), query(*tame)
        found, expected = (x if isinstance(x, tuple) else (x,) for x in (found, expected))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
