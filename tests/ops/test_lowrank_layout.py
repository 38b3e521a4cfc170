"""Memory layout, padding, batch composition and threads change nothing."""

import pytest
import torch

from structlv.ops import lowrank as ops
from tests.cases import GRAMMARS, HEADS, SPANS, LowRank, lowrank
from tests.ops.queries import assert_same_bits, scattered
from tests.tolerance import assert_probabilities

grammar = pytest.mark.parametrize("grammar", GRAMMARS)
spans = pytest.mark.parametrize("spans", SPANS)
heads = pytest.mark.parametrize("heads", HEADS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def everything(case):
    """The result of every query, and of the gradient."""
    leafy, leaves = case.leaves()
    z = ops.log_partition(*leafy)
    return [
        ops.log_partition(*case),
        *torch.autograd.grad(z[z.isfinite()].sum(), leaves),
        *[x for x in ops.marginals(*case) if x is not None],
        ops.sample(*case, num_samples=2, seed=4),
    ]


@grammar
@spans
@heads
def test_non_contiguous(heads, spans, grammar, native):
    case = lowrank((3,), 5, (3, 2), 4, heads, grammar, spans, holes=0.1)
    strided = case.map(scattered)
    assert not strided.left.is_contiguous()
    assert_same_bits(everything(strided), everything(case))


@grammar
@spans
def test_an_expanded_parameter_is_its_copy(spans, grammar, backend):
    case = lowrank((4,), 5, grammar=grammar, spans=spans)
    view = case.full()
    copy = view.map(lambda x: x.contiguous())
    assert_same_bits(everything(view), everything(copy))
    for a, b in zip(ops.marginals(*case), ops.marginals(*copy), strict=True):
        assert_probabilities(a, b)


@pytest.mark.parametrize("own", ["root", "head", "left", "right", "unary", "spans"])
def test_each_potential_has_a_sharing_of_its_own(own, native):
    case = lowrank((4,), 5, spans="shared", ragged=False)
    mixed = case._replace(
        **{
            own: getattr(case.full(), own)
            + torch.randn(4, *[1] * (1 if own == "root" else 3 if own == "spans" else 2))
        }
    )
    leafy, leaves = mixed.leaves()
    found = torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves)
    full, copies = mixed.full().map(torch.clone).leaves()
    expected = torch.autograd.grad(ops.log_partition(*full).sum(), copies)
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs.sum_to_size(mine.shape))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@heads
def test_padding_is_never_read(heads, bad, backend):
    case = lowrank((5,), 5, heads=heads, spans="label", seed=2)
    place = torch.arange(5)
    padding = place >= case.lengths[:, None]
    outside = (place[:, None] >= place) | padding[:, None, :]
    spoiled = case._replace(
        unary=case.unary.masked_fill(padding[..., None], bad),
        spans=case.spans.masked_fill(outside[..., None], bad),
    )
    assert_same_bits(everything(spoiled), everything(case))
    assert not ops.has_nan(*spoiled)

    def second(x):
        leafy, leaves = x.leaves()
        first = torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(y.square().sum() for y in first), leaves)

    assert_same_bits(second(spoiled), second(case))


def test_has_nan(backend):
    case = lowrank((3,), 4, spans="label", ragged=False)
    assert not ops.has_nan(*case)
    for field in ("root", "head", "left", "right", "unary", "spans"):
        x = getattr(case, field).clone()
        x.view(-1, x.shape[-1])[:, 0] = torch.nan
        assert ops.has_nan(*case._replace(**{field: x}))


@grammar
@dtypes
@heads
def test_an_item_s_bits_do_not_depend_on_the_batch(heads, dtype, grammar, native):
    case = lowrank((19,), 9, (5, 18), 33, heads, grammar, "label", dtype=dtype, seed=5)
    together = [ops.log_partition(*case), *[x for x in ops.marginals(*case) if x is not None]]
    for b in range(19):
        one = case.item((b,))
        alone = [ops.log_partition(*one), *[x for x in ops.marginals(*one) if x is not None]]
        for a, t in zip(alone, together, strict=True):
            assert torch.equal(a, t[b][tuple(slice(size) for size in a.shape)])


def test_padded_is_unpadded(backend):
    case = lowrank((4,), 5, spans="label", seed=3)
    longer = case._replace(
        unary=torch.nn.functional.pad(case.unary, (0, 0, 0, 3)),
        spans=torch.nn.functional.pad(case.spans, (0, 0, 0, 3, 0, 3)),
    )
    assert torch.equal(ops.log_partition(*longer), ops.log_partition(*case))
    drawn = ops.sample(*longer, num_samples=3, seed=1)
    assert torch.equal(drawn[:, :, :9], ops.sample(*case, num_samples=3, seed=1))
    assert drawn[:, :, 9:].eq(-1).all()


@dtypes
@grammar
def test_any_thread_count_gives_the_same_bits(grammar, dtype, native):
    case = lowrank((40,), 12, (4, 9), 17, grammar=grammar, spans="label", dtype=dtype)
    torch.set_num_threads(1)
    expected = everything(case)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_bits(everything(case), expected)


def test_more_batch_dimensions(backend):
    case = lowrank((2, 3), 4, grammar="item", spans="label")
    flat = LowRank(*(x.flatten(0, 1) for x in case))
    for a, b in zip(everything(case), everything(flat), strict=True):
        batch_at = next(i for i in range(a.dim()) if a.shape[i : i + 2] == (2, 3))
        assert torch.equal(a.flatten(batch_at, batch_at + 1), b)
