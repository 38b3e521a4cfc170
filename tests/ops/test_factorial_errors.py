"""Bad input: a clear error that names the argument, or the defined result; never a crash."""

import pytest
import torch

from structlv.ops import factorial as ops
from tests.cases import factorial
from tests.ops.queries import FACTORIAL_QUERIES, factorial_score, sized

K = (2, 3)
U, T, L = torch.zeros(2, 4, 6), torch.zeros(13), torch.tensor([4, 2])
QUERIES = {
    **FACTORIAL_QUERIES,
    "score": lambda *x: factorial_score(torch.zeros(2, 4, dtype=torch.long), *x),
    "has_nan": sized(ops.has_nan),
}
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
BAD = {
    "unary 1-d": ((torch.zeros(6), T, None, K, None), ValueError, "unary: expected"),
    "unary int": ((U.long(), T, None, K, None), TypeError, "unary: expected a floating"),
    "unary complex": ((U.cfloat(), T, None, K, None), TypeError, "unary: expected a floating"),
    "unary list": (([[0.0]], T, None, K, None), TypeError, "unary: expected a torch.Tensor, found list"),
    "joint states": ((U[..., :5], T, None, K, None), ValueError, "unary: expected .* S = 6, .* found"),
    "transition None": ((U, None, None, K, None), TypeError, "transition: expected a torch.Tensor"),
    "transition 0-d": ((U, T[0], None, K, None), ValueError, "transition: expected"),
    "another P": ((U, T[:12], None, K, None), ValueError, r"transition: .*\(13,\), found \(12,\)"),
    "another batch": (
        (U, T.expand(5, 13), None, K, None),
        ValueError,
        r"transition: .* to \(2,\), found \(5",
    ),
    "enlarging the batch": ((U[:1], T.expand(2, 13), None, K, None), ValueError, "transition: expected"),
    "a step each": ((U, torch.zeros(2, 3, 13), None, K, None), ValueError, "transition: expected"),
    "transition dtype": (
        (U, T.double(), None, K, None),
        TypeError,
        "transition: expected the dtype of unary",
    ),
    "initial shape": ((U, T, torch.zeros(6), K, None), ValueError, r"initial: .*\(5,\), found \(6,\)"),
    "initial batch": ((U, T, torch.zeros(3, 5), K, None), ValueError, "initial: expected"),
    "initial dtype": ((U, T, torch.zeros(5).double(), K, None), TypeError, "initial: expected the dtype"),
    "initial list": ((U, T, [0.0] * 5, K, None), TypeError, "initial: expected a torch.Tensor, found list"),
    "sizes list": ((U, T, None, [2, 3], None), TypeError, "sizes: expected a tuple of ints, found list"),
    "sizes None": ((U, T, None, None, None), TypeError, "sizes: expected a tuple of ints, found NoneType"),
    "no chains": ((U[..., :1], T[:0], None, (), None), ValueError, "sizes: expected at least one chain"),
    "sizes 0": (
        (U[..., :0], T[:4], None, (2, 0), None),
        ValueError,
        r"sizes\[1\]: expected 1 or more, found 0",
    ),
    "sizes negative": ((U, T, None, (-2, -3), None), ValueError, r"sizes\[0\]: expected 1 or more"),
    "sizes float": ((U, T, None, (2.0, 3), None), TypeError, r"sizes\[0\]: expected an int, found float"),
    "other sizes": ((U, T, None, (6, 1), None), ValueError, r"transition: expected .*\(37,\)"),
    "lengths shape": (
        (U, T, None, K, L[:1]),
        ValueError,
        r"lengths: expected \(\*b\) = \(2,\), found \(1,\)",
    ),
    "lengths dtype": ((U, T, None, K, L.int()), TypeError, "lengths: expected dtype torch.int64"),
    "lengths list": ((U, T, None, K, [4, 2]), TypeError, "lengths: expected a torch.Tensor"),
    "device": ((U, T.to("meta"), None, K, None), ValueError, "transition: expected the device of unary, cpu"),
    "lengths device": ((U, T, None, K, L.to("meta")), ValueError, "lengths: expected the device"),
}
bad = pytest.mark.parametrize(("arguments", "error", "sentence"), BAD.values(), ids=BAD.keys())


@queries
@bad
def test_bad_potentials(query, arguments, error, sentence, backend):
    if query is FACTORIAL_QUERIES["log_partition"]:  # also where a gradient is recorded
        arguments = [
            x.clone().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x
            for x in arguments
        ]
    with pytest.raises(error, match=sentence):
        query(*arguments)


@bad
def test_the_operator_itself_refuses(arguments, error, sentence, native):
    """The second line, for callers of ``torch.ops``: an error of some kind, never a crash."""
    if "device" in sentence or "list" in sentence or "NoneType" in sentence:
        return
    *scores, sizes, lengths = arguments
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        torch.ops.structlv.factorial_log_partition(*scores, torch.tensor(sizes), lengths, False)


@pytest.mark.parametrize(
    "sizes",
    [torch.tensor(K).int(), torch.tensor(6), torch.tensor([K]), torch.tensor([*K, 0]), torch.full((65,), 2)],
    ids=["int32", "0-d", "2-d", "0", "2 ** 65"],
)
def test_the_operator_refuses_other_sizes(sizes, native):
    with pytest.raises(RuntimeError, match="sizes: expected"):
        torch.ops.structlv.factorial_log_partition(U, T, None, sizes, None, False)


def test_the_operators_refuse_gradients_and_charts_of_another_problem(native):
    raw, sizes = torch.ops.structlv, torch.tensor(K)
    potentials = (U, T, None, sizes, None)
    chart = raw.factorial_inside(*potentials, False)[1]
    for shape in ((), (1,), (3,), (2, 1)):
        with pytest.raises(RuntimeError, match=r"grad: expected shape \(2\), found"):
            raw.factorial_vjp(torch.ones(shape), chart, *potentials)
        with pytest.raises(RuntimeError, match=r"grad: expected shape \(2\), found"):
            raw.factorial_hvp(torch.ones(shape), U, T, None, *potentials)
    for other in (chart[:-1], chart.double(), chart.repeat_interleave(2)[::2]):
        with pytest.raises(RuntimeError, match="chart: expected what factorial_inside returned"):
            raw.factorial_vjp(torch.ones(2), other, *potentials)
    for value in (0.0, 1e30, -1.0, torch.nan, torch.inf):
        assert (
            raw.factorial_vjp(torch.ones(2), torch.full_like(chart, value), *potentials)[0].shape == U.shape
        )
    states = torch.zeros(5, 2, 4, dtype=torch.long)
    for shape in ((), (5,), (2, 5)):
        with pytest.raises(RuntimeError, match=r"grad: expected shape \(5, 2\), found"):
            raw.factorial_score_vjp(torch.ones(shape, dtype=torch.float64), states, *potentials)


@pytest.mark.parametrize(
    ("states", "error", "sentence"),
    [
        (torch.zeros(2, 4), TypeError, "states: expected dtype torch.int64"),
        (torch.zeros(2, 3, dtype=torch.long), ValueError, r"states: expected \(\*s, \*b, n\)"),
        (torch.zeros(4, dtype=torch.long), ValueError, "states: expected"),
        ([[0] * 4] * 2, TypeError, "states: expected a torch.Tensor"),
    ],
)
def test_bad_states(states, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        ops.score(states, U, T, sizes=K)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"num_samples": -1, "seed": 0}, ValueError, "num_samples: expected 0 or more"),
        ({"num_samples": 1.0, "seed": 0}, TypeError, "num_samples: expected an int"),
        ({"num_samples": 1, "seed": -1}, ValueError, "seed: expected"),
        ({"num_samples": 1, "seed": 2**63}, ValueError, "seed: expected"),
    ],
)
def test_bad_sample_options(options, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        ops.sample(U, T, sizes=K, **options)


@pytest.mark.parametrize("shape", [(0, 3, 6), (0, 0, 6), (2, 0, 6), (3, 0, 2, 6)])
@pytest.mark.parametrize("query", FACTORIAL_QUERIES.values(), ids=FACTORIAL_QUERIES.keys())
def test_empty_batches_and_lengths(query, shape, backend):
    batch = shape[:-2]
    lengths = torch.zeros(batch, dtype=torch.long)
    found = query(torch.zeros(shape), torch.zeros(*batch, 13), torch.zeros(*batch, 5), K, lengths)
    alike = query(torch.zeros(shape), T, None, K, None)
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, alike)), strict=True):
        assert torch.equal(a, b)


def test_none_of_something_is_empty(backend):
    case = factorial((2,), 3)
    assert sized(ops.sample)(*case, num_samples=0, seed=1).shape == (0, 2, 3)
    states = torch.zeros(0, 2, 3, dtype=torch.long)
    assert factorial_score(states, *case).shape == (0, 2)


def test_empty_batch_has_gradients(backend):
    case, leaves = factorial((0,), 3).leaves()
    z = sized(ops.log_partition)(*case).sum()
    for gradient, x in zip(torch.autograd.grad(z, leaves), leaves, strict=True):
        assert gradient.shape == x.shape
        assert not gradient.any()
