"""Memory layout, padding, batch composition and threads change nothing."""

import pytest
import torch

from structlv.ops import factorial as ops
from tests.cases import factorial
from tests.ops.queries import FACTORIAL_QUERIES, assert_same_bits, factorial_score, scattered, sized
from tests.tolerance import assert_nats, assert_probabilities

log_partition, marginals = sized(ops.log_partition), sized(ops.marginals)
argmax, sample = sized(ops.argmax), sized(ops.sample)
sharing = pytest.mark.parametrize("sharing", ["shared", "item"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def everything(case):
    """The result of every query, and of the gradient."""
    leafy, leaves = case.leaves()
    z = log_partition(*leafy)
    possible = z.isfinite()
    assert possible.any()
    return [
        log_partition(*case),
        *torch.autograd.grad(z[possible].sum(), leaves),
        *marginals(*case),
        *marginals(*case, edges=True),
        argmax(*case),
        sample(*case, num_samples=2, seed=4),
        factorial_score(argmax(*case), *case),
    ]


@sharing
def test_non_contiguous(sharing, backend):
    case = factorial((3,), 5, (4, 3), sharing, holes=0.1)
    strided = case.map(scattered)
    assert not strided.unary.is_contiguous()
    assert_same_bits(everything(strided), everything(case))


def test_an_expanded_parameter_is_its_copy(backend):
    case = factorial((4,), 5, sharing="shared")
    view = case._replace(transition=case.transition.expand(4, -1))
    copy = view.map(lambda x: x.contiguous())
    assert_same_bits(everything(view), everything(copy))
    for a, b in zip(marginals(*case, edges=True), marginals(*copy, edges=True), strict=True):
        assert_probabilities(a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@sharing
def test_padding_is_never_read(sharing, bad, backend):
    case = factorial((5,), 6, sharing=sharing, seed=2)
    padding = torch.arange(6) >= case.lengths[:, None]
    assert padding.any()
    spoiled = case._replace(unary=case.unary.masked_fill(padding[..., None], bad))
    assert_same_bits(everything(spoiled), everything(case))
    assert not sized(ops.has_nan)(*spoiled)


def test_second_order_ignores_padding(native):
    case = factorial((5,), 6, seed=2)
    padding = torch.arange(6) >= case.lengths[:, None]
    spoiled = case._replace(unary=case.unary.masked_fill(padding[..., None], torch.nan))

    def second(x):
        leafy, leaves = x.leaves()
        first = torch.autograd.grad(log_partition(*leafy).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(y.square().sum() for y in first), leaves)

    assert_same_bits(second(spoiled), second(case))


def test_has_nan(backend):
    case = factorial((3,), 4, ragged=False)
    assert not sized(ops.has_nan)(*case)
    for field in ("unary", "transition", "initial"):
        x = getattr(case, field).clone()
        x.view(-1)[-1] = torch.nan
        assert sized(ops.has_nan)(*case._replace(**{field: x}))


QUERIES = (
    log_partition,
    argmax,
    lambda *x: marginals(*x, edges=True)[0],
    lambda *x: marginals(*x, edges=True)[1],
)


def items(case, index):
    """Some of the items of a batch, whose size no other dimension has."""
    count = len(case.unary)
    given = {name: getattr(case, name) for name in ("unary", "transition", "initial", "lengths")}
    chosen = {name: x[index] if x is not None and len(x) == count else x for name, x in given.items()}
    return case._replace(**chosen)


@sharing
@dtypes
@pytest.mark.parametrize("sizes", [(3, 6), (2, 2, 5), (2, 2, 4), (4, 8, 4), (17,)], ids=str)
def test_an_item_s_bits_do_not_depend_on_the_batch(sizes, sharing, dtype, native):
    """But for batches of at most half a vector, which may lie in memory in another way."""
    case = factorial((37,), 9, sizes, sharing, dtype=dtype, seed=5)
    together = [query(*case) for query in QUERIES]
    for b in range(37):
        others = items(case, (torch.arange(20) + b) % 37)
        for query, batch in zip(QUERIES, together, strict=True):
            assert torch.equal(query(*others)[0], batch[b])
        if dtype == torch.float32 and sharing == "shared":  # a vector holds four numbers or more
            pair = items(case, [b, (b + 1) % 37])
            alone = items(case, [b])
            for query in QUERIES:
                assert torch.equal(query(*alone)[0], query(*pair)[0])


@dtypes
@pytest.mark.parametrize("sizes", [(2, 2, 4), (4, 8, 4)], ids=str)
def test_small_batches_agree_with_large_ones(sizes, dtype, native):
    case = factorial((37,), 9, sizes, dtype=dtype, seed=5)
    together = [query(*case) for query in QUERIES]
    paths = argmax(*case)
    for b in range(37):
        alone = items(case, [b])
        assert_nats(log_partition(*alone)[0], together[0][b], dtype)
        for query, batch in zip(QUERIES[2:], together[2:], strict=True):
            assert_probabilities(query(*alone)[0], batch[b], dtype)
        assert torch.equal(argmax(*alone)[0], paths[b])  # sums in the same order


def test_padded_is_unpadded(backend):
    case = factorial((4,), 6, seed=3)
    longer = case._replace(unary=torch.nn.functional.pad(case.unary, (0, 0, 0, 5)))
    assert torch.equal(log_partition(*longer), log_partition(*case))
    assert torch.equal(argmax(*longer)[:, :6], argmax(*case))
    assert torch.equal(sample(*longer, num_samples=3, seed=1)[..., :6], sample(*case, num_samples=3, seed=1))


@dtypes
@sharing
def test_any_thread_count_gives_the_same_bits(sharing, dtype, native):
    case = factorial((40,), 33, (4, 3, 2), sharing, dtype=dtype)
    torch.set_num_threads(1)
    expected = everything(case)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_bits(everything(case), expected)


def test_more_batch_dimensions(backend):
    case = factorial((2, 3), 4)
    flat = case._replace(
        unary=case.unary.flatten(0, 1), initial=case.initial.flatten(0, 1), lengths=case.lengths.flatten()
    )
    for query in FACTORIAL_QUERIES.values():
        found, expected = (x if isinstance(x, tuple) else (x,) for x in (query(*case), query(*flat)))
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.reshape(b.shape), b)
    rows = torch.randn(2, 1, 13, dtype=torch.float64)
    copied = case._replace(transition=rows.expand(2, 3, 13).contiguous())
    assert_nats(log_partition(*case._replace(transition=rows)), log_partition(*copied))
