"""Gumbel noise: what a number is, what it depends on, and that it is Gumbel."""

import pytest
import torch
from scipy.stats import kstest

from structlv.ops.noise import gumbel
from structlv.reference import philox
from tests.tolerance import CHI_SQUARE, assert_nats

dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
SHAPES = {"rows": ((3, 2, 7, 5), False), "spans": ((4, 6, 6, 3), True), "no steps": ((2, 0, 3), False)}


def draws(shape, spans=False, *, dtype=torch.float64, num_samples=2, seed=11):
    like = torch.empty((), dtype=dtype).expand(shape)
    return gumbel(like, event_dims=3 if spans else 2, num_samples=num_samples, seed=seed, spans=spans)


@dtypes
@pytest.mark.parametrize(("shape", "spans"), SHAPES.values(), ids=SHAPES)
def test_kernel_is_the_reference(shape, spans, dtype):
    found = draws(shape, spans, dtype=dtype)
    like = torch.empty(shape, dtype=torch.float64)
    assert_nats(found, philox.gumbel(like, 3 if spans else 2, 2, 11, spans=spans))
    assert found.dtype == dtype


@dtypes
def test_law(dtype, backend):
    found = draws((20, 50, 40), dtype=dtype, num_samples=1).flatten()
    assert bool(found.isfinite().all())
    assert kstest(found.numpy(), "gumbel_r").pvalue > CHI_SQUARE


def test_extreme_words_are_finite():
    """The words 0 and 2^32 - 1 are a draw like any other, in both dtypes."""
    u = torch.tensor([0.5, 2.0**32 - 0.5], dtype=torch.float64) * 2.0**-32
    low, high = (-(-u.log()).log()).tolist()
    for dtype in (torch.float64, torch.float32):
        found = draws((256, 100, 100), dtype=dtype, num_samples=2)
        assert low <= found.min() < -2.6
        assert 15.0 < found.max() <= high


@pytest.mark.parametrize("spans", [False, True])
def test_a_number_depends_on_seed_item_sample_and_position_alone(spans, backend):
    tail, longer = ((5, 5, 2), (7, 7, 2)) if spans else ((5, 3), (7, 3))
    many = draws((4, *longer), spans, num_samples=3)
    few = draws((2, *tail), spans, num_samples=2)
    part = many[:2, :2, :5, :5] if spans else many[:2, :2, :5]
    assert torch.equal(few, part)
    rows = many.flatten(2).unbind(0)
    items = [item for row in rows for item in row.unbind(0)]
    assert len({tuple(item.tolist()) for item in items}) == 12
    assert not torch.equal(many, draws((4, *longer), spans, num_samples=3, seed=12))


def test_spans_that_do_not_exist_have_none(backend):
    below = torch.ones(6, 6, dtype=torch.bool).tril(-1)
    found = draws((2, 6, 6, 3), True)
    assert not found[..., below, :].any()
    assert bool((found[..., ~below, :] != 0).all())


def test_threads_change_nothing():
    one = draws((40, 30, 30))
    torch.set_num_threads(2)
    try:
        assert torch.equal(one, draws((40, 30, 30)))
    finally:
        torch.set_num_threads(1)


def test_operator():
    arguments = (torch.randn(2, 3, 4, requires_grad=True), 2, 3, 5, False)
    torch.library.opcheck(torch.ops.structlv.gumbel.default, arguments)
    like = torch.randn(5, 2, 3)
    mapped = torch.vmap(lambda x: gumbel(x, event_dims=1, num_samples=2, seed=1))(like)
    assert torch.equal(mapped.movedim(0, 1), gumbel(like, event_dims=1, num_samples=2, seed=1))
    assert gumbel(like.half(), event_dims=2, num_samples=1, seed=0).dtype == torch.float16


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_samples"):
        gumbel(torch.zeros(2, 3), event_dims=1, num_samples=-1, seed=0)
    with pytest.raises(ValueError, match="seed"):
        gumbel(torch.zeros(2, 3), event_dims=1, num_samples=1, seed=-1)
    with pytest.raises(RuntimeError, match="event_dims"):
        torch.ops.structlv.gumbel(torch.zeros(2, 3), 3, 1, 0, False)
    with pytest.raises(RuntimeError, match="n, n, labels"):
        torch.ops.structlv.gumbel(torch.zeros(2, 3, 4), 3, 1, 0, True)
