"""Exact samples: the joint law, and what a draw depends on; k best."""

import pytest
import torch

from structlv import reference
from structlv.ops import pcfg as ops
from tests.cases import GRAMMARS, PCFG, SPANS, pcfg
from tests.ops.queries import chi_square_p
from tests.oracle import EnumeratedTrees
from tests.tolerance import CHI_SQUARE

dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
SAMPLES = 24000


def tallied(drawn, trees):
    """How often each of ``trees (count, m, 3)`` is among ``drawn (s, m, 3)``."""
    weights = torch.randint(1, 2**40, trees.shape[1:])
    keys, order = (trees * weights).sum((-2, -1)).sort()
    assert keys.diff().gt(0).all()
    found = (drawn * weights).sum((-2, -1))
    place = torch.searchsorted(keys, found).clamp(max=len(keys) - 1)
    assert torch.equal(drawn, trees[order[place]]), "what is drawn is a tree"
    return torch.bincount(order[place], minlength=len(trees))


@pytest.mark.parametrize("spans", SPANS)
@dtypes
def test_joint_law(spans, dtype, backend):
    """640 trees: brackets and all labels together."""
    case = pcfg(batch=(2,), n=4, spans=spans, holes=0.1, ragged=False, seed=21)
    drawn = ops.sample(*case.to(dtype), num_samples=SAMPLES, seed=2024)
    for b, (trees, scores) in enumerate(EnumeratedTrees(case).items):
        counts, law = tallied(drawn[:, b], trees), scores.softmax(0)
        assert (law > 5 / SAMPLES).sum() > 30
        assert not counts[law == 0].any()
        assert chi_square_p(counts, law) > CHI_SQUARE


def test_samples_of_one_batch_are_independent_of_each_other(backend):
    """Identical sentences in one batch do not get identical trees."""
    root, rules, unary = torch.zeros(1), torch.zeros(1, 2, 2), torch.zeros(4000, 5, 1)
    drawn = ops.sample(root, rules, unary, num_samples=1, seed=7)[0]
    trees = EnumeratedTrees(PCFG(root, rules, unary[0], None, None)).items[0][0]
    counts = tallied(drawn, trees)
    assert chi_square_p(counts, torch.full((14,), 1 / 14, dtype=torch.float64)) > CHI_SQUARE
    first = drawn[:, 1, 1].double()  # where the left child of the whole ends
    assert abs(float(torch.corrcoef(torch.stack([first[:2000], first[2000:]]))[0, 1])) < 0.08


@dtypes
@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_draw_is_a_function_of_seed_item_sample_and_span(grammar, dtype, backend):
    case = pcfg(batch=(5,), n=6, symbols=(3, 4), grammar=grammar, spans="label", dtype=dtype, seed=8)
    drawn = ops.sample(*case, num_samples=8, seed=99)
    assert torch.equal(drawn, ops.sample(*case, num_samples=8, seed=99))
    assert torch.equal(drawn[:3], ops.sample(*case, num_samples=3, seed=99))
    assert not torch.equal(drawn, ops.sample(*case, num_samples=8, seed=100))
    first = PCFG(*(x[:2] for x in case.full()))
    assert torch.equal(drawn[:, :2], ops.sample(*first, num_samples=8, seed=99))


@dtypes
@pytest.mark.parametrize("symbols", [(1, 1), (3, 5), (5, 17), (17, 2)], ids=str)
def test_kernel_and_reference_draw_the_same(symbols, dtype, native):
    """The same uniforms and the same rule: only a tie within rounding may fall differently."""
    case = pcfg(batch=(6,), n=9, symbols=symbols, spans="label", dtype=dtype, seed=sum(symbols))
    case.unary[1, :, 0] = -torch.inf
    drawn = ops.sample(*case, num_samples=20, seed=2**62 + 5)
    expected = reference.pcfg.sample(*case, num_samples=20, seed=2**62 + 5)
    assert drawn[:, 0].ge(0).any()
    same = (drawn == expected).all(-1).all(-1).double().mean()
    assert same > (0.999 if dtype == torch.float64 else 0.97)


def test_padding_is_minus_one(backend):
    case = pcfg(batch=(6,), n=5, seed=4)
    drawn = ops.sample(*case, num_samples=3, seed=1)
    size = torch.where(case.lengths > 1, 2 * case.lengths - 1, 0)
    padding = torch.arange(9) >= size[:, None]
    assert drawn[:, padding].eq(-1).all()
    assert drawn[:, ~padding].ge(0).all()


def test_k_best_sorted_distinct_and_a_prefix_of_more(backend):
    case = pcfg(batch=(2,), n=4, symbols=(2, 3), ragged=False)
    trees = ops.topk(*case, k=25)
    scores = ops.score(trees, *case)
    assert scores.diff(dim=0).le(1e-12).all()
    assert all(len({tuple(t.flatten().tolist()) for t in trees[:, b]}) == 25 for b in range(2))
    assert torch.equal(trees[:7], ops.topk(*case, k=7))


def test_k_best_of_ties_are_distinct(backend):
    trees = ops.topk(torch.zeros(2), torch.zeros(2, 3, 3), torch.zeros(1, 3, 1), k=12)[:, 0]
    assert len({tuple(t.flatten().tolist()) for t in trees[:8]}) == 8  # 2 brackets, 2 by 2 labels
    assert trees[8:].eq(-1).all()


def test_more_trees_than_there_are_take_no_memory(native):
    trees = ops.topk(torch.zeros(2), torch.zeros(2, 4, 4), torch.zeros(2, 4, 2), k=10**5)
    assert trees[:640].ge(0).all()
    assert trees[640:].eq(-1).all()
    assert len({tuple(t.flatten().tolist()) for t in trees[:640, 0]}) == 640
