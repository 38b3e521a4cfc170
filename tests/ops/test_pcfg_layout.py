"""Memory layout, padding, batch composition and threads change nothing."""

import pytest
import torch

from structlv.ops import pcfg as ops
from tests.cases import GRAMMARS, PCFG, SPANS, pcfg
from tests.ops.queries import assert_same_bits, scattered
from tests.tolerance import assert_probabilities

grammar = pytest.mark.parametrize("grammar", GRAMMARS)
spans = pytest.mark.parametrize("spans", SPANS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def everything(case):
    """The result of every query, and of the gradient."""
    leafy, leaves = case.leaves()
    z = ops.log_partition(*leafy)
    possible = z.isfinite()
    return [
        ops.log_partition(*case),
        *torch.autograd.grad(z[possible].sum(), leaves),
        *ops.marginals(*case),
        *ops.max_marginals(*case),
        ops.argmax(*case),
        ops.topk(*case, k=3),
        ops.sample(*case, num_samples=2, seed=4),
        ops.score(ops.argmax(*case), *case),
    ]


@grammar
@spans
def test_non_contiguous(spans, grammar, backend):
    case = pcfg(batch=(3,), n=5, symbols=(3, 2), grammar=grammar, spans=spans, holes=0.1)
    strided = case.map(scattered)
    assert not strided.rules.is_contiguous()
    assert_same_bits(everything(strided), everything(case))


@grammar
@spans
def test_an_expanded_parameter_is_its_copy(spans, grammar, backend):
    case = pcfg(batch=(4,), n=5, grammar=grammar, spans=spans)
    view = case.full()
    copy = view.map(lambda x: x.contiguous())
    assert_same_bits(everything(view), everything(copy))
    for a, b in zip(ops.marginals(*case), ops.marginals(*copy), strict=True):
        assert_probabilities(a, b)


def spoil(case, bad):
    """``bad`` in every part that no tree can use."""
    n = case.unary.shape[-2]
    place = torch.arange(n)
    padding = place >= case.lengths[:, None]
    spoiled = case._replace(unary=case.unary.masked_fill(padding[..., None], bad))
    if case.spans is not None and case.spans.dim() == 4:
        outside = (place[:, None] >= place) | padding[:, None, :]
        spoiled = spoiled._replace(spans=case.spans.masked_fill(outside[..., None], bad))
    elif case.spans is not None:  # items of different lengths share it: only the diagonal and below is unused
        outside = place[:, None] >= place
        spoiled = spoiled._replace(spans=case.spans.masked_fill(outside[..., None], bad))
    return spoiled


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@spans
def test_padding_is_never_read(spans, bad, backend):
    case = pcfg(batch=(5,), n=5, spans=spans, seed=2)
    spoiled = spoil(case, bad)
    assert_same_bits(everything(spoiled), everything(case))
    assert not ops.has_nan(*spoiled)


@spans
def test_second_order_ignores_padding(spans, native):
    case = pcfg(batch=(5,), n=5, spans=spans, seed=2)

    def second(x):
        leafy, leaves = x.leaves()
        first = torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(y.square().sum() for y in first), leaves)

    assert_same_bits(second(spoil(case, torch.nan)), second(case))


def test_has_nan(backend):
    case = pcfg(batch=(3,), n=4, spans="label", ragged=False)
    assert not ops.has_nan(*case)
    for field in ("root", "rules", "unary", "spans"):
        x = getattr(case, field).clone()
        x[..., -1] = torch.nan
        assert ops.has_nan(*case._replace(**{field: x}))


@grammar
@dtypes
def test_an_item_s_bits_do_not_depend_on_the_batch(dtype, grammar, native):
    case = pcfg(batch=(7,), n=9, symbols=(5, 18), grammar=grammar, spans="label", dtype=dtype, seed=5)
    together = [ops.log_partition(*case), ops.argmax(*case), *ops.marginals(*case)]
    for b in range(7):
        one = case.item((b,))
        alone = [ops.log_partition(*one), ops.argmax(*one), *ops.marginals(*one)]
        for a, t in zip(alone, together, strict=True):
            assert torch.equal(a, t[b][tuple(slice(size) for size in a.shape)])


def test_padded_is_unpadded(backend):
    case = pcfg(batch=(4,), n=5, spans="label", seed=3)
    longer = case._replace(
        unary=torch.nn.functional.pad(case.unary, (0, 0, 0, 3)),
        spans=torch.nn.functional.pad(case.spans, (0, 0, 0, 3, 0, 3)),
    )
    assert torch.equal(ops.log_partition(*longer), ops.log_partition(*case))
    assert torch.equal(ops.argmax(*longer)[:, :9], ops.argmax(*case))
    drawn = ops.sample(*longer, num_samples=3, seed=1)
    assert torch.equal(drawn[:, :, :9], ops.sample(*case, num_samples=3, seed=1))
    assert drawn[:, :, 9:].eq(-1).all()


@dtypes
@grammar
def test_any_thread_count_gives_the_same_bits(grammar, dtype, native):
    case = pcfg(batch=(20,), n=12, symbols=(4, 9), grammar=grammar, spans="label", dtype=dtype)
    torch.set_num_threads(1)
    expected = everything(case)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_bits(everything(case), expected)


def test_more_batch_dimensions(backend):
    case = pcfg(batch=(2, 3), n=4, grammar="item", spans="label")
    flat = PCFG(*(x.flatten(0, 1) for x in case))
    for a, b in zip(everything(case), everything(flat), strict=True):
        batch_at = next(i for i in range(a.dim()) if a.shape[i : i + 2] == (2, 3))
        assert torch.equal(a.flatten(batch_at, batch_at + 1), b)
