"""Bad input: a clear error that names the argument, or the defined result; never a crash."""

import pytest
import torch

from structlv.ops import chain as ops
from tests.cases import chain

U, T, L = torch.zeros(2, 4, 3), torch.zeros(3, 3), torch.tensor([4, 2])
QUERIES = {
    "log_partition": ops.log_partition,
    "marginals": ops.marginals,
    "state_marginals": ops.state_marginals,
    "argmax": ops.argmax,
    "max_marginals": ops.max_marginals,
    "topk": lambda *x: ops.topk(*x, k=2),
    "sample": lambda *x: ops.sample(*x, num_samples=2, seed=3),
    "filter": ops.filter,
    "score": lambda *x: ops.score(torch.zeros(2, 4, dtype=torch.long), *x),
    "has_nan": ops.has_nan,
}
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


def ends(initial=None, final=None, lengths=None):
    return U, T, initial, final, lengths


BAD = {
    "unary 1-d": ((torch.zeros(3), T), ValueError, "unary: expected"),
    "no states": (
        (torch.zeros(2, 4, 0), torch.zeros(0, 0)),
        ValueError,
        "unary: expected at least one state",
    ),
    "unary int": ((torch.zeros(2, 4, 3, dtype=torch.long), T), TypeError, "unary: expected a floating"),
    "unary complex": ((U.cfloat(), T), TypeError, "unary: expected a floating"),
    "unary list": (([[0.0]], T), TypeError, "unary: expected a torch.Tensor, found list"),
    "transition None": ((U, None), TypeError, "transition: expected a torch.Tensor, found NoneType"),
    "transition 1-d": ((U, torch.zeros(3)), ValueError, "transition: expected"),
    "not square": ((U, torch.zeros(3, 2)), ValueError, r"transition: expected .*\(3, 3\), found \(3, 2\)"),
    "another k": ((U, torch.zeros(4, 4)), ValueError, "transition: expected"),
    "another batch": ((U, torch.zeros(5, 3, 3)), ValueError, r"transition: .* to \(2,\), found \(5,\)"),
    "enlarging the batch": ((U[:1], torch.zeros(2, 3, 3)), ValueError, "transition: expected"),
    "steps": ((U, torch.zeros(2, 4, 3, 3)), ValueError, r"transition: expected \(\*b, n-1, k, k\)"),
    "transition 5-d": ((U, torch.zeros(1, 2, 3, 3, 3)), ValueError, "transition: expected"),
    "transition dtype": ((U, T.double()), TypeError, "transition: expected the dtype of unary"),
    "transition half": ((U.half(), T), TypeError, "transition: expected the dtype of unary"),
    "initial shape": (ends(torch.zeros(2)), ValueError, "initial: expected"),
    "initial 0-d": (ends(torch.zeros(())), ValueError, "initial: expected"),
    "initial batch": (ends(torch.zeros(3, 3)), ValueError, "initial: expected"),
    "initial dtype": (ends(torch.zeros(3).double()), TypeError, "initial: expected the dtype"),
    "final dims": (ends(None, torch.zeros(1, 2, 3)), ValueError, "final: expected"),
    "final list": (ends(None, [0.0] * 3), TypeError, "final: expected a torch.Tensor, found list"),
    "lengths shape": (ends(lengths=L[:1]), ValueError, r"lengths: expected \(\*b\) = \(2,\), found \(1,\)"),
    "lengths dtype": (ends(lengths=L.int()), TypeError, "lengths: expected dtype torch.int64"),
    "lengths float": (ends(lengths=L.float()), TypeError, "lengths: expected dtype torch.int64"),
    "lengths list": (ends(lengths=[4, 2]), TypeError, "lengths: expected a torch.Tensor"),
    "device": ((U, T.to("meta")), ValueError, "transition: expected the device of unary, cpu, found meta"),
    "lengths device": (ends(lengths=L.to("meta")), ValueError, "lengths: expected the device"),
}


@queries
@pytest.mark.parametrize(("arguments", "error", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_potentials(query, arguments, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        query(*arguments)


@pytest.mark.parametrize(("arguments", "error", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_potentials_with_gradient(arguments, error, sentence, backend):
    grad = [
        x.clone().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in arguments
    ]
    with pytest.raises(error, match=sentence):
        ops.log_partition(*grad)


@pytest.mark.parametrize(("arguments", "error", "sentence"), BAD.values(), ids=BAD.keys())
def test_the_operator_itself_refuses(arguments, error, sentence, native):
    """The second line, for callers of ``torch.ops``: an error of some kind, never a crash."""
    if "device" in sentence or (error is TypeError and "NoneType" in sentence):
        return
    padded = [*arguments, *[None] * (5 - len(arguments))]
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        torch.ops.structlv.chain_log_partition(*padded, False)


@pytest.mark.parametrize(
    ("states", "error", "sentence"),
    [
        (torch.zeros(2, 4), TypeError, "states: expected dtype torch.int64"),
        (torch.zeros(2, 3, dtype=torch.long), ValueError, r"states: expected \(\*s, \*b, n\)"),
        (torch.zeros(4, dtype=torch.long), ValueError, "states: expected"),
        (torch.zeros(2, 1, 4, dtype=torch.long), ValueError, "states: expected"),
        ([[0] * 4] * 2, TypeError, "states: expected a torch.Tensor"),
    ],
)
def test_bad_states(states, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        ops.score(states, U, T)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"num_samples": -1, "seed": 0}, ValueError, "num_samples: expected 0 or more"),
        ({"num_samples": 1.0, "seed": 0}, TypeError, "num_samples: expected an int"),
        ({"num_samples": 1, "seed": -1}, ValueError, "seed: expected"),
        ({"num_samples": 1, "seed": 2**63}, ValueError, "seed: expected"),
        ({"num_samples": 1, "seed": None}, TypeError, "seed: expected an int"),
    ],
)
def test_bad_sample_options(options, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        ops.sample(U, T, **options)


@pytest.mark.parametrize(("k", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_k(k, error, backend):
    with pytest.raises(error, match="k: expected"):
        ops.topk(U, T, k=k)


def test_none_of_something_is_empty(backend):
    case = chain(batch=(2,), n=3)
    assert ops.topk(*case, k=0).shape == (0, 2, 3)
    assert ops.sample(*case, num_samples=0, seed=1).shape == (0, 2, 3)
    assert ops.score(torch.zeros(0, 2, 3, dtype=torch.long), *case).shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 3, 2), (0, 0, 1), (2, 0, 3), (3, 0, 2, 2)])
@queries
def test_empty_batches_and_lengths(query, shape, backend):
    if query is QUERIES["score"]:
        query = lambda u, *x: ops.score(torch.zeros(u.shape[:-1], dtype=torch.long), u, *x)  # noqa: E731
    *batch, _, k = shape
    initial = torch.zeros(*batch, k)
    query(torch.zeros(shape), torch.zeros(*batch, k, k), initial, None, torch.zeros(batch, dtype=torch.long))
    query(torch.zeros(shape), torch.zeros(k, k))


def test_empty_batch_has_gradients(backend):
    case, leaves = chain(batch=(0,), n=3).leaves()
    for gradient, x in zip(torch.autograd.grad(ops.log_partition(*case).sum(), leaves), leaves, strict=True):
        assert gradient.shape == x.shape
        assert not gradient.any()
