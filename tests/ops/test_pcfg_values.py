"""Every query against enumeration (small) and the reference in float64 (awkward sizes), on both backends."""

import itertools

import pytest
import torch

from structlv import reference
from structlv.ops import pcfg as ops
from structlv.reference import enumerate as brute
from tests.cases import SMALL_PCFGS, SPANS, name, pcfg
from tests.ops.queries import right_branching
from tests.oracle import EnumeratedTrees
from tests.tolerance import assert_nats, assert_probabilities

small = pytest.mark.parametrize("options", SMALL_PCFGS, ids=name)
sizes = pytest.mark.parametrize(
    ("n", "symbols", "spans"),
    [
        (n, symbols, SPANS[i % 4])
        for i, (symbols, n) in enumerate(
            itertools.product([(1, 1), (1, 5), (3, 2), (5, 17), (16, 16), (17, 33), (2, 65)], [2, 3, 9])
        )
    ],
    ids=str,
)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@small
def test_log_partition_and_marginals(options, backend):
    case, oracle = pcfg(**options), EnumeratedTrees(pcfg(**options))
    assert_nats(ops.log_partition(*case), oracle.log_partition())
    for found, expected in zip(ops.marginals(*case), oracle.marginals(), strict=True):
        assert_probabilities(found, expected)
    for found, expected in zip(ops.max_marginals(*case), oracle.max_marginals(), strict=True):
        assert_nats(found, expected)


@small
def test_argmax_and_topk(options, backend):
    case, oracle = pcfg(**options), EnumeratedTrees(pcfg(**options))
    best = ops.topk(*case, k=6)
    assert_nats(ops.score(best, *case), oracle.topk(6))
    assert torch.equal(ops.argmax(*case), best[0])
    assert torch.equal(ops.topk(*case, k=2), best[:2]), "k best is a prefix of more"
    for b, item in enumerate(best.flatten(1, -3).unbind(1) if best.dim() > 3 else [best]):
        found = [tuple(tree.flatten().tolist()) for tree in item if tree.numel() and tree[0, 0] >= 0]
        assert len(set(found)) == len(found), f"item {b} repeats a tree"


def test_parts_that_are_not_wanted_are_none(backend):
    case = pcfg()
    wanted = ops.marginals(*case)
    for with_rules, with_spans in itertools.product((False, True), repeat=2):
        found = ops.marginals(*case, with_rules=with_rules, with_spans=with_spans)
        assert (found[1] is not None, found[3] is not None) == (with_rules, with_spans)
        for a, b in zip(found, wanted, strict=True):
            assert a is None or torch.equal(a, b)


@pytest.mark.parametrize("spans", SPANS)
def test_score_of_every_tree(spans, backend):
    case = pcfg(spans=spans, ragged=False)
    trees = brute.trees(4, 2, 2)[:, None].expand(-1, 3, -1, -1)
    expected = torch.stack([scores for _, scores in brute.tree_items(*case)], -1)
    assert_nats(ops.score(trees, *case), expected)


LEGAL = [[0, 2, 0], [0, 1, 1], [0, 0, 2], [1, 1, 3], [2, 2, 2], [-1, -1, -1], [-1, -1, -1]]
ILLEGAL = {
    "nothing": {row: [-1, -1, -1] for row in range(5)},
    "preterminal at the top": {0: [0, 2, 2]},
    "nonterminal at a word": {2: [0, 0, 1]},
    "symbol too large": {4: [2, 2, 4]},
    "negative symbol": {1: [0, 1, -1]},
    "whole span too short": {0: [0, 1, 0]},
    "whole span too long": {0: [0, 3, 0]},
    "another first word": {0: [1, 2, 0]},
    "child as wide as its parent": {1: [0, 2, 1]},
    "children overlap": {4: [1, 2, 1]},
    "children leave a gap": {1: [0, 0, 2]},
    "children swapped": {2: [1, 1, 3], 3: [0, 0, 2]},
    "backwards": {1: [1, 0, 1]},
    "far away": {1: [2**62, -(2**62), 2**40]},
}


@pytest.mark.parametrize("rows", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_score_of_what_is_no_tree_is_minus_infinity(rows, backend):
    case = pcfg(batch=(2,), spans="label")._replace(lengths=torch.tensor([3, 3]))
    event = torch.tensor([LEGAL, LEGAL])
    for row, values in rows.items():
        event[1, row] = torch.tensor(values)
    scores = ops.score(event, *case)
    assert scores[0].isfinite()
    assert scores[1] == -torch.inf
    event[0, 5:] = 99  # padding
    assert torch.equal(ops.score(event, *case), scores)


@sizes
@dtypes
def test_awkward_sizes(n, symbols, spans, dtype, native):
    case = pcfg(batch=(2,), n=n, symbols=symbols, spans=spans, holes=0.1, dtype=dtype)
    wide = case.to(torch.float64)
    assert_nats(ops.log_partition(*case), reference.pcfg.log_partition(*wide), dtype)
    for found, expected in zip(ops.marginals(*case), reference.pcfg.marginals(*wide), strict=True):
        assert_probabilities(found, expected, dtype)
    for found, expected in zip(ops.max_marginals(*case), reference.pcfg.max_marginals(*wide), strict=True):
        assert_nats(found, expected, dtype)
    best = ops.topk(*case, k=2)
    assert_nats(ops.score(ops.argmax(*case), *wide), ops.score(best[0], *wide), dtype)
    k = 2 if sum(symbols) * n < 200 else 1  # the reference looks at all pairs of children
    assert_nats(ops.score(best[:k], *wide), ops.score(reference.pcfg.topk(*wide, k=k), *wide), dtype)


@sizes
def test_awkward_sizes_gradient(n, symbols, spans, native):
    case = pcfg(batch=(2,), n=n, symbols=symbols, spans=spans, holes=0.1, dtype=torch.float32)
    (narrow, leaves), (wide, wide_leaves) = case.leaves(), case.to(torch.float64).leaves()
    weight = torch.tensor([0.5, -2.0], dtype=torch.float64)
    found = torch.autograd.grad(ops.log_partition(*narrow), leaves, weight.float())
    expected = torch.autograd.grad(reference.pcfg.log_partition(*wide), wide_leaves, weight)
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs, torch.float32)


def test_as_double_is_wider_than_float32(native):
    case = pcfg(n=20, symbols=(3, 4), ragged=False, dtype=torch.float32, scale=10.0)
    z = ops.log_partition(*case, as_double=True)
    assert z.dtype == torch.float64
    assert_nats(z, reference.pcfg.log_partition(*case.to(torch.float64)), torch.float32)
    assert torch.equal(z.float(), ops.log_partition(*case))


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("spans", SPANS)
@dtypes
def test_any_range(dtype, spans, scale, native):
    """Zero is -inf and nothing else: potentials far apart, in all of which one tree takes nearly all."""
    case = pcfg(batch=(6,), n=6, symbols=(3, 4), spans=spans, scale=scale, holes=0.05, dtype=dtype)
    wide = case.to(torch.float64)
    z, expected = ops.log_partition(*case), reference.pcfg.log_partition(*wide)
    assert_nats(z, expected, dtype)
    for found, exact in zip(ops.marginals(*case), reference.pcfg.marginals(*wide), strict=True):
        assert_probabilities(found, exact, dtype)
    assert_nats(ops.score(ops.argmax(*case), *wide), ops.score(reference.pcfg.argmax(*wide), *wide), dtype)
    drawn = ops.sample(*case, num_samples=2, seed=0)
    assert ops.score(drawn, *wide)[:, expected.isfinite()].isfinite().all()


def test_ties_go_to_the_first_alternative(backend):
    """By symbol at the top, then by split, left symbol, right symbol."""
    zeros = torch.zeros(2), torch.zeros(2, 5, 5), torch.zeros(1, 4, 3)
    assert torch.equal(ops.argmax(*zeros), right_branching(zeros[2], 2)[0])
    assert torch.equal(ops.topk(*zeros, k=3)[0], right_branching(zeros[2], 2)[0])


@pytest.mark.parametrize("spans", SPANS)
def test_kernel_and_reference_agree_among_equals(spans, native):
    """Whole numbers, so that many trees have the same score: k best in the same order."""
    case = pcfg(batch=(8,), n=5, symbols=(2, 3), spans=spans, holes=0.1).map(torch.round)
    assert torch.equal(ops.argmax(*case), reference.pcfg.argmax(*case))
    assert torch.equal(ops.topk(*case, k=6), reference.pcfg.topk(*case, k=6))


def test_no_tree_possible(backend):
    case = pcfg(batch=(2,), spans="label", ragged=False)
    case.unary[0, 2] = -torch.inf
    assert torch.equal(ops.log_partition(*case).isinf(), torch.tensor([True, False]))
    assert not any(x[0].any() for x in ops.marginals(*case))
    assert ops.argmax(*case)[0].eq(-1).all()
    assert ops.topk(*case, k=2)[:, 0].eq(-1).all()
    assert ops.sample(*case, num_samples=3, seed=1)[:, 0].eq(-1).all()
    assert all(x[0].eq(-torch.inf).all() for x in ops.max_marginals(*case))
    leafy, leaves = case.leaves()
    for gradient in torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves):
        assert not gradient.isnan().any()
    for gradient in torch.autograd.grad(ops.log_partition(*leafy)[0], leaves):
        assert not gradient.any()


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_words_have_no_tree(n, backend):
    case, leaves = pcfg(n=n, spans="label", ragged=False).leaves()
    z = ops.log_partition(*case)
    assert z.eq(-torch.inf).all()
    assert not any(x.any() for x in torch.autograd.grad(z.sum(), leaves))
    assert not any(x.any() for x in ops.marginals(*case))
    assert ops.argmax(*case).shape == (3, n, 3)
    assert ops.argmax(*case).eq(-1).all()
    assert ops.sample(*case, num_samples=2, seed=0).eq(-1).all()
    assert ops.score(ops.topk(*case, k=2), *case).eq(-torch.inf).all()


def test_lengths_are_clamped(backend):
    case = pcfg(batch=(3,), n=4)
    wild = case._replace(lengths=torch.tensor([-5, 99, 2]))
    tame = case._replace(lengths=torch.tensor([0, 4, 2]))
    assert torch.equal(ops.log_partition(*wild), ops.log_partition(*tame))
    assert torch.equal(ops.argmax(*wild), ops.argmax(*tame))
    for a, b in zip(ops.marginals(*wild), ops.marginals(*tame), strict=True):
        assert torch.equal(a, b)


# ---- the best tree of scored spans -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_decode(n, backend):
    spans = torch.randn(4, n, n, dtype=torch.float64)
    found = ops.decode(spans)
    assert found.shape == (4, max(2 * n - 1, 0), 3)
    for b in range(4):
        if n:
            trees = brute.brackets(0, n - 1)
            best = max(trees, key=lambda rows, b=b: sum(float(spans[b, i, j]) for i, j, _ in rows if i < j))
            assert found[b].tolist() == [[i, j, 0] for i, j, _ in best]


def test_decode_ignores_padding_and_the_diagonal(backend):
    spans, lengths = torch.randn(4, 6, 6), torch.tensor([6, 4, 1, 0])
    found = ops.decode(spans, lengths)
    spoiled = spans.clone()
    spoiled[:, range(6), range(6)] = torch.nan
    for b, length in enumerate(lengths.tolist()):
        spoiled[b, length:] = spoiled[b, :, length:] = torch.nan
        rows = max(2 * length - 1, 0)
        assert torch.equal(found[b, :rows], ops.decode(spans[b, :length, :length]))
        assert found[b, rows:].eq(-1).all()
    assert torch.equal(ops.decode(spoiled, lengths), found)


def test_decode_ties_go_to_the_lowest_split(backend):
    assert torch.equal(ops.decode(torch.zeros(1, 5, 5)), right_branching(torch.zeros(1, 5, 1), 0)[0])


def test_decode_without_a_possible_tree(backend):
    spans = torch.zeros(2, 3, 3)
    spans[0, 0, 1] = spans[0, 1, 2] = -torch.inf
    assert ops.decode(spans)[0].eq(-1).all()
    assert ops.decode(spans)[1].ge(0).all()
