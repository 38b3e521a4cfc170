"""The chain under torch's machinery: opcheck, compile, export, vmap, functorch, forward mode, autocast."""

import pytest
import torch
from torch.autograd import forward_ad

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import SHARINGS, chain
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

pytestmark = [
    pytest.mark.usefixtures("native"),
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit.script.*:DeprecationWarning"
    ),  # torch's own, in its forward mode
]
sharing = pytest.mark.parametrize("sharing", SHARINGS)
QUERIES = {
    "log_partition": ops.log_partition,
    "marginals": ops.marginals,
    "edges": lambda *x: ops.marginals(*x, edges=True),
    "argmax": ops.argmax,
    "max_marginals": ops.max_marginals,
    "topk": lambda *x: ops.topk(*x, k=2),
    "sample": lambda *x: ops.sample(*x, num_samples=2, seed=3),
    "filter": ops.filter,
    "score": lambda u, *x: ops.score(torch.zeros(2, *u.shape[:-1], dtype=torch.long), u, *x),
}
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


def same(found, expected):
    found, expected = (x if isinstance(x, tuple) else (x,) for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isinf(), b.isinf())
        assert torch.allclose(a.double().nan_to_num(), b.double().nan_to_num(), atol=1e-12, rtol=1e-12)


def operator_arguments(name, case):
    """Arguments of ``torch.ops.structlv.chain_<name>``."""
    potentials = tuple(case)
    chart = torch.ops.structlv.chain_inside(*[None if x is None else x.detach() for x in case], False)[1]
    batch = case.unary.shape[:-2]
    states = torch.zeros(2, *case.unary.shape[:-1], dtype=torch.long)
    directions = [None if x is None else torch.randn_like(x) for x in potentials[:4]]
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
        "filter": potentials,
        "filter_vjp": (torch.randn_like(case.unary), *potentials),
        "score": (states, *potentials),
        "score_vjp": (torch.randn(2, *batch, dtype=torch.float64), states, *potentials),
    }[name]


DIFFERENTIABLE = {"inside", "vjp", "log_partition", "marginals", "filter", "score", "score_vjp"}
REFUSING = {"hvp", "argmax", "max_marginals", "topk", "sample", "filter_vjp"}


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
        same(torch.autograd.grad(compiled(*case), leaves), ops_gradient(case, leaves))


def test_compile_with_inductor():
    """Of the operator alone: there is nothing that inductor would have to compile in C++."""
    case, leaves = chain(n=4).leaves()
    z = torch.compile(ops.log_partition, fullgraph=True)(*case)
    same(torch.autograd.grad(z, leaves, torch.ones_like(z)), ops_gradient(case, leaves))


def ops_gradient(case, leaves):
    return torch.autograd.grad(ops.log_partition(*case).sum(), leaves)


class Module(torch.nn.Module):
    """A module whose forward is one query."""

    def __init__(self, query):
        super().__init__()
        self.query = query

    def forward(self, *potentials):
        return self.query(*potentials)


@queries
def test_export(query):
    case = chain(n=4)
    exported = torch.export.export(Module(query), tuple(case))
    assert any("structlv" in str(node.target) for node in exported.graph.nodes)
    same(exported.module()(*case), query(*case))


# ---- vmap -------------------------------------------------------------------------------------------------


@queries
@sharing
@pytest.mark.parametrize(
    "mapped", [(0, None, None, None, None), (0, 0, None, 0, 0), (None, 0, 0, None, None), (1, 1, 0, 0, None)]
)
def test_vmap_is_the_loop(query, sharing, mapped):
    case = chain(batch=(2,), n=3, sharing=sharing)
    stacked = [stack(x, dim, i) for i, (x, dim) in enumerate(zip(case, mapped, strict=True))]
    found = torch.vmap(query, in_dims=mapped)(*stacked)
    rows = [
        query(*[x if d is None else x.select(d, i) for x, d in zip(stacked, mapped, strict=True)])
        for i in range(3)
    ]
    if query in (QUERIES["sample"],):  # the item's index in the flattened batch is part of a draw
        assert found.shape == (3, *rows[0].shape)
        return
    if isinstance(rows[0], tuple):
        same(found, tuple(torch.stack(x) for x in zip(*rows, strict=True)))
    else:
        same(found, torch.stack(rows))


def stack(x, dim, salt):
    """Three variations of ``x`` along a new dimension ``dim``."""
    if x is None or dim is None:
        return x
    if not x.is_floating_point():
        return torch.stack([x, (x - 1).clamp(min=0), torch.full_like(x, 2)], dim)
    return torch.stack([x, torch.roll(x, 1, -1), x * 0.5 + salt], dim)


@sharing
def test_vmap_of_a_gradient(sharing):
    case = chain(batch=(2,), n=3, sharing=sharing)
    unary = torch.stack([case.unary, case.unary * 0.3])

    def gradient(unary, transition):
        return torch.func.grad(lambda *x: ops.log_partition(*x, *case[2:]).sum(), argnums=(0, 1))(
            unary, transition
        )

    found = torch.vmap(gradient, in_dims=(0, None))(unary, case.transition)
    rows = [gradient(x, case.transition) for x in unary]
    for mine, theirs in zip(found, zip(*rows, strict=True), strict=True):
        assert_probabilities(mine, torch.stack(theirs))


def test_nested_vmap():
    x, transition = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 5, 5, dtype=torch.float64)
    inner = torch.vmap(ops.log_partition, in_dims=(0, None))
    found = torch.vmap(inner)(x, transition)
    assert_nats(found, ops.log_partition(x, transition[:, None]))


# ---- functorch --------------------------------------------------------------------------------------------


@sharing
def test_func_grad_is_autograd(sharing):
    case, leaves = chain(n=3, sharing=sharing).leaves()
    found = torch.func.grad(lambda *x: ops.log_partition(*x, case.lengths).sum(), argnums=(0, 1, 2, 3))(
        *leaves
    )
    same(tuple(found), ops_gradient(case, leaves))


@sharing
@pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev], ids=["forward", "reverse"])
def test_hessian(outer, sharing):
    case = chain(batch=(2,), n=2, k=2, sharing=sharing)

    def hessian(query, argnums=(0, 1)):
        total = lambda u, t: query(u, t, *case[2:]).sum()  # noqa: E731
        return outer(torch.func.jacrev(total, argnums=argnums), argnums=argnums)(*case[:2])

    for mine, theirs in zip(hessian(ops.log_partition), hessian(reference.chain.log_partition), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert_second_order(a, b)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=["jacrev", "jacfwd"])
@pytest.mark.parametrize("query", ["log_partition", "marginals", "filter"])
@sharing
def test_jacobians(sharing, query, transform):
    case = chain(batch=(2,), n=3, k=2, sharing=sharing, ragged=False)
    mine = transform(lambda *x: getattr(ops, query)(*x), argnums=(0, 1))(*case[:4])
    theirs = transform(lambda *x: getattr(reference.chain, query)(*x), argnums=(0, 1))(*case[:4])
    for a, b in zip(flatten(mine), flatten(theirs), strict=True):
        assert_second_order(a, b)


def flatten(x):
    return [x] if isinstance(x, torch.Tensor) else [z for y in x for z in flatten(y)]


def test_jacobians_of_score():
    case = chain(batch=(2,), n=3, k=2)
    states = torch.randint(0, 2, (4, 2, 3))
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        mine = transform(lambda *x: ops.score(states, *x, case.lengths), argnums=(0, 1, 3))(*case[:4])
        theirs = transform(lambda *x: reference.chain.score(states, *x, case.lengths), argnums=(0, 1, 3))(
            *case[:4]
        )
        same(tuple(mine), tuple(theirs))


def test_choices_inside_func_grad():
    case = chain(batch=(2,), n=3)

    def loss(unary):
        states = ops.sample(unary, case.transition, num_samples=2, seed=1)
        best = ops.argmax(unary, case.transition)
        return (
            ops.score(states, unary, case.transition).sum() + ops.score(best, unary, case.transition).sum()
        ).float()

    states = ops.sample(case.unary, case.transition, num_samples=2, seed=1)
    counts = torch.nn.functional.one_hot(states, 3).sum(0) + torch.nn.functional.one_hot(
        ops.argmax(*case[:2]), 3
    )
    assert torch.equal(torch.func.grad(loss)(case.unary), counts.double())


# ---- forward mode -----------------------------------------------------------------------------------------


@sharing
def test_forward_mode(sharing):
    case = chain(n=3, sharing=sharing)
    tangents = [torch.randn_like(x) for x in case[:4]]
    for query in ("log_partition", "marginals", "filter"):
        mine = torch.func.jvp(
            lambda *x, q=query: getattr(ops, q)(*x, case.lengths), tuple(case[:4]), tuple(tangents)
        )
        theirs = torch.func.jvp(
            lambda *x, q=query: getattr(reference.chain, q)(*x, case.lengths),
            tuple(case[:4]),
            tuple(tangents),
        )
        for a, b in zip(flatten(mine), flatten(theirs), strict=True):
            valid = b.isfinite()
            assert_second_order(a[valid], b[valid])


def test_dual_numbers():
    case = chain(n=3, ragged=False)
    direction = torch.randn_like(case.unary)
    with forward_ad.dual_level():
        z = ops.log_partition(forward_ad.make_dual(case.unary, direction), *case[1:])
        tangent = forward_ad.unpack_dual(z).tangent
        assert ops.argmax(forward_ad.make_dual(case.unary, direction), *case[1:]).dtype == torch.int64
    assert_probabilities(tangent, (ops.marginals(*case)[0] * direction).sum((-2, -1)))


def test_forward_mode_is_never_silently_zero():
    x, transition = torch.randn(2, 3, 2), torch.randn(2, 2)
    with pytest.raises(NotImplementedError, match="max_marginals is not differentiable"):
        torch.func.jvp(lambda u: ops.max_marginals(u, transition), (x,), (torch.ones_like(x),))


def test_third_order_refuses_under_functorch():
    x, transition = torch.randn(2, 2), torch.randn(2, 2)
    f = lambda u: ops.log_partition(u, transition)  # noqa: E731
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f)))(x)


# ---- half precision and autocast --------------------------------------------------------------------------


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


# ---- laws of good behaviour -------------------------------------------------------------------------------


@queries
def test_the_caller_s_tensors_are_untouched(query, backend):
    case = chain(n=4)
    before = [None if x is None else x.clone() for x in case]
    query(*case)
    for x, y in zip(case, before, strict=True):
        assert x is None or (torch.equal(x, y) and not x.requires_grad)
