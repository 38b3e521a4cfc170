"""The reference against enumeration, derivatives of any order, and the dtypes it must not care about."""

import pytest
import torch

from structlv.reference import enumerate as brute
from structlv.reference import pcfg as reference
from structlv.reference._trees import events
from tests.cases import SMALL_PCFGS, SPANS, name, pcfg
from tests.oracle import EnumeratedTrees
from tests.tolerance import assert_nats, assert_probabilities


@pytest.mark.parametrize(
    ("length", "symbols", "count"),
    [(0, (2, 2), 0), (1, (2, 2), 0), (2, (1, 1), 1), (3, (1, 1), 2), (4, (2, 2), 640), (5, (1, 2), 14 * 32)],
)
def test_enumeration_lists_every_tree_once(length, symbols, count):
    """Catalan(l - 1) brackets, NT^(l - 1) labels of inner nodes, T^l of leaves."""
    rows = brute.trees(length, *symbols)
    assert rows.shape == (count, max(2 * length - 1, 0), 3)
    assert len({tuple(tree.flatten().tolist()) for tree in rows}) == count


@pytest.mark.parametrize("options", SMALL_PCFGS, ids=name)
def test_against_enumeration(options):
    case = pcfg(**options)
    oracle = EnumeratedTrees(case)
    assert_nats(reference.log_partition(*case), oracle.log_partition())
    for found, expected in zip(reference.marginals(*case), oracle.marginals(), strict=True):
        assert_probabilities(found, expected)
    for found, expected in zip(reference.max_marginals(*case), oracle.max_marginals(), strict=True):
        assert_nats(found, expected)
    best = reference.topk(*case, k=5)
    assert_nats(reference.score(best, *case), oracle.topk(5))
    assert torch.equal(reference.argmax(*case), best[0])


def test_score_of_every_tree():
    case = pcfg(spans="label", ragged=False)
    trees = brute.trees(4, 2, 2)[:, None].expand(-1, 3, -1, -1)
    expected = torch.stack([scores for _, scores in brute.tree_items(*case)], -1)
    assert_nats(reference.score(trees, *case), expected)


def test_events_are_in_pre_order():
    trees = brute.trees(4, 2, 2)
    charts = torch.full((640, 16), -1)
    charts = charts.scatter(-1, trees[..., 0] * 4 + trees[..., 1], trees[..., 2])
    assert torch.equal(events(charts, 4), trees)


@pytest.mark.parametrize("spans", SPANS)
def test_marginals_are_the_gradient_to_third_order(spans):
    case, leaves = pcfg(batch=(2,), n=3, spans=spans, holes=0.1, seed=1).leaves()
    by_hand = reference.marginals(*case)[2]
    z = reference.log_partition(*case)
    assert z.isfinite().any()
    by_autograd = torch.autograd.grad(z[z.isfinite()].sum(), leaves, create_graph=True)[2]
    weight = torch.randn_like(by_hand)
    for _ in range(3):
        assert_probabilities(by_hand, by_autograd)
        by_hand = torch.autograd.grad((by_hand * weight).sum(), leaves, create_graph=True)[2]
        by_autograd = torch.autograd.grad((by_autograd * weight).sum(), leaves, create_graph=True)[2]


def test_runs_where_there_is_nothing_but_shapes():
    """Every function is plain torch: any device will do, here the one that only knows shapes."""
    case = pcfg(n=3, spans="label").map(lambda x: x.to("meta"))
    case = case._replace(lengths=case.lengths.to("meta"))
    assert reference.log_partition(*case).shape == (3,)
    assert [x.shape for x in reference.marginals(*case)] == [(3, 2), (3, 2, 4, 4), (3, 3, 2), (3, 3, 3, 2)]
    assert reference.argmax(*case).shape == (3, 5, 3)
    assert reference.topk(*case, k=2).shape == (2, 3, 5, 3)
    assert reference.sample(*case, num_samples=2, seed=0).shape == (2, 3, 5, 3)
    assert reference.decode(case.spans[..., 0], case.lengths).shape == (3, 5, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    case = pcfg(dtype=dtype, spans="one")
    scalar = torch.float32 if dtype.itemsize == 2 else dtype
    assert reference.log_partition(*case).dtype == scalar
    assert reference.log_partition(*case, as_double=True).dtype == torch.float64
    assert {x.dtype for x in (*reference.marginals(*case), *reference.max_marginals(*case))} == {dtype}
