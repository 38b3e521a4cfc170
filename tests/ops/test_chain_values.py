"""Every query against enumeration (small) and the reference in float64 (awkward sizes), on both backends."""

import pytest
import torch

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import AWKWARD_LENGTHS, AWKWARD_STATES, SHARINGS, SMALL, chain, name
from tests.oracle import Enumerated, filtered
from tests.tolerance import assert_nats, assert_probabilities

small = pytest.mark.parametrize("options", SMALL, ids=name)
awkward = [
    (n, k, SHARINGS[i % 4])
    for i, (k, n) in enumerate((k, n) for k in AWKWARD_STATES for n in AWKWARD_LENGTHS)
]
sizes = pytest.mark.parametrize(("n", "k", "sharing"), awkward, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def per_step(case):
    return case.transition.dim() == case.unary.dim() + 1


@small
def test_log_partition(options, backend):
    case = chain(**options)
    assert_nats(ops.log_partition(*case), Enumerated(case).log_partition())


@small
def test_marginals(options, backend):
    case = chain(**options)
    unary, edges = Enumerated(case).marginals()
    for want_edges in (False, True):
        found = ops.marginals(*case, edges=want_edges)
        assert_probabilities(found[0], unary)
        assert_probabilities(found[1], edges if want_edges or per_step(case) else edges.sum(-3))


@small
def test_argmax_and_topk(options, backend):
    case, oracle = chain(**options), Enumerated(chain(**options))
    best = ops.topk(*case, k=6)
    scores = ops.score(best, *case)
    assert_nats(torch.where(_is_structure(best, case), scores, -torch.inf), oracle.topk(6))
    assert torch.equal(ops.argmax(*case), best[0])
    assert torch.equal(ops.topk(*case, k=2), best[:2]), "k best is a prefix of more"
    for b, item in enumerate(best.flatten(1, -2).unbind(1) if best.dim() > 2 else [best]):
        found = [tuple(row) for row in item.tolist() if any(state >= 0 for state in row)]
        assert len(set(found)) == len(found), f"item {b} repeats a structure"


def _is_structure(states, case):
    """All -1 means none, unless the item is empty: then the first of the k is its one structure."""
    n = case.unary.shape[-2]
    sizes = torch.full(states.shape[1:-1], n) if case.lengths is None else case.lengths
    first = torch.zeros(states.shape[:-1], dtype=torch.bool)
    first[0] = True
    return (states >= 0).any(-1) | ((sizes == 0) & first)


@small
def test_max_marginals(options, backend):
    case = chain(**options)
    unary, edges = Enumerated(case).max_marginals()
    found = ops.max_marginals(*case)
    assert_nats(found[0], unary)
    if per_step(case):
        assert_nats(found[1], edges)
    else:
        assert_nats(found[1], edges.amax(-3) if edges.shape[-3] else torch.full_like(found[1], -torch.inf))


@small
def test_filter(options, backend):
    case = chain(**options)
    assert_nats(ops.filter(*case), filtered(case))


@small
def test_score(options, backend):
    case = chain(**options)
    *batch, n, k = case.unary.shape
    states = torch.randint(0, k, (2, 3, *batch, n))
    for index, (paths, scores) in zip(_indices(batch), Enumerated(case).items, strict=True):
        size = paths.shape[-1]
        rows = states[(slice(None), slice(None), *index)][..., :size].reshape(6, size)
        where = (rows[:, None] == paths).all(-1).int().argmax(-1)
        found = ops.score(states, *case)[(slice(None), slice(None), *index)].flatten()
        assert_nats(found, scores[where])


def _indices(batch):
    return (
        list(torch.cartesian_prod(*[torch.arange(b) for b in batch]).view(-1, len(batch)).tolist())
        if batch
        else [()]
    )


@pytest.mark.parametrize("illegal", [-1, -7, 3, 1000])
def test_score_of_an_illegal_state_is_minus_infinity(illegal, backend):
    case = chain()._replace(lengths=torch.tensor([4, 3, 0]))
    states = torch.zeros(3, 4, dtype=torch.long)
    states[:, 3] = illegal
    scores = ops.score(states, *case)
    assert scores[0] == -torch.inf
    assert scores[1].isfinite()
    assert scores[2] == 0


@sizes
@dtypes
def test_awkward_sizes(n, k, sharing, dtype, native):
    case = chain(batch=(2,), n=n, k=k, sharing=sharing, holes=0.1, dtype=dtype)
    wide = case.to(torch.float64)
    assert_nats(ops.log_partition(*case), reference.chain.log_partition(*wide), dtype)
    assert_nats(ops.filter(*case).exp(), reference.chain.filter(*wide).exp(), dtype)
    for found, expected in zip(ops.marginals(*case), reference.chain.marginals(*wide), strict=True):
        assert_probabilities(found, expected, dtype)
    for found, expected in zip(ops.max_marginals(*case), reference.chain.max_marginals(*wide), strict=True):
        assert_nats(found, expected, dtype)
    best = ops.topk(*case, k=3)
    assert_nats(ops.score(best, *wide), ops.score(reference.chain.topk(*wide, k=3), *wide), dtype)
    assert_nats(ops.score(ops.argmax(*case), *wide), ops.score(best[0], *wide), dtype)


@sizes
def test_awkward_sizes_gradient(n, k, sharing, native):
    case, leaves = chain(batch=(2,), n=n, k=k, sharing=sharing, holes=0.1, dtype=torch.float32).leaves()
    wide, wide_leaves = case.to(torch.float64).leaves()
    weight = torch.tensor([0.5, -2.0], dtype=torch.float64)
    found = torch.autograd.grad(ops.log_partition(*case), leaves, weight.float())
    expected = torch.autograd.grad(reference.chain.log_partition(*wide), wide_leaves, weight)
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs, torch.float32)


def test_as_double_is_wider_than_float32(native):
    case = chain(n=200, k=5, ragged=False, dtype=torch.float32, scale=10.0)
    z = ops.log_partition(*case, as_double=True)
    assert z.dtype == torch.float64
    assert_nats(z, reference.chain.log_partition(*case.to(torch.float64)), torch.float32)
    assert torch.equal(z.float(), ops.log_partition(*case))


def test_ties_go_to_the_lowest_index(backend):
    zeros = torch.zeros(2, 3, 4), torch.zeros(4, 4)
    assert not ops.argmax(*zeros).any()
    assert ops.topk(*zeros, k=2)[0].eq(0).all()


def test_no_structure_possible(backend):
    case = chain(batch=(2,), ragged=False)
    case.unary[0, 2] = -torch.inf
    assert torch.equal(ops.log_partition(*case).isinf(), torch.tensor([True, False]))
    assert not ops.marginals(*case)[0][0].any()
    assert ops.argmax(*case)[0].eq(-1).all()
    assert ops.topk(*case, k=2)[:, 0].eq(-1).all()
    assert ops.sample(*case, num_samples=3, seed=1)[:, 0].eq(-1).all()
    assert ops.filter(*case)[0, 2:].eq(-torch.inf).all()
    assert ops.max_marginals(*case)[0][0].eq(-torch.inf).all()
    leafy, leaves = case.leaves()
    for gradient in torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves):
        assert not gradient.isnan().any()
    assert not torch.autograd.grad(ops.log_partition(*leafy)[0], leaves[0])[0].any()


def test_lengths_are_clamped(backend):
    case = chain(batch=(3,), n=4)
    wild = case._replace(lengths=torch.tensor([-5, 99, 2]))
    tame = case._replace(lengths=torch.tensor([0, 4, 2]))
    assert torch.equal(ops.log_partition(*wild), ops.log_partition(*tame))
    assert torch.equal(ops.marginals(*wild)[0], ops.marginals(*tame)[0])
