"""Exact samples: the joint law, and what a draw depends on."""

import pytest
import torch

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import SHARINGS, Chain, chain
from tests.ops.queries import chi_square_p
from tests.oracle import Enumerated
from tests.tolerance import CHI_SQUARE

dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@pytest.mark.parametrize("sharing", SHARINGS)
@dtypes
def test_joint_law(sharing, dtype, backend):
    case = chain(batch=(2,), n=4, k=3, sharing=sharing, holes=0.15, ragged=False, seed=21)
    drawn = ops.sample(*case.to(dtype), num_samples=6000, seed=2024)
    weights = 3 ** torch.arange(3, -1, -1)
    for b, (_, scores) in enumerate(Enumerated(case).items):
        counts = torch.bincount((drawn[:, b] * weights).sum(-1), minlength=81)
        law = scores.softmax(0)
        assert not counts[law == 0].any()
        assert chi_square_p(counts, law) > CHI_SQUARE


def test_samples_of_one_batch_are_independent_of_each_other(backend):
    """Identical chains in one batch do not get identical draws."""
    unary = torch.zeros(2000, 3, 2)
    drawn = ops.sample(unary, torch.zeros(2, 2), num_samples=1, seed=7)[0]
    counts = torch.bincount((drawn * torch.tensor([4, 2, 1])).sum(-1), minlength=8)
    assert chi_square_p(counts, torch.full((8,), 1 / 8, dtype=torch.float64)) > CHI_SQUARE
    left, right = drawn[:1000].double().flatten(), drawn[1000:].double().flatten()
    assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.1


@dtypes
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_draw_is_a_function_of_seed_item_sample_and_position(sharing, dtype, backend):
    case = chain(batch=(5,), n=9, k=6, sharing=sharing, dtype=dtype, seed=8)
    drawn = ops.sample(*case, num_samples=8, seed=99)
    assert torch.equal(drawn, ops.sample(*case, num_samples=8, seed=99))
    assert torch.equal(drawn[:3], ops.sample(*case, num_samples=3, seed=99))
    assert not torch.equal(drawn, ops.sample(*case, num_samples=8, seed=100))
    first = Chain(*[None if x is None else (x[:2] if x.dim() and len(x) == 5 else x) for x in case])
    assert torch.equal(drawn[:, :2], ops.sample(*first, num_samples=8, seed=99))


@dtypes
@pytest.mark.parametrize("k", [1, 2, 17, 64, 65])
def test_kernel_and_reference_draw_the_same(k, dtype, native):
    """The same uniforms and the same rule: only a tie within rounding may fall differently."""
    case = chain(batch=(6,), n=15, k=k, holes=0.1, dtype=dtype, seed=k)
    drawn = ops.sample(*case, num_samples=20, seed=2**62 + 5)
    expected = reference.chain.sample(*case, num_samples=20, seed=2**62 + 5)
    same = (drawn == expected).all(-1).double().mean()
    assert same > (0.999 if dtype == torch.float64 else 0.97)


def test_padding_is_minus_one(backend):
    case = chain(batch=(6,), n=5, seed=4)
    drawn = ops.sample(*case, num_samples=3, seed=1)
    padding = torch.arange(5) >= case.lengths[:, None]
    assert drawn[:, padding].eq(-1).all()
    assert drawn[:, ~padding].ge(0).all()


def test_k_best_sorted_distinct_and_a_prefix_of_more(backend):
    case = chain(batch=(2,), n=6, k=5, ragged=False)
    states = ops.topk(*case, k=40)
    scores = ops.score(states, *case)
    assert scores.diff(dim=0).le(0).all()
    assert all(len({tuple(row) for row in states[:, b].tolist()}) == 40 for b in range(2))
    assert torch.equal(states[:7], ops.topk(*case, k=7))


def test_k_best_of_ties_are_distinct(backend):
    states = ops.topk(torch.zeros(1, 3, 3), torch.zeros(3, 3), k=30)[:, 0].tolist()
    assert len({tuple(row) for row in states[:27]}) == 27
    assert all(row == [-1, -1, -1] for row in states[27:])
