"""The factorial chain under opcheck, compile, export and autocast; half precision; the caller's tensors."""

import pytest
import torch

from structlv import _native, reference
from structlv.ops import factorial as ops
from tests.cases import factorial
from tests.ops.queries import FACTORIAL_QUERIES, Module, gradient, same, sized
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")
log_partition, marginals = sized(ops.log_partition), sized(ops.marginals)
sharing = pytest.mark.parametrize("sharing", ["shared", "item"])
queries = pytest.mark.parametrize("query", FACTORIAL_QUERIES.values(), ids=FACTORIAL_QUERIES.keys())


def operator_arguments(name, case):
    """Arguments of ``torch.ops.structlv.factorial_<name>``."""
    potentials = (*case[:3], torch.tensor(case.sizes), case.lengths)
    plain = [None if x is None else x.detach() for x in potentials]
    chart = torch.ops.structlv.factorial_inside(*plain, False)[1]
    batch = case.unary.shape[:-2]
    states = torch.zeros(2, *case.unary.shape[:-1], dtype=torch.long)
    directions = [None if x is None else torch.randn_like(x) for x in case[:3]]
    return {
        "log_partition": (*potentials, False),
        "inside": (*potentials, False),
        "vjp": (torch.randn(batch, dtype=case.unary.dtype), chart, *potentials),
        "hvp": (torch.randn(batch, dtype=case.unary.dtype), *directions, *potentials),
        "marginals": (*potentials, False),
        "edges": (*potentials, True),
        "argmax": potentials,
        "sample": (*potentials, 2, 5),
        "score": (states, *potentials),
        "score_vjp": (torch.randn(2, *batch, dtype=torch.float64), states, *potentials),
    }[name]


DIFFERENTIABLE = {"inside", "vjp", "log_partition", "marginals", "edges", "score", "score_vjp"}
REFUSING = {"hvp", "argmax", "sample"}


@pytest.mark.parametrize("name", sorted(DIFFERENTIABLE | REFUSING))
@sharing
def test_opcheck(name, sharing):
    own = "marginals" if name == "edges" else name
    case = factorial(n=3, sharing=sharing, initial=sharing == "shared", ragged=sharing == "shared")
    if name in DIFFERENTIABLE:
        case, _ = case.leaves()
    operator = getattr(torch.ops.structlv, f"factorial_{own}").default
    torch.library.opcheck(operator, operator_arguments(name, case))


def test_every_operator_is_checked():
    prefix = "structlv::factorial_"
    defined = {x for x in torch._C._dispatch_get_all_op_names() if x.startswith(prefix)}
    checked = (DIFFERENTIABLE | REFUSING | {"has_nan"}) - {"edges"}
    assert defined == {prefix + x for x in checked}


@queries
def test_compile_fullgraph(query):
    case = factorial(n=4)
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


@sharing
def test_compile_with_gradient(sharing):
    case, leaves = factorial(n=4, sharing=sharing).leaves()

    def loss(*potentials):
        unary, counts = marginals(*potentials)
        edges = marginals(*potentials, edges=True)[1]
        return log_partition(*potentials).sum() + sum(x.square().sum() for x in (unary, counts, edges))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    same(torch.autograd.grad(compiled(*case), leaves), torch.autograd.grad(loss(*case), leaves))


def test_compile_dynamic_shapes():
    compiled = torch.compile(
        lambda *x: log_partition(*x).sum(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (3, 5, 6):
        case, leaves = factorial((n - 1,), n, (n, 2)).leaves()
        same(torch.autograd.grad(compiled(*case), leaves), gradient(case, leaves))


def test_compile_with_inductor():
    case, leaves = factorial(n=4).leaves()
    z = torch.compile(log_partition, fullgraph=True)(*case)
    same(torch.autograd.grad(z, leaves, torch.ones_like(z)), gradient(case, leaves))


@queries
def test_export(query):
    *scores, sizes, lengths = factorial(n=4)
    module = Module(lambda u, t, i, lengths: query(u, t, i, sizes, lengths))
    exported = torch.export.export(module, (*scores, lengths))
    assert any("structlv" in str(node.target) for node in exported.graph.nodes)
    same(exported.module()(*scores, lengths), query(*scores, sizes, lengths))


def test_fakes_and_other_devices_by_default_leave_no_trace_in_the_sizes():
    """The tensor of sizes is kept: it must be a plain one, whoever asks first."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    case = factorial(n=3, sizes=(7, 2))  # sizes that no test before has made a tensor of
    with FakeTensorMode() as mode:
        assert log_partition(*[mode.from_tensor(x) if torch.is_tensor(x) else x for x in case]).shape == (3,)
    with torch.device("meta"):
        assert log_partition(*case).device.type == "cpu"
    assert_nats(log_partition(*case), sized(reference.factorial.log_partition)(*case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, backend):
    case, leaves = factorial(n=6, holes=0.1, dtype=dtype).leaves()
    wide, wide_leaves = case.to(torch.float32).leaves()
    z = log_partition(*case)
    assert z.dtype == torch.float32
    assert_nats(z, log_partition(*wide))
    assert log_partition(*case, as_double=True).dtype == torch.float64
    for mine, theirs in zip(marginals(*case), marginals(*wide), strict=True):
        assert mine.dtype == dtype
        assert_probabilities(mine, theirs, dtype)
    possible = z.isfinite()
    found = torch.autograd.grad(z[possible].sum(), leaves)
    expected = torch.autograd.grad(log_partition(*wide)[possible].sum(), wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        assert_probabilities(mine, theirs, dtype)
    assert torch.equal(sized(ops.argmax)(*case), sized(ops.argmax)(*wide))


@queries
def test_autocast_computes_in_float32(query, backend):
    case = factorial(n=4, dtype=torch.float32)
    mixed = case._replace(transition=case.transition.bfloat16(), initial=case.initial.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for potentials in (case, mixed, case.to(torch.bfloat16)):
            same(query(*potentials), query(*potentials.to(torch.float32)))


def test_autocast_leaves_float64_alone(backend):
    case = factorial()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_nats(log_partition(*case), sized(reference.factorial.log_partition)(*case))


@queries
def test_the_caller_s_tensors_are_untouched(query, backend):
    case = factorial(n=4)
    before = case.map(torch.clone)
    query(*case)
    assert all(torch.equal(x, y) and not x.requires_grad for x, y in zip(case[:3], before[:3], strict=True))


@queries
def test_the_fallback_under_vmap_and_compile(query, monkeypatch):
    monkeypatch.setattr(_native, "_C", None)
    case = factorial((2,), 3)
    unary = torch.stack([case.unary, case.unary * 0.5])
    found = torch.vmap(lambda u: query(u, *case[1:]))(unary)
    rows = [query(x, *case[1:]) for x in unary]
    paired = tuple(torch.stack(x) for x in zip(*rows, strict=True))
    same(found, paired if isinstance(found, tuple) else torch.stack(rows))
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))
