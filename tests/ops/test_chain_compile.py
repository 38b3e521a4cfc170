"""The chain under opcheck, compile, export and autocast; half precision; the caller's tensors."""

import pytest
import torch

from structlv import _native, reference
from structlv.ops import chain as ops
from tests.cases import SHARINGS, chain
from tests.ops.queries import QUERIES, Module, gradient, same
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")
sharing = pytest.mark.parametrize("sharing", SHARINGS)
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


def operator_arguments(name, case):
    """Arguments of ``torch.ops.structlv.chain_<name>``."""
    potentials = tuple(case)
    chart = torch.ops.structlv.chain_inside(*[None if x is None else x.detach() for x in case], False)[1]
    batch = case.unary.shape[:-2]
    states = torch.zeros(2, *case.unary.shape[:-1], dtype=torch.long)
    directions = [None if x is None else torch.randn_like(x) for x in potentials[:4]]
    relaxation = (
        *case,
        torch.rand(batch).to(case.unary) + 0.5,
    )
    detached = [None if x is None else x.detach() for x in relaxation]
    soft, z, *kept = torch.ops.structlv.chain_relaxed(*detached, 2, 5)
    filtered = torch.ops.structlv.chain_filter_inside(*[None if x is None else x.detach() for x in case])
    return {
        "log_partition": (*potentials, False),
        "inside": (*potentials, False),
        "vjp": (torch.randn(batch, dtype=case.unary.dtype), chart, *potentials),
        "hvp": (torch.randn(batch, dtype=case.unary.dtype), *directions, *potentials),
        "marginals": (*potentials, False),
        "argmax": potentials,
        "max_marginals": potentials,
        "topk": (*potentials, 2),
        "sample": (*potentials, 2, 5),
        "sample_distinct": (*potentials, 2, 5),
        "filter": potentials,
        "filter_inside": potentials,
        "filter_vjp": (torch.randn_like(case.unary), filtered[1], *potentials),
        "pairs": (soft.clone().requires_grad_(),),
        "relaxed": (*relaxation, 2, 5),
        "relaxed_vjp": (torch.randn_like(soft), z, soft, *kept, *relaxation),
        "score": (states, *potentials),
        "score_vjp": (torch.randn(2, *batch, dtype=torch.float64), states, *potentials),
    }[name]


DIFFERENTIABLE = {
    "inside",
    "vjp",
    "log_partition",
    "marginals",
    "filter",
    "filter_inside",
    "pairs",
    "relaxed",
    "score",
    "score_vjp",
}
REFUSING = {
    "hvp",
    "argmax",
    "max_marginals",
    "topk",
    "sample",
    "sample_distinct",
    "filter_vjp",
    "relaxed_vjp",
}


@pytest.mark.parametrize("name", sorted(DIFFERENTIABLE | REFUSING))
@pytest.mark.parametrize("sharing", ["shared", "item step"])
def test_opcheck(name, sharing):
    operator = getattr(torch.ops.structlv, f"chain_{name}").default
    case = chain(n=3, k=2, sharing=sharing, ends=sharing == "shared", ragged=sharing == "shared")
    if name in DIFFERENTIABLE:
        case, _ = case.leaves()
    torch.library.opcheck(operator, operator_arguments(name, case))


@queries
def test_compile_fullgraph(query):
    case = chain(n=4)
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


@sharing
def test_compile_with_gradient(sharing):
    case, leaves = chain(n=4, sharing=sharing).leaves()

    def loss(*potentials):
        z = ops.log_partition(*potentials)
        unary, edges = ops.marginals(*potentials)
        return (
            z.sum() + unary.square().sum() + edges.sin().sum() + ops.filter(*potentials).exp().square().sum()
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*case), leaves)
    same(found, torch.autograd.grad(loss(*case), leaves))


def test_every_operator_is_checked():
    defined = {
        x.split("::")[1] for x in torch._C._dispatch_get_all_op_names() if x.startswith("structlv::chain_")
    }
    assert defined == {f"chain_{x}" for x in DIFFERENTIABLE | REFUSING | {"has_nan"}}


def test_compile_dynamic_shapes():
    compiled = torch.compile(
        lambda *x: ops.log_partition(*x).sum(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (3, 5, 6):
        case, leaves = chain(batch=(n - 1,), n=n, k=n + 1).leaves()
        same(torch.autograd.grad(compiled(*case), leaves), gradient(case, leaves))


def test_compile_with_inductor():
    """Of the operator alone: there is nothing that inductor would have to compile in C++."""
    case, leaves = chain(n=4).leaves()
    z = torch.compile(ops.log_partition, fullgraph=True)(*case)
    same(torch.autograd.grad(z, leaves, torch.ones_like(z)), gradient(case, leaves))


@queries
def test_export(query):
    case = chain(n=4)
    exported = torch.export.export(Module(query), tuple(case))
    assert any("structlv" in str(node.target) for node in exported.graph.nodes)
    same(exported.module()(*case), query(*case))


# ---- half precision and autocast -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, backend):
    case, leaves = chain(n=6, holes=0.1, dtype=dtype).leaves()
    wide, wide_leaves = case.to(torch.float32).leaves()
    z = ops.log_partition(*case)
    assert z.dtype == torch.float32
    assert_nats(z, ops.log_partition(*wide))
    assert ops.log_partition(*case, as_double=True).dtype == torch.float64
    for mine, theirs in zip(ops.marginals(*case), ops.marginals(*wide), strict=True):
        assert mine.dtype == dtype
        assert_probabilities(mine, theirs, dtype)
    possible = z.isfinite()
    found = torch.autograd.grad(z[possible].sum(), leaves)
    expected = torch.autograd.grad(ops.log_partition(*wide)[possible].sum(), wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        assert_probabilities(mine, theirs, dtype)
    assert torch.equal(ops.argmax(*case), ops.argmax(*wide))
    assert ops.filter(*case).dtype == dtype
    assert ops.score(ops.argmax(*case), *case).dtype == torch.float64


@queries
def test_autocast_computes_in_float32(query, backend):
    case = chain(n=4, dtype=torch.float32)
    mixed = case._replace(transition=case.transition.bfloat16(), final=case.final.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for potentials in (case, mixed, case.to(torch.bfloat16)):
            found = query(*potentials)
            same(found, query(*potentials.to(torch.float32)))


def test_autocast_leaves_float64_alone(backend):
    case = chain()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_nats(ops.log_partition(*case), reference.chain.log_partition(*case))


# ---- laws of good behaviour ------------------------------------------------------------------------------


@queries
def test_the_caller_s_tensors_are_untouched(query, backend):
    case = chain(n=4)
    before = [None if x is None else x.clone() for x in case]
    query(*case)
    for x, y in zip(case, before, strict=True):
        assert x is None or (torch.equal(x, y) and not x.requires_grad)


# ---- without kernels -------------------------------------------------------------------------------------


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(_native, "_C", None)


@queries
def test_the_fallback_under_vmap_and_compile(query, without_kernels):
    case = chain(batch=(2,), n=3)
    unary = torch.stack([case.unary, case.unary * 0.5])
    found = torch.vmap(query, in_dims=(0, None, None, None, None))(unary, *case[1:])
    rows = [query(x, *case[1:]) for x in unary]
    same(
        found,
        tuple(torch.stack(x) for x in zip(*rows, strict=True))
        if isinstance(found, tuple)
        else torch.stack(rows),
    )
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


def test_the_fallback_under_functorch(without_kernels):
    case, leaves = chain(n=3).leaves()
    found = torch.func.grad(lambda *x: ops.log_partition(*x, case.lengths).sum(), argnums=(0, 1, 2, 3))(
        *leaves
    )
    same(tuple(found), gradient(case, leaves))
