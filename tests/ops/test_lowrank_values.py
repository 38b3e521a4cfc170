"""Every query against the dense PCFG of the same rules (small) and the reference (awkward sizes)."""

import itertools

import pytest
import torch

from structlv import reference
from structlv.ops import lowrank as ops
from structlv.reference import enumerate as brute
from tests.cases import HEADS, SMALL_LOWRANKS, SPANS, lowrank, name
from tests.oracle import EnumeratedTrees
from tests.tolerance import assert_nats, assert_probabilities

small = pytest.mark.parametrize("options", SMALL_LOWRANKS, ids=name)
heads = pytest.mark.parametrize("heads", HEADS)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
sizes = pytest.mark.parametrize(
    ("n", "symbols", "rank", "spans"),
    [
        (n, symbols, rank, SPANS[i % 4])
        for i, ((symbols, rank), n) in enumerate(
            itertools.product(
                [
                    ((1, 1), 1),
                    ((1, 5), 16),
                    ((3, 2), 17),
                    ((5, 17), 33),
                    ((16, 16), 5),
                    ((17, 33), 64),
                    ((33, 65), 2),
                ],
                [2, 3, 9],
            )
        )
    ],
    ids=str,
)


@small
def test_against_enumeration(options, backend):
    case = lowrank(**options)
    oracle = EnumeratedTrees(case.dense())
    assert_nats(ops.log_partition(*case), oracle.log_partition())
    root, _, unary, spans = oracle.marginals()
    found = ops.marginals(*case)
    for mine, theirs in zip((found[0], found[4], found[5]), (root, unary, spans), strict=True):
        assert_probabilities(mine, theirs)


@small
def test_gradients_of_the_dense_rules(options, backend):
    """Marginals of head, left and right are the gradient of the log-partition through the dense rules."""
    case, leaves = lowrank(**options).leaves()
    z, dense = ops.log_partition(*case), reference.pcfg.log_partition(*case.dense())
    possible = dense.isfinite()
    weight = torch.linspace(-1, 2, max(z.numel(), 1), dtype=z.dtype)[: z.numel()].view(z.shape)
    found = torch.autograd.grad((z * weight)[possible].sum(), leaves, allow_unused=True)
    expected = torch.autograd.grad((dense * weight)[possible].sum(), leaves, allow_unused=True)
    for mine, theirs, x in zip(found, expected, leaves, strict=True):
        mine, theirs = (torch.zeros_like(x) if y is None else y for y in (mine, theirs))
        assert_probabilities(mine, theirs)


@small
def test_marginals_are_each_item_s_gradient(options, backend):
    case = lowrank(**options)
    full, leaves = case.full().map(torch.clone).leaves()
    z = ops.log_partition(*full)
    gradients = torch.autograd.grad(z[z.isfinite()].sum(), leaves, allow_unused=True)
    parts = [x for x, potential in zip(ops.marginals(*case), full[:6], strict=True) if potential is not None]
    for part, gradient, x in zip(parts, gradients, leaves, strict=True):
        gradient = torch.zeros_like(x) if gradient is None else gradient
        assert_probabilities(part.sum_to_size(x.shape) if part.shape != x.shape else part, gradient)


@heads
def test_parts_that_are_not_wanted_are_none(heads, backend):
    case = lowrank(heads=heads)
    wanted = ops.marginals(*case)
    for with_rules, with_spans in itertools.product((False, True), repeat=2):
        found = ops.marginals(*case, with_rules=with_rules, with_spans=with_spans)
        there = [x is not None for x in found]
        assert there == [True, with_rules and heads == "rank", with_rules, with_rules, True, with_spans]
        for a, b in zip(found, wanted, strict=True):
            assert a is None or torch.equal(a, b)


@pytest.mark.parametrize("spans", SPANS)
@heads
def test_score_of_every_tree(heads, spans, backend):
    case = lowrank(heads=heads, spans=spans, ragged=False, holes=0.1)
    trees = brute.trees(4, 2, 2)[:, None].expand(-1, 3, -1, -1)
    expected = torch.stack([scores for _, scores in brute.tree_items(*case.dense())], -1)
    assert_nats(ops.score(trees, *case), expected)


@sizes
@heads
@dtypes
def test_awkward_sizes(n, symbols, rank, spans, heads, dtype, native):
    case = lowrank((2,), n, symbols, rank, heads, spans=spans, holes=0.1, dtype=dtype)
    (narrow, leaves), (wide, wide_leaves) = case.leaves(), case.to(torch.float64).leaves()
    z, expected = ops.log_partition(*narrow, as_double=True), reference.lowrank.log_partition(*wide)
    assert_nats(z, expected, dtype)
    for mine, theirs in zip(ops.marginals(*case), reference.lowrank.marginals(*wide), strict=True):
        assert theirs is None or assert_probabilities(mine, theirs, dtype) is None
    weight = torch.tensor([0.5, -2.0], dtype=torch.float64)
    some = expected.isfinite()
    if some.any():
        found = torch.autograd.grad((z * weight)[some].sum(), leaves)
        gradients = torch.autograd.grad((expected * weight)[some].sum(), wide_leaves)
        for mine, theirs in zip(found, gradients, strict=True):
            assert_probabilities(mine, theirs, dtype)


FOLDED = [
    {"n": n, "symbols": symbols, "rank": rank, "grammar": grammar, "spans": spans}
    for (symbols, rank), n in itertools.product(
        [((2, 3), 1), ((9, 4), 4), ((33, 17), 16), ((40, 3), 17)], [2, 7, 9]
    )
    for grammar, spans in [("shared", None), ("item", "one")]
]


@pytest.mark.parametrize("options", FOLDED, ids=name)
@pytest.mark.parametrize("holes", [0.0, 0.2])
@dtypes
def test_few_ranks_for_many_nonterminals(options, holes, dtype, native):
    """Then nonterminals are summed out of the rules beforehand, in sentences that are long enough."""
    case = lowrank((4,), holes=holes, dtype=dtype, seed=9, **options)
    (narrow, leaves), (wide, wide_leaves) = case.leaves(), case.to(torch.float64).leaves()
    z, expected = ops.log_partition(*narrow, as_double=True), reference.lowrank.log_partition(*wide)
    assert_nats(z, expected, dtype)
    weight, some = torch.tensor([0.5, -2.0, 1.0, 3.0], dtype=torch.float64), expected.isfinite()
    found = torch.autograd.grad((z * weight)[some].sum(), leaves)
    gradients = torch.autograd.grad((expected * weight)[some].sum(), wide_leaves)
    for mine, theirs in zip(found, gradients, strict=True):
        assert_probabilities(mine, theirs, dtype)
    theirs = reference.lowrank.marginals(*wide)
    for with_spans in (False, True):
        mine = ops.marginals(*case, with_spans=with_spans)
        for a, b in zip(mine, theirs, strict=True):
            assert a is None or assert_probabilities(a, b, dtype) is None


@pytest.mark.parametrize("shift", [200.0, 3000.0])
@dtypes
def test_a_root_far_from_the_rest(dtype, shift, native):
    """Only the last nonterminal may be at the top, and its ranks are unlikely under all others."""
    case = lowrank((3,), 8, (12, 5), 6, ragged=False, dtype=dtype)
    case.root[:11] -= shift
    case.head[11] -= 100.0
    (narrow, leaves), (wide, wide_leaves) = case.leaves(), case.to(torch.float64).leaves()
    z, expected = ops.log_partition(*narrow, as_double=True), reference.lowrank.log_partition(*wide)
    assert_nats(z, expected, dtype)
    gradients = torch.autograd.grad(expected.sum(), wide_leaves)
    for mine, theirs in zip(torch.autograd.grad(z.sum(), leaves), gradients, strict=True):
        assert_probabilities(mine, theirs, dtype)


@heads
@dtypes
def test_long_sentences(heads, dtype, native):
    case = lowrank((9,), 40, (30, 40), 50, heads, dtype=dtype)
    wide = case.to(torch.float64)
    assert_nats(ops.log_partition(*case), reference.lowrank.log_partition(*wide), dtype)
    for mine, theirs in zip(ops.marginals(*case), reference.lowrank.marginals(*wide), strict=True):
        assert theirs is None or assert_probabilities(mine, theirs, dtype) is None


@heads
def test_no_tree_possible(heads, backend):
    case = lowrank((2,), heads=heads, spans="label", ragged=False)
    case.unary[0, 2] = -torch.inf
    assert torch.equal(ops.log_partition(*case).isinf(), torch.tensor([True, False]))
    assert not any(x[0].any() for x in ops.marginals(*case) if x is not None)
    assert ops.sample(*case, num_samples=3, seed=1)[:, 0].eq(-1).all()
    leafy, leaves = case.leaves()
    for gradient in torch.autograd.grad(ops.log_partition(*leafy)[0], leaves):
        assert not gradient.any()


@pytest.mark.parametrize("n", [0, 1])
@heads
def test_fewer_than_two_words_have_no_tree(heads, n, backend):
    case, leaves = lowrank(n=n, heads=heads, spans="label", ragged=False).leaves()
    z = ops.log_partition(*case)
    assert z.eq(-torch.inf).all()
    assert not any(x.any() for x in torch.autograd.grad(z.sum(), leaves))
    assert not any(x.any() for x in ops.marginals(*case) if x is not None)
    assert ops.sample(*case, num_samples=2, seed=0).eq(-1).all()
    assert ops.score(torch.zeros(2, 3, n, 3, dtype=torch.long), *case).eq(-torch.inf).all()


def test_lengths_are_clamped(backend):
    case = lowrank(n=4)
    wild, tame = (case._replace(lengths=torch.tensor(x)) for x in ([-5, 99, 2], [0, 4, 2]))
    assert torch.equal(ops.log_partition(*wild), ops.log_partition(*tame))
    for a, b in zip(ops.marginals(*wild), ops.marginals(*tame), strict=True):
        assert torch.equal(a, b)


# ---- dynamic range ---------------------------------------------------------------------------------------


def spread(seed=3):
    return lowrank((3,), 9, (5, 7), 6, spans="label", ragged=False, seed=seed)


def hopeless_then_needed(nats):
    """Rank 0 is hopeless under every nonterminal, and the only one that has what the last word needs."""
    case = spread()
    case.head[:, 0] = -nats
    case.left[1:, 5] = case.right[1:, 5] = -torch.inf
    case.unary[:, -1, 1:] = -torch.inf
    return case


def late_rescue(nats):
    """A nonterminal falls behind a little in every span, and only it may cover the sentence."""
    case = spread()
    case.root[1:] = -torch.inf
    case.spans[..., 0] -= nats
    case.spans[:, 0, -1, 0] += 30 * nats
    return case


def vanishing(nats):
    """The only node of two words is unlikely in three ways."""
    case = lowrank((3,), 2, (5, 2), 6, spans="label", ragged=False, scale=0.0)
    case.root[:4] = case.left[1:, 5] = case.head[4, 0] = -torch.inf
    case.head[4] -= nats
    case.unary[..., 1] -= nats
    case.spans[..., 4] -= nats
    return case


HARD = {
    **{
        f"{scale:g} nats": lambda s=scale: spread().map(lambda x: x * s)
        for scale in (30.0, 100.0, 1e3, 1e4, 1e30)
    },
    **{f"shift by {shift:g}": lambda s=shift: spread().map(lambda x: x + s) for shift in (1e4, -1e4)},
    **{
        f"hopeless by {nats:g}": lambda x=nats: hopeless_then_needed(x)
        for nats in (50.0, 90.0, 400.0, 2000.0)
    },
    **{f"late by {nats:g}": lambda x=nats: late_rescue(x) for nats in (8.0, 20.0, 120.0)},
    **{f"vanishing by {nats:g}": lambda x=nats: vanishing(x) for nats in (36.0, 300.0)},
    "masks of -1e9": lambda: spread().map(lambda x: torch.where(x > 1.2, -1e9, x)),
    "mostly forbidden": lambda: lowrank((8,), 9, (5, 7), 6, spans="label", holes=0.5, seed=11),
    "ranks a world apart": lambda: spread()._replace(
        left=spread().left + 200.0 * torch.arange(6.0)[:, None],
        right=spread().right - 200.0 * torch.arange(6.0)[:, None],
    ),
}


@pytest.mark.parametrize("case", HARD.values(), ids=HARD.keys())
@heads
@dtypes
def test_hard_dynamic_range(case, heads, dtype, native):
    case = case()
    if heads == "simple":
        case = case._replace(head=None, left=case.left[:5], right=case.right[:5])
    case = case.to(dtype)
    (narrow, leaves), (wide, wide_leaves) = case.leaves(), case.to(torch.float64).leaves()
    z, expected = ops.log_partition(*narrow, as_double=True), reference.lowrank.log_partition(*wide)
    assert_nats(z, expected, dtype)
    some = expected.isfinite()
    for mine, theirs in zip(ops.marginals(*case), reference.lowrank.marginals(*wide), strict=True):
        assert theirs is None or assert_probabilities(mine, theirs, dtype) is None
    if some.any():
        found = torch.autograd.grad(z[some].sum(), leaves)
        for mine, theirs in zip(found, torch.autograd.grad(expected[some].sum(), wide_leaves), strict=True):
            assert_probabilities(mine, theirs, dtype)


def test_weights_far_apart(native):
    """A tiny weight loses no digits of its item's own gradients to a large one."""
    case = lowrank((3,), 6, (3, 4), 5, grammar="item", ragged=False, dtype=torch.float32)
    for weight in ([1.0, 1e-12, 1e12], [0.0, 1e-30, 1.0]):
        leafy, leaves = case.leaves()
        found = torch.autograd.grad(ops.log_partition(*leafy), leaves, torch.tensor(weight))
        for b in range(3):
            one, own = case.item((b,)).leaves()
            expected = torch.autograd.grad(ops.log_partition(*one), own, torch.tensor(weight[b]))
            for mine, theirs in zip(found, expected, strict=True):
                assert torch.allclose(mine[b], theirs, rtol=1e-6, atol=0)


# ---- samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spans", SPANS)
@heads
def test_kernels_and_reference_draw_the_same(heads, spans, native):
    case = lowrank((5,), 9, (5, 7), 6, heads, spans=spans, holes=0.1)
    drawn = ops.sample(*case, num_samples=20, seed=2**40 + 7)
    assert torch.equal(drawn, reference.lowrank.sample(*case, num_samples=20, seed=2**40 + 7))


@pytest.mark.parametrize("scale", [1.0, 30.0, 400.0])
@dtypes
@heads
def test_every_rung_draws_alike(heads, dtype, scale, native):
    """float32, float64 and log space: the same uniforms take the same trees but for rounding."""
    case = lowrank((3,), 7, (4, 5), 6, heads, scale=scale, ragged=False).to(torch.float32).to(dtype)
    narrow = case.to(torch.float32)
    drawn = ops.sample(*case, num_samples=50, seed=1)
    assert bool((ops.score(drawn, *case) > -torch.inf).all())
    same = (drawn == reference.lowrank.sample(*case, num_samples=50, seed=1)).all(-1).all(-1)
    assert float(same.double().mean()) > 0.97
    assert ops.sample(*narrow, num_samples=2, seed=1).shape == (2, 3, 13, 3)


@heads
@dtypes
def test_samples_have_the_law_of_the_dense_posterior(heads, dtype, native):
    from tests.ops.queries import chi_square_p
    from tests.tolerance import CHI_SQUARE

    case = lowrank((2,), 3, (2, 2), 3, heads, ragged=False, holes=0.05, dtype=dtype)
    drawn = ops.sample(*case, num_samples=20000, seed=5)
    for b, (trees, scores) in enumerate(brute.tree_items(*case.dense())):
        counts = (drawn[:, b, None] == trees).all(-1).all(-1).sum(0)
        assert counts.sum() == 20000
        assert chi_square_p(counts, (scores - scores.logsumexp(0)).exp()) > CHI_SQUARE
