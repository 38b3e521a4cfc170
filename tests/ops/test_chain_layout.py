"""Memory layout, padding, batch composition and threads change nothing."""

import pytest
import torch

from structlv.ops import chain as ops
from tests.cases import SHARINGS, Chain, chain
from tests.ops.queries import assert_same_bits, scattered
from tests.tolerance import assert_nats, assert_probabilities

sharing = pytest.mark.parametrize("sharing", SHARINGS)


def everything(case):
    """The result of every query, and of the gradient."""
    leafy, leaves = case.leaves()
    z = ops.log_partition(*leafy)
    possible = z.isfinite()
    return [
        ops.log_partition(*case),
        *torch.autograd.grad(z[possible].sum(), leaves),
        *ops.marginals(*case),
        *ops.marginals(*case, edges=True),
        *ops.max_marginals(*case),
        ops.argmax(*case),
        ops.topk(*case, k=3),
        ops.sample(*case, num_samples=2, seed=4),
        ops.filter(*case),
        ops.score(ops.argmax(*case), *case),
    ]


@sharing
def test_non_contiguous(sharing, backend):
    case = chain(batch=(3,), n=5, k=4, sharing=sharing, holes=0.1)
    strided = case.map(scattered)
    assert not strided.unary.is_contiguous()
    assert_same_bits(everything(strided), everything(case))


@sharing
def test_an_expanded_parameter_is_its_copy(sharing, backend):
    case = chain(batch=(4,), n=5, k=3, sharing=sharing)
    core = 3 if "step" in sharing else 2
    view = case._replace(
        transition=case.transition.expand(4, *case.transition.shape[-core:]),
        initial=case.initial.expand(4, 3),
    )
    copy = view.map(lambda x: x.contiguous())
    for a, b in zip(everything(view), everything(copy), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(ops.marginals(*case), ops.marginals(*copy), strict=True):
        assert_probabilities(a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@sharing
def test_padding_is_never_read(sharing, bad, backend):
    case = chain(batch=(5,), n=6, sharing=sharing, seed=2)
    padding = torch.arange(6) >= case.lengths[:, None]
    spoiled = case._replace(unary=case.unary.masked_fill(padding[..., None], bad))
    if sharing == "item step":  # one that items of different lengths share has no padding
        spoiled = spoiled._replace(
            transition=case.transition.masked_fill(padding[:, 1:, None, None], bad),
        )
    assert_same_bits(everything(spoiled), everything(case))
    assert not ops.has_nan(*spoiled)


def test_second_order_ignores_padding(native):
    case = chain(batch=(5,), n=6, sharing="item step", seed=2)
    padding = torch.arange(6) >= case.lengths[:, None]
    spoiled = case._replace(
        unary=case.unary.masked_fill(padding[..., None], torch.nan),
        transition=case.transition.masked_fill(padding[:, 1:, None, None], torch.nan),
    )

    def second(x):
        leafy, leaves = x.leaves()
        first = torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(y.square().sum() for y in first), leaves)

    assert_same_bits(second(spoiled), second(case))


def test_has_nan(backend):
    case = chain(batch=(3,), n=4, ragged=False)
    assert not ops.has_nan(*case)
    for field in ("unary", "transition", "initial", "final"):
        x = getattr(case, field).clone()
        x.view(-1)[-1] = torch.nan
        assert ops.has_nan(*case._replace(**{field: x}))


@sharing
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_an_item_s_bits_do_not_depend_on_the_batch(sharing, dtype, native):
    case = chain(batch=(7,), n=9, k=18, sharing=sharing, dtype=dtype, seed=5)
    together = [
        ops.log_partition(*case),
        ops.filter(*case),
        ops.argmax(*case),
        *ops.marginals(*case, edges=True),
    ]
    for b in range(7):
        one = case.item((b,))
        alone = [
            ops.log_partition(*one),
            ops.filter(*one),
            ops.argmax(*one),
            *ops.marginals(*one, edges=True),
        ]
        size = one.unary.shape[0]
        for a, t in zip(alone, together, strict=True):
            t = t[b] if a.dim() == 0 else t[b][: max(size - 1, 0) if a.dim() == 3 else size]
            assert torch.equal(a, t)


def test_padded_is_unpadded(backend):
    case = chain(batch=(4,), n=6, seed=3)
    wider = torch.nn.functional.pad(case.unary, (0, 0, 0, 5))
    longer = Chain(wider, *case[1:])
    assert torch.equal(ops.log_partition(*longer), ops.log_partition(*case))
    assert torch.equal(ops.argmax(*longer)[:, :6], ops.argmax(*case))
    assert torch.equal(
        ops.sample(*longer, num_samples=3, seed=1)[..., :6], ops.sample(*case, num_samples=3, seed=1)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@sharing
def test_any_thread_count_gives_the_same_bits(sharing, dtype, native):
    case = chain(batch=(40,), n=33, k=20, sharing=sharing, dtype=dtype)
    torch.set_num_threads(1)
    expected = everything(case)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_bits(everything(case), expected)


def test_more_batch_dimensions(backend):
    case = chain(batch=(2, 3), n=4)
    flat = Chain(
        case.unary.flatten(0, 1),
        case.transition,
        case.initial,
        case.final.flatten(0, 1),
        case.lengths.flatten(),
    )
    assert torch.equal(ops.log_partition(*case).flatten(), ops.log_partition(*flat))
    assert torch.equal(
        ops.sample(*case, num_samples=2, seed=9).flatten(1, 2), ops.sample(*flat, num_samples=2, seed=9)
    )
    broad = chain(batch=(2, 3), n=4)
    rows = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    assert_nats(
        ops.log_partition(broad.unary, rows),
        ops.log_partition(broad.unary, rows.expand(2, 3, 3, 3).contiguous()),
    )
