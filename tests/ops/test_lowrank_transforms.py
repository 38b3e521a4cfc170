"""The low-rank PCFG under opcheck, compile, export, vmap and torch.func; half precision; wrong arguments."""

import pytest
import torch

from structlv import _native, reference
from structlv.ops import lowrank as ops
from tests.cases import GRAMMARS, HEADS, SPANS, lowrank
from tests.ops.queries import (
    LOWRANK_QUERIES,
    Module,
    assert_vmap_is_the_loop,
    flatten,
    gradient,
    same,
)
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

grammar = pytest.mark.parametrize("grammar", GRAMMARS)
spans = pytest.mark.parametrize("spans", SPANS)
heads = pytest.mark.parametrize("heads", HEADS)
queries = pytest.mark.parametrize("query", LOWRANK_QUERIES.values(), ids=LOWRANK_QUERIES.keys())


def operator_arguments(name, case):
    """Arguments of ``torch.ops.structlv.lowrank_<name>``."""
    potentials, batch = tuple(case), case.unary.shape[:-2]
    detached = [None if x is None else x.detach() for x in case]
    chart = torch.ops.structlv.lowrank_inside(*detached, False)[1]
    directions = [None if x is None else torch.randn_like(x) for x in potentials[:6]]
    weight = torch.randn(batch, dtype=case.unary.dtype)
    return {
        "log_partition": (*potentials, False),
        "inside": (*potentials, False),
        "vjp": (weight, chart, *potentials),
        "hvp": (weight, *directions, *potentials),
        "marginals": (*potentials, True, case.spans is not None),
        "sample": (*potentials, 2, 5),
    }[name]


DIFFERENTIABLE = {"inside", "vjp", "log_partition", "marginals"}
REFUSING = {"hvp", "sample"}


@pytest.mark.parametrize("name", sorted(DIFFERENTIABLE | REFUSING))
@pytest.mark.parametrize(("grammar", "spans"), [("shared", None), ("item", "label")])
@heads
def test_opcheck(heads, name, grammar, spans, native):
    case = lowrank(n=3, heads=heads, grammar=grammar, spans=spans, ragged=grammar == "shared")
    if name in DIFFERENTIABLE:
        case, _ = case.leaves()
    operator = getattr(torch.ops.structlv, f"lowrank_{name}").default
    torch.library.opcheck(operator, operator_arguments(name, case))


def test_every_operator_is_checked(native):
    names = (x.split("::")[1] for x in torch._C._dispatch_get_all_op_names() if x.startswith("structlv::"))
    defined = {x for x in names if x.startswith("lowrank_")}
    assert defined == {f"lowrank_{x}" for x in DIFFERENTIABLE | REFUSING | {"has_nan"}}


@queries
@heads
def test_compile_fullgraph(heads, query, native):
    case = lowrank(n=4, heads=heads, spans="label")
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


@heads
def test_compile_with_gradient(heads, native):
    case, leaves = lowrank(n=4, heads=heads, spans="one").leaves()

    def loss(*potentials):
        z = ops.log_partition(*potentials)
        curved = sum(x.square().sum() for x in ops.marginals(*potentials) if x is not None)
        return torch.where(z.isfinite(), z, 0.0).sum() + curved

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*case), leaves)
    same(found, torch.autograd.grad(loss(*case), leaves))


def test_compile_dynamic_shapes(native):
    compiled = torch.compile(
        lambda *x: ops.log_partition(*x).sum(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (3, 5, 6):
        case, leaves = lowrank((n - 1,), n, (2, n), n + 1, ragged=False).leaves()
        same(torch.autograd.grad(compiled(*case), leaves), gradient(case, leaves))


def test_export(native):
    case = lowrank(n=4, spans="label")
    exported = torch.export.export(Module(ops.log_partition), tuple(case))
    assert any("structlv" in str(node.target) for node in exported.graph.nodes)
    same(exported.module()(*case), ops.log_partition(*case))


# ---- vmap and functorch ----------------------------------------------------------------------------------


@queries
@grammar
@pytest.mark.parametrize("spans", [None, "label"])
@pytest.mark.parametrize(
    "mapped",
    [(None, None, None, None, 0, None, None), (0, 0, 0, 0, 0, 0, 0), (0, 0, 1, None, None, None, None)],
    ids=str,
)
@heads
def test_vmap_is_the_loop(heads, query, spans, grammar, mapped, native):
    case = lowrank((2,), 3, heads=heads, grammar=grammar, spans=spans)
    mapped = tuple(None if x is None else dim for x, dim in zip(case, mapped, strict=True))
    # the item's index in the flattened batch is part of a draw
    assert_vmap_is_the_loop(query, case, mapped, shapes_alone=query is LOWRANK_QUERIES["sample"])


@grammar
@spans
@heads
def test_func_grad_is_autograd(heads, spans, grammar, native):
    case, leaves = lowrank(n=3, heads=heads, grammar=grammar, spans=spans).leaves()

    def total(*x):
        rest = iter(x)
        return ops.log_partition(*[None if y is None else next(rest) for y in case[:6]], case.lengths).sum()

    same(torch.func.grad(total, argnums=tuple(range(len(leaves))))(*leaves), gradient(case, leaves))


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=["jacrev", "jacfwd"])
@pytest.mark.parametrize("query", ["log_partition", "marginals"])
@pytest.mark.parametrize("spans", [None, "label"])
def test_jacobians(spans, query, transform, native):
    case = lowrank((2,), 3, (2, 1), 2, spans=spans, ragged=False)
    argnums = (0, 1, 2, 3, 4) if spans is None else (0, 1, 2, 3, 4, 5)
    mine = transform(getattr(ops, query), argnums=argnums)(*case)
    theirs = transform(getattr(reference.lowrank, query), argnums=argnums)(*case)
    for a, b in zip(flatten(mine), flatten(theirs), strict=True):
        assert_second_order(a, b)


def test_hessian(native):
    case = lowrank((2,), 3, (2, 1), 2, ragged=False)

    def hessian(query):
        total = lambda *x: query(*x, *case[5:]).sum()  # noqa: E731
        argnums = (0, 1, 2, 3, 4)
        return torch.func.jacfwd(torch.func.jacrev(total, argnums=argnums), argnums=argnums)(*case[:5])

    mine, theirs = hessian(ops.log_partition), hessian(reference.lowrank.log_partition)
    for a, b in zip(flatten(mine), flatten(theirs), strict=True):
        assert_second_order(a, b)


# ---- half precision, autocast, errors --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, backend):
    case, leaves = lowrank(n=5, spans="label", dtype=dtype).leaves()
    wide, wide_leaves = case.to(torch.float32).leaves()
    z = ops.log_partition(*case)
    assert z.dtype == torch.float32
    assert_nats(z, ops.log_partition(*wide))
    possible = z.isfinite()
    found = torch.autograd.grad(z[possible].sum(), leaves)
    expected = torch.autograd.grad(ops.log_partition(*wide)[possible].sum(), wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        assert_probabilities(mine, theirs, dtype)


@queries
def test_autocast_computes_in_float32(query, backend):
    case = lowrank(n=4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for potentials in (case, case._replace(head=case.head.bfloat16()), case.to(torch.bfloat16)):
            same(query(*potentials), query(*potentials.to(torch.float32)))


@queries
def test_the_fallback_under_vmap_and_compile(query, monkeypatch):
    monkeypatch.setattr(_native, "_C", None)
    case = lowrank((2,), 3)
    unary = torch.stack([case.unary, case.unary * 0.5])
    found = torch.vmap(query, in_dims=(*[None] * 4, 0, None, None))(*case[:4], unary, *case[5:])
    rows = [query(*case[:4], x, *case[5:]) for x in unary]
    same(
        found,
        tuple(torch.stack(x) for x in zip(*rows, strict=True))
        if isinstance(found, tuple)
        else torch.stack(rows),
    )
    same(torch.compile(query, fullgraph=True, backend="aot_eager")(*case), query(*case))


good = lowrank((3,), 4, (2, 3), 4, spans="label")
WRONG = {
    "root of another size": (good._replace(root=torch.zeros(3, dtype=torch.float64)), ValueError, "head"),
    "no nonterminal": (good._replace(root=torch.zeros(0, dtype=torch.float64)), ValueError, "root"),
    "head of another rank": (good._replace(head=good.head[:, :2]), ValueError, "head"),
    "left of other symbols": (good._replace(left=good.left[:, :4]), ValueError, "left"),
    "right of another rank": (good._replace(right=good.right[:3]), ValueError, "right"),
    "no head, another rank": (good._replace(head=None), ValueError, "left"),
    "rank 0": (
        good._replace(head=good.head[:, :0], left=good.left[:0], right=good.right[:0]),
        ValueError,
        "rank",
    ),
    "batches that differ": (good._replace(left=good.left.expand(2, 4, 5)), ValueError, "left"),
    "another dtype": (good._replace(right=good.right.float()), TypeError, "right"),
    "spans of other labels": (good._replace(spans=good.spans[..., :0]), ValueError, "spans"),
    "lengths of another shape": (good._replace(lengths=good.lengths[:2]), ValueError, "lengths"),
    "floating lengths": (good._replace(lengths=good.lengths.double()), TypeError, "lengths"),
    "unary without words": (good._replace(unary=good.unary[0, 0]), ValueError, "unary"),
    "no tensor": (good._replace(left=3), TypeError, "left"),
}


@pytest.mark.parametrize(("case", "error", "match"), WRONG.values(), ids=WRONG.keys())
@queries
def test_wrong_arguments(query, case, error, match, backend):
    if query is LOWRANK_QUERIES["score"]:
        query = lambda *x: ops.score(torch.zeros(3, 7, 3, dtype=torch.long), *x)  # noqa: E731
    with pytest.raises(error, match=match):
        query(*case)
