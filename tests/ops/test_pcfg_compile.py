"""The PCFG under opcheck, compile, export and autocast; half precision; the caller's tensors."""

import pytest
import torch

from structlv import _native, reference
from structlv.ops import pcfg as ops
from tests.cases import SPANS, pcfg
from tests.ops.queries import PCFG_QUERIES, Module, gradient, right_branching, same
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")
spans = pytest.mark.parametrize("spans", SPANS)
queries = pytest.mark.parametrize("query", PCFG_QUERIES.values(), ids=PCFG_QUERIES.keys())


def operator_arguments(name, case):
    """Arguments of ``torch.ops.structlv.<name>``."""
    potentials, batch = tuple(case), case.unary.shape[:-2]
    detached = [None if x is None else x.detach() for x in case]
    chart = torch.ops.structlv.pcfg_inside(*detached, False)[1]
    event = right_branching(case.unary, case.root.shape[-1])
    directions = [None if x is None else torch.randn_like(x) for x in potentials[:4]]
    weight = torch.randn(batch, dtype=case.unary.dtype)
    return {
        "pcfg_log_partition": (*potentials, False),
        "pcfg_inside": (*potentials, False),
        "pcfg_vjp": (weight, chart, *potentials),
        "pcfg_hvp": (weight, *directions, *potentials),
        "pcfg_marginals": (*potentials, True, case.spans is not None),
        "pcfg_argmax": potentials,
        "pcfg_max_marginals": potentials,
        "pcfg_topk": (*potentials, 2),
        "pcfg_sample": (*potentials, 2, 5),
        "pcfg_sample_distinct": (*potentials, 2, 5),
        "pcfg_score": (event, *potentials),
        "pcfg_score_vjp": (torch.randn(2, *batch, dtype=torch.float64), event, *potentials),
        "tree_decode": (torch.randn(*batch, 3, 3), case.lengths),
    }[name]


DIFFERENTIABLE = {f"pcfg_{x}" for x in ("inside", "vjp", "log_partition", "marginals", "score", "score_vjp")}
REFUSING = {f"pcfg_{x}" for x in ("hvp", "argmax", "max_marginals", "topk", "sample", "sample_distinct")}
REFUSING |= {"tree_decode"}


@pytest.mark.parametrize("name", sorted(DIFFERENTIABLE | REFUSING))
@pytest.mark.parametrize(("grammar", "spans"), [("shared", None), ("item", "label")])
def test_opcheck(name, grammar, spans):
    case = pcfg(n=3, grammar=grammar, spans=spans, ragged=grammar == "shared")
    if name in DIFFERENTIABLE:
        case, _ = case.leaves()
    torch.library.opcheck(getattr(torch.ops.structlv, name).default, operator_arguments(name, case))


def test_every_operator_is_checked():
    names = (x.split("::")[1] for x in torch._C._dispatch_get_all_op_names() if x.startswith("structlv::"))
    defined = {x for x in names if x.startswith(("pcfg_", "tree_"))}
    assert defined == DIFFERENTIABLE | REFUSING | {"pcfg_has_nan"}


@queries
def test_compile_fullgraph(query):
    case = pcfg(n=4, spans="label")
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


@spans
def test_compile_with_gradient(spans):
    case, leaves = pcfg(n=4, spans=spans).leaves()

    def loss(*potentials):
        z = ops.log_partition(*potentials)
        root, rules, unary, covers = ops.marginals(*potentials)
        curved = root.square().sum() + rules.sin().sum() + unary.square().sum() + covers.square().sum()
        return torch.where(z.isfinite(), z, 0.0).sum() + curved

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*case), leaves)
    same(found, torch.autograd.grad(loss(*case), leaves))


def test_compile_dynamic_shapes():
    compiled = torch.compile(
        lambda *x: ops.log_partition(*x).sum(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (3, 5, 6):
        case, leaves = pcfg(batch=(n - 1,), n=n, symbols=(2, n), ragged=False).leaves()
        same(torch.autograd.grad(compiled(*case), leaves), gradient(case, leaves))


def test_compile_with_inductor():
    """Of the operator alone: there is nothing that inductor would have to compile in C++."""
    case, leaves = pcfg(n=4).leaves()
    z = torch.compile(ops.log_partition, fullgraph=True)(*case)
    same(torch.autograd.grad(z, leaves, torch.ones_like(z)), gradient(case, leaves))


def test_compile_decode():
    scores, lengths = torch.randn(3, 5, 5), torch.tensor([5, 1, 0])
    compiled = torch.compile(ops.decode, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(scores, lengths), ops.decode(scores, lengths))


@queries
def test_export(query):
    case = pcfg(n=4, spans="label")
    exported = torch.export.export(Module(query), tuple(case))
    assert any("structlv" in str(node.target) for node in exported.graph.nodes)
    same(exported.module()(*case), query(*case))


# ---- half precision and autocast -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, backend):
    case, leaves = pcfg(n=5, holes=0.05, spans="label", dtype=dtype).leaves()
    wide, wide_leaves = case.to(torch.float32).leaves()
    z = ops.log_partition(*case)
    assert z.dtype == torch.float32
    assert_nats(z, ops.log_partition(*wide))
    assert ops.log_partition(*case, as_double=True).dtype == torch.float64
    for query in (ops.marginals, ops.max_marginals):
        for mine, theirs in zip(query(*case), query(*wide), strict=True):
            assert mine.dtype == dtype
            assert torch.equal(mine, theirs.to(dtype))
    possible = z.isfinite()
    found = torch.autograd.grad(z[possible].sum(), leaves)
    expected = torch.autograd.grad(ops.log_partition(*wide)[possible].sum(), wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        assert_probabilities(mine, theirs, dtype)
    assert torch.equal(ops.argmax(*case), ops.argmax(*wide))
    assert ops.score(ops.argmax(*case), *case).dtype == torch.float64
    scores = case.spans.detach()[..., 0]
    assert torch.equal(ops.decode(scores), ops.decode(scores.float()))


@queries
def test_autocast_computes_in_float32(query, backend):
    case = pcfg(n=4, spans="label", dtype=torch.float32)
    mixed = case._replace(rules=case.rules.bfloat16(), spans=case.spans.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for potentials in (case, mixed, case.to(torch.bfloat16)):
            same(query(*potentials), query(*potentials.to(torch.float32)))


def test_autocast_leaves_float64_alone(backend):
    case = pcfg()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_nats(ops.log_partition(*case), reference.pcfg.log_partition(*case))


# ---- laws of good behaviour ------------------------------------------------------------------------------


@queries
def test_the_caller_s_tensors_are_untouched(query, backend):
    case = pcfg(n=4, spans="label")
    before = [x.clone() for x in case]
    query(*case)
    for x, y in zip(case, before, strict=True):
        assert torch.equal(x, y)
        assert not x.requires_grad


# ---- without kernels -------------------------------------------------------------------------------------


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(_native, "_C", None)


@queries
def test_the_fallback_under_vmap(query, without_kernels):
    case = pcfg(batch=(2,), n=3, spans="label")
    unary = torch.stack([case.unary, case.unary * 0.5])
    found = torch.vmap(query, in_dims=(None, None, 0, None, None))(*case[:2], unary, *case[3:])
    rows = [query(*case[:2], x, *case[3:]) for x in unary]
    together = isinstance(found, tuple)
    same(found, tuple(torch.stack(x) for x in zip(*rows, strict=True)) if together else torch.stack(rows))


@pytest.mark.parametrize("name", ["log_partition", "marginals", "argmax"])
def test_the_fallback_under_compile(name, without_kernels):
    case, query = pcfg(batch=(2,), n=3, spans="label"), PCFG_QUERIES[name]
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


def test_the_fallback_under_functorch(without_kernels):
    case, leaves = pcfg(n=3, spans="one").leaves()
    total = lambda *x: ops.log_partition(*x, case.lengths).sum()  # noqa: E731
    same(torch.func.grad(total, argnums=(0, 1, 2, 3))(*leaves), gradient(case, leaves))
