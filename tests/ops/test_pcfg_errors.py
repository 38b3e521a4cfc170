"""Bad input: a clear error that names the argument, or the defined result; never a crash."""

import pytest
import torch

from structlv.ops import pcfg as ops
from tests.cases import pcfg

R, A, U, L = torch.zeros(2), torch.zeros(2, 5, 5), torch.zeros(2, 4, 3), torch.tensor([4, 2])
W = torch.zeros(2, 4, 4, 2)
EVENT = torch.zeros(2, 7, 3, dtype=torch.long)
QUERIES = {
    "log_partition": ops.log_partition,
    "marginals": ops.marginals,
    "argmax": ops.argmax,
    "max_marginals": ops.max_marginals,
    "topk": lambda *x: ops.topk(*x, k=2),
    "sample": lambda *x: ops.sample(*x, num_samples=2, seed=3),
    "score": lambda *x: ops.score(EVENT, *x),
    "has_nan": ops.has_nan,
}
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


def at(unary=U, root=R, rules=A, spans=None, lengths=None):
    return root, rules, unary, spans, lengths


BAD = {
    "unary 1-d": (at(torch.zeros(3)), ValueError, r"unary: expected \(\*b, n, T\)"),
    "no preterminals": (
        at(torch.zeros(2, 4, 0), rules=torch.zeros(2, 2, 2)),
        ValueError,
        "unary: expected at least one preterminal",
    ),
    "unary int": (at(U.long()), TypeError, "unary: expected a floating"),
    "unary complex": (at(U.cfloat()), TypeError, "unary: expected a floating"),
    "unary list": (at([[0.0]]), TypeError, "unary: expected a torch.Tensor, found list"),
    "root None": (at(root=None), TypeError, "root: expected a torch.Tensor, found NoneType"),
    "root 0-d": (at(root=torch.zeros(())), ValueError, r"root: expected \(\*b, NT\)"),
    "no nonterminals": (
        at(root=torch.zeros(0), rules=torch.zeros(0, 3, 3)),
        ValueError,
        r"root: expected .* NT >= 1",
    ),
    "root batch": (at(root=torch.zeros(3, 2)), ValueError, r"root: .* to \(2,\), found \(3,\)"),
    "root dtype": (at(root=R.double()), TypeError, "root: expected the dtype of unary"),
    "rules None": (at(rules=None), TypeError, "rules: expected a torch.Tensor, found NoneType"),
    "rules 2-d": (at(rules=torch.zeros(5, 5)), ValueError, "rules: expected"),
    "rules not square": (
        at(rules=torch.zeros(2, 5, 4)),
        ValueError,
        r"rules: expected .*\(2, 5, 5\), found \(2, 5, 4\)",
    ),
    "rules of nonterminals alone": (at(rules=torch.zeros(2, 2, 2)), ValueError, "rules: expected"),
    "more rules than roots": (at(rules=torch.zeros(3, 5, 5)), ValueError, "rules: expected"),
    "rules batch": (at(rules=torch.zeros(5, 2, 5, 5)), ValueError, r"rules: .* to \(2,\), found \(5,\)"),
    "enlarging the batch": (
        at(U[:1], rules=torch.zeros(2, 2, 5, 5)),
        ValueError,
        r"rules: .* to \(1,\), found \(2,\)",
    ),
    "rules dtype": (at(rules=A.half()), TypeError, "rules: expected the dtype of unary"),
    "spans 2-d": (at(spans=torch.zeros(4, 4)), ValueError, "spans: expected"),
    "spans without labels": (
        at(spans=torch.zeros(2, 4, 4)),
        ValueError,
        r"spans: expected \(\*b, n, n, NT\)",
    ),
    "spans of other words": (at(spans=torch.zeros(2, 3, 3, 2)), ValueError, "spans: expected"),
    "spans of all symbols": (at(spans=torch.zeros(2, 4, 4, 5)), ValueError, "spans: expected"),
    "spans batch": (at(spans=torch.zeros(3, 4, 4, 2)), ValueError, r"spans: .* to \(2,\), found \(3,\)"),
    "spans dtype": (at(spans=W.double()), TypeError, "spans: expected the dtype of unary"),
    "spans list": (at(spans=[0.0]), TypeError, "spans: expected a torch.Tensor, found list"),
    "lengths shape": (at(lengths=L[:1]), ValueError, r"lengths: expected \(\*b\) = \(2,\), found \(1,\)"),
    "lengths dtype": (at(lengths=L.int()), TypeError, "lengths: expected dtype torch.int64"),
    "lengths list": (at(lengths=[4, 2]), TypeError, "lengths: expected a torch.Tensor"),
    "device": (at(rules=A.to("meta")), ValueError, "rules: expected the device of unary, cpu, found meta"),
    "lengths device": (at(lengths=L.to("meta")), ValueError, "lengths: expected the device"),
}
bad = pytest.mark.parametrize(("arguments", "error", "sentence"), BAD.values(), ids=BAD.keys())


@queries
@bad
def test_bad_potentials(query, arguments, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        query(*arguments)


@bad
def test_bad_potentials_with_gradient(arguments, error, sentence, backend):
    grad = [
        x.clone().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in arguments
    ]
    with pytest.raises(error, match=sentence):
        ops.log_partition(*grad)


@bad
def test_the_operator_itself_refuses(arguments, error, sentence, native):
    """The second line, for callers of ``torch.ops``: an error of some kind, never a crash."""
    if "device" in sentence:
        return
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        torch.ops.structlv.pcfg_log_partition(*arguments, False)


@pytest.mark.parametrize(
    ("event", "error", "sentence"),
    [
        (EVENT.float(), TypeError, "event: expected dtype torch.int64"),
        (EVENT[:, :-1], ValueError, r"event: expected \(\*s, \*b, 2n - 1, 3\)"),
        (EVENT[..., :2], ValueError, "event: expected"),
        (EVENT[0], ValueError, "event: expected"),
        (EVENT[:, None], ValueError, "event: expected"),
        ([[[0] * 3] * 7] * 2, TypeError, "event: expected a torch.Tensor"),
    ],
)
def test_bad_event(event, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        ops.score(event, R, A, U)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((torch.zeros(4),), ValueError, r"spans: expected \(\*b, n, n\)"),
        ((torch.zeros(2, 4, 3),), ValueError, r"spans: expected \(\*b, n, n\)"),
        ((torch.zeros(2, 4, 4, dtype=torch.long),), TypeError, "spans: expected a floating"),
        ((None,), TypeError, "spans: expected a torch.Tensor"),
        ((torch.zeros(2, 4, 4), L[:1]), ValueError, r"lengths: expected \(\*b\)"),
        ((torch.zeros(2, 4, 4), L.int()), TypeError, "lengths: expected dtype"),
    ],
)
def test_bad_spans_to_decode(arguments, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        ops.decode(*arguments)


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
        ops.sample(R, A, U, **options)


@pytest.mark.parametrize(("k", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_k(k, error, backend):
    with pytest.raises(error, match="k: expected"):
        ops.topk(R, A, U, k=k)


def test_none_of_something_is_empty(backend):
    case = pcfg(batch=(2,), n=3)
    assert ops.topk(*case, k=0).shape == (0, 2, 5, 3)
    assert ops.sample(*case, num_samples=0, seed=1).shape == (0, 2, 5, 3)
    assert ops.score(torch.zeros(0, 2, 5, 3, dtype=torch.long), *case).shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 3, 2), (0, 0, 1), (2, 0, 3), (3, 0, 2, 2), (2, 1, 3)])
@queries
def test_empty_batches_and_lengths(query, shape, backend):
    *batch, n, preterminals = shape
    if query is QUERIES["score"]:
        event = torch.zeros(*batch, max(2 * n - 1, 0), 3, dtype=torch.long)
        query = lambda *x: ops.score(event, *x)  # noqa: E731
    rules = torch.zeros(1, 1 + preterminals, 1 + preterminals)
    spans, lengths = torch.zeros(*batch, n, n, 1), torch.zeros(batch, dtype=torch.long)
    query(torch.zeros(*batch, 1), rules.expand(*batch, -1, -1, -1), torch.zeros(shape), spans, lengths)
    query(torch.zeros(1), rules, torch.zeros(shape))
    ops.decode(spans[..., 0], lengths)


def test_empty_batch_has_gradients(backend):
    case, leaves = pcfg(batch=(0,), n=3, spans="label").leaves()
    for gradient, x in zip(torch.autograd.grad(ops.log_partition(*case).sum(), leaves), leaves, strict=True):
        assert gradient.shape == x.shape
        assert not gradient.any()


# ---- the operators as torch.ops has them -----------------------------------------------------------------

raw = torch.ops.structlv


@pytest.mark.parametrize("shape", [(), (1,), (5,), (5, 1), (2, 5), (0, 2)])
def test_a_gradient_of_another_shape_is_refused(shape, native):
    potentials = (R, A, U, None, None)
    chart = raw.pcfg_inside(*potentials, False)[1]
    for call in (
        lambda: raw.pcfg_vjp(torch.ones(shape), chart, *potentials),
        lambda: raw.pcfg_hvp(torch.ones(shape), R, A, U, None, *potentials),
        lambda: raw.pcfg_score_vjp(torch.ones(shape).double(), EVENT.expand(5, 2, 7, 3), *potentials),
    ):
        with pytest.raises(RuntimeError, match=r"grad: expected shape"):
            call()


def test_the_chart_of_another_problem_is_refused(native):
    potentials = (R, A, U, None, None)
    chart = raw.pcfg_inside(*potentials, False)[1]
    for other in (torch.cat([chart, chart.new_zeros(1)]), chart.double()):
        with pytest.raises(RuntimeError, match="chart: expected what pcfg_inside returned"):
            raw.pcfg_vjp(torch.ones(2), other, *potentials)


@pytest.mark.parametrize(
    "directions",
    [
        (R[:1], A, U, None),
        (R, A[:1], U, None),
        (R, A, U[:1], None),
        (R, A, U[..., :2], None),
        (R, A, U, W[:, :3]),
    ],
)
def test_directions_of_other_shapes_are_refused(directions, native):
    with pytest.raises(RuntimeError, match=r"expected|broadcast"):
        raw.pcfg_hvp(None, *directions, R, A, U, None, None)


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 4, 3)])
def test_any_number_of_trees_without_words_is_at_once_there(shape, native):
    unary = torch.zeros(shape)
    rows = max(2 * shape[1] - 1, 0)
    assert ops.sample(R, A, unary, num_samples=2**40, seed=0).shape == (2**40, shape[0], rows, 3)
    assert ops.topk(R, A, unary, k=2**40).shape == (2**40, shape[0], rows, 3)
