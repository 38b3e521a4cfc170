"""Every query against enumeration and the dense PCFG, on both backends; wide ranges on the kernels."""

import pytest
import torch

from structlv import reference
from structlv.ops import pcfg as dense
from structlv.ops import sparse_pcfg as ops
from tests.cases import SMALL_SPARSE, SPANS, name, pcfg, sparse_pcfg
from tests.oracle import EnumeratedDerivations
from tests.tolerance import assert_nats, assert_probabilities

small = pytest.mark.parametrize("options", SMALL_SPARSE, ids=name)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@small
def test_log_partition_and_marginals(options, backend):
    case = sparse_pcfg(**options)
    oracle = EnumeratedDerivations(case)
    assert_nats(ops.log_partition(*case), oracle.log_partition())
    for labelled in (False, True):
        labels = case.root.shape[-1] if labelled else 1
        found = ops.marginals(*case, labelled=labelled)
        for mine, expected in zip(found, oracle.marginals(labels), strict=True):
            assert_probabilities(mine, expected)
        found = ops.max_marginals(*case, labelled=labelled)
        for mine, expected in zip(found, oracle.max_marginals(labels), strict=True):
            assert_nats(mine, expected)


@small
def test_argmax_and_topk(options, backend):
    case = sparse_pcfg(**options)
    oracle = EnumeratedDerivations(case)
    best = ops.topk(*case, k=6)
    assert_nats(ops.score(best, *case), oracle.topk(6))
    assert torch.equal(ops.argmax(*case), best[0])
    assert torch.equal(ops.topk(*case, k=2), best[:2]), "k best is a prefix of more"
    for item in best.flatten(1, -3).unbind(1) if best.dim() > 3 else [best]:
        found = [tuple(tree.flatten().tolist()) for tree in item if tree.numel() and tree[0, 0] >= 0]
        assert len(set(found)) == len(found)


@small
def test_score_of_every_tree(options, backend):
    case = sparse_pcfg(**options)
    oracle, rows = EnumeratedDerivations(case), ops.argmax(*case).shape[-2]
    for b, (trees, scores) in enumerate(oracle.items):
        if trees:
            events = torch.stack([oracle.event(tree, rows) for tree in trees])
            batch = case.unary.shape[:-2]
            shape = (len(trees), *batch, rows, 3)
            event = events.view(len(trees), *[1] * len(batch), rows, 3).expand(shape)
            assert_nats(ops.score(event, *case).reshape(len(trees), -1)[:, b], scores)


def test_zero_scores_count_trees(backend):
    case = sparse_pcfg(ragged=False).map(torch.zeros_like)
    counts = [len(trees) for trees, _ in EnumeratedDerivations(case).items]
    assert ops.log_partition(*case).exp().round().tolist() == counts


@pytest.mark.parametrize("spans", SPANS)
def test_all_rules_listed_is_the_dense_grammar(spans, backend):
    full = pcfg(spans=spans, holes=0.1, seed=2)
    nonterminals, symbols = full.rules.shape[-3:-1]
    index = torch.cartesian_prod(*[torch.arange(size) for size in (nonterminals, symbols, symbols)])
    case = (full.root, index, full.rules.flatten(-3), full.unary, full.spans, full.lengths)
    assert_nats(ops.log_partition(*case), dense.log_partition(*full))
    labelled = full.root.shape[-1] > 1
    found, expected = ops.marginals(*case, labelled=labelled), dense.marginals(*full)
    assert_probabilities(found[1].unflatten(-1, full.rules.shape[-3:]), expected[1])
    for mine, theirs in zip(found[::2], expected[::2], strict=True):
        assert_probabilities(mine, theirs)
    assert_probabilities(found[3], expected[3])
    assert torch.equal(ops.argmax(*case), dense.argmax(*full))
    assert torch.equal(ops.topk(*case, k=5), dense.topk(*full, k=5))


@small
@dtypes
def test_samples_are_those_of_the_reference(options, dtype, native):
    case = sparse_pcfg(**options, dtype=dtype)
    draws = {"num_samples": 10, "seed": 2**40 + 1}
    wide = reference.sparse_pcfg.sample(*case, **draws)
    assert torch.equal(ops.sample(*case, **draws), wide)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e30])
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("seed", range(4))
def test_any_range_agrees_with_log_space(scale, spans, seed, native):
    case = sparse_pcfg(n=6, symbols=(6, 4), rules=(40, 12), spans=spans, scale=scale, seed=seed, holes=0.05)
    assert_nats(ops.log_partition(*case), reference.sparse_pcfg.log_partition(*case))
    labels = case.root.shape[-1] if spans in ("label", "shared") else 1
    expected = reference.sparse_pcfg.marginals(*case, labels=labels)
    for mine, theirs in zip(ops.marginals(*case), expected, strict=True):
        assert_probabilities(mine, theirs)


@pytest.mark.parametrize("potential", ["root", "scores", "unary", "spans"])
@pytest.mark.parametrize("shift", [1e5, -1e5])
def test_shifts_cancel(potential, shift, native):
    case = sparse_pcfg(n=5, rules=(20, 0), symbols=(4, 3), spans="label", ragged=False)
    moved = case._replace(**{potential: getattr(case, potential) + shift})
    times = {"root": 1, "scores": 4, "unary": 5, "spans": 4}[potential]  # in a binary tree over five words
    assert_nats(ops.log_partition(*moved), ops.log_partition(*case) + times * shift)
    for mine, theirs in zip(ops.marginals(*moved), ops.marginals(*case), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)


def test_a_hopeless_symbol_that_must_win(native):
    """What lies e^-2000 below the rest of its span, and is the only one that fits in the end."""
    index = torch.tensor([[0, 1, 4], [1, 3, 3], [2, 3, 3], [0, 2, 3]])
    unary = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    unary[:2, 0] = unary[2, 1] = 0.0  # symbols 3 3 4
    scores = torch.tensor([0.0, -2000.0, 0.0, 5.0], dtype=torch.float64)
    root = torch.tensor([0.0, -torch.inf, -torch.inf], dtype=torch.float64)
    assert ops.log_partition(root, index, scores, unary) == -2000.0
    assert ops.marginals(root, index, scores, unary)[1].tolist() == [1.0, 1.0, 0.0, 0.0]


@small
def test_float32(options, native):
    case = sparse_pcfg(**options, dtype=torch.float32)
    wide = case.to(torch.float64)
    assert_nats(ops.log_partition(*case), reference.sparse_pcfg.log_partition(*wide), torch.float32)
    for mine, theirs in zip(ops.marginals(*case), ops.marginals(*wide), strict=True):
        assert_probabilities(mine, theirs, torch.float32)
    assert torch.equal(ops.argmax(*case), ops.argmax(*wide))


def test_parts_that_are_not_wanted_are_none(backend):
    case = sparse_pcfg(spans="label")
    found = ops.marginals(*case, with_rules=False, with_spans=False)
    assert [x is None for x in found] == [False, True, False, True]


LEGAL = [[0, 2, 0], [0, 2, 1], [0, 1, 2], [0, 0, 3], [1, 1, 3], [2, 2, 2], [2, 2, 4], [-1, -1, -1]]
ILLEGAL = {
    "nothing": {0: [-1, -1, -1]},
    "preterminal at the top": {0: [0, 2, 3]},
    "no such binary rule": {2: [0, 1, 1]},
    "no such unary rule": {0: [0, 2, 2]},
    "symbol too large": {4: [1, 1, 5]},
    "negative symbol": {1: [0, 2, -1]},
    "whole span too short": {0: [0, 1, 0]},
    "children overlap": {5: [1, 2, 2]},
    "backwards": {2: [1, 0, 2]},
    "a preterminal over two words": {2: [0, 1, 3]},
    "unfinished": {6: [-1, -1, -1]},
    "far away": {2: [2**62, -(2**62), 2**40]},
}


@pytest.mark.parametrize("rows", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_score_of_what_is_no_tree_is_minus_infinity(rows, backend):
    index = torch.tensor([[0, 1, -1], [1, 2, 2], [2, 3, 3], [2, 4, -1], [1, 2, 3]])
    potentials = (torch.zeros(3), index, torch.zeros(5), torch.zeros(2, 3, 2))
    event = torch.tensor([LEGAL, LEGAL])
    for row, values in rows.items():
        event[1, row] = torch.tensor(values)
    assert ops.score(event, *potentials).tolist() == [0.0, -torch.inf]


def test_ties_go_to_binary_rules_then_to_the_lowest(backend):
    index = torch.tensor([[0, 2, -1], [0, 1, -1], [1, 3, 3], [2, 3, 3], [0, 3, 3]])
    zeros = torch.zeros(3), index, torch.zeros(5), torch.zeros(2, 1)
    leaves = [[0, 0, 3], [1, 1, 3]]
    found = ops.topk(*zeros, k=6)
    expected = [
        [[0, 1, 0], *leaves],
        [[0, 1, 0], [0, 1, 1], *leaves],
        [[0, 1, 0], [0, 1, 2], *leaves],
        [[0, 1, 1], *leaves],
        [[0, 1, 2], *leaves],
    ]
    for tree, rows in zip(found, expected, strict=False):
        assert tree[: len(rows)].tolist() == rows
        assert tree[len(rows) :].eq(-1).all()
    assert found[5].eq(-1).all()


def test_no_tree_possible(backend):
    case = sparse_pcfg(batch=(2,), spans="label", ragged=False)
    case.unary[0, 2] = -torch.inf
    assert ops.log_partition(*case)[0] == -torch.inf
    assert not any(x[0].any() for x in ops.marginals(*case))
    assert ops.argmax(*case)[0].eq(-1).all()
    assert ops.topk(*case, k=2)[:, 0].eq(-1).all()
    assert ops.sample(*case, num_samples=3, seed=1)[:, 0].eq(-1).all()
    assert all(x[0].eq(-torch.inf).all() for x in ops.max_marginals(*case))
    leafy, leaves = case.leaves()
    for gradient in torch.autograd.grad(ops.log_partition(*leafy)[0], leaves):
        assert not gradient.any()


def test_padding_is_not_read(backend):
    case = sparse_pcfg(n=4, spans="label")
    case = case._replace(lengths=torch.tensor([4, 2, 0]))
    spoiled = case.map(torch.clone)
    for b, length in enumerate(case.lengths.tolist()):
        spoiled.unary[b, length:] = torch.nan
        spoiled.spans[b, length:] = spoiled.spans[b, :, length:] = torch.nan
    for i in range(4):
        spoiled.spans[:, i, : i + 1] = torch.nan
    assert not ops.has_nan(*spoiled)
    assert torch.equal(ops.log_partition(*spoiled), ops.log_partition(*case))
    assert torch.equal(ops.argmax(*spoiled), ops.argmax(*case))
    for mine, theirs in zip(ops.marginals(*spoiled), ops.marginals(*case), strict=True):
        assert torch.equal(mine, theirs)
    spoiled.unary[0, 3, 0] = torch.nan
    assert ops.has_nan(*spoiled)
