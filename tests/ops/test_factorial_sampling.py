"""Exact samples: the joint law, and what a draw depends on."""

import pytest
import torch

from structlv import reference
from structlv.ops import factorial as ops
from tests.cases import factorial
from tests.ops.queries import chi_square_p, sized
from tests.oracle import EnumeratedFactorial
from tests.tolerance import CHI_SQUARE

sample = sized(ops.sample)
sharing = pytest.mark.parametrize("sharing", ["shared", "item"])
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@sharing
@dtypes
@pytest.mark.parametrize(("sizes", "n"), [((2, 3), 3), ((2, 1, 2), 4)], ids=str)
def test_joint_law(sizes, n, sharing, dtype, backend):
    case = factorial((2,), n, sizes, sharing, holes=0.1, ragged=False, seed=20)
    joint = case.unary.shape[-1]
    drawn = sample(*case.to(dtype), num_samples=6000, seed=2024)
    assert drawn.ge(0).all()
    weights = joint ** torch.arange(n - 1, -1, -1)
    for b, (_, scores) in enumerate(EnumeratedFactorial(case).items):
        counts = torch.bincount((drawn[:, b] * weights).sum(-1), minlength=joint**n)
        law = scores.softmax(0)
        assert not counts[law == 0].any()
        assert chi_square_p(counts, law) > CHI_SQUARE


@dtypes
@sharing
def test_a_draw_is_a_function_of_seed_item_sample_and_position(sharing, dtype, backend):
    case = factorial((5,), 9, (3, 2, 2), sharing, dtype=dtype, seed=8)
    drawn = sample(*case, num_samples=8, seed=99)
    assert torch.equal(drawn, sample(*case, num_samples=8, seed=99))
    assert torch.equal(drawn[:3], sample(*case, num_samples=3, seed=99))
    assert not torch.equal(drawn, sample(*case, num_samples=8, seed=100))
    first = case.map(lambda x: x[:2] if x.dim() > 1 else x)._replace(lengths=case.lengths[:2])
    assert torch.equal(drawn[:, :2], sample(*first, num_samples=8, seed=99))


@dtypes
@pytest.mark.parametrize("sizes", [(1,), (2,), (17,), (5, 7), (2,) * 6, (65, 2), (8, 8), (4, 8, 16)], ids=str)
@pytest.mark.parametrize("sharing", ["shared", "item"])
@pytest.mark.parametrize("batch", [1, 3, 6, 20])
def test_kernel_and_reference_draw_the_same(batch, sharing, sizes, dtype, native):
    """The same uniforms and the same rule: only a tie within rounding may fall differently."""
    case = factorial((batch,), 15, sizes, sharing, holes=0.1, dtype=dtype, seed=3)
    drawn = sample(*case, num_samples=20, seed=2**62 + 5)
    expected = sized(reference.factorial.sample)(*case, num_samples=20, seed=2**62 + 5)
    same = (drawn == expected).all(-1).double().mean()
    assert same > (0.999 if dtype == torch.float64 else 0.97)


def test_padding_is_minus_one(backend):
    case = factorial((6,), 5, seed=4)
    drawn = sample(*case, num_samples=3, seed=1)
    padding = torch.arange(5) >= case.lengths[:, None]
    assert padding.any()
    assert drawn[:, padding].eq(-1).all()
    assert drawn[:, ~padding].ge(0).all()
