"""The chain under vmap, func.grad, jacobians, hessians and forward mode."""

import pytest
import torch
from torch.autograd import forward_ad

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import SHARINGS, chain
from tests.ops.queries import QUERIES, assert_vmap_is_the_loop, flatten, gradient, same
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

pytestmark = pytest.mark.usefixtures("native")
sharing = pytest.mark.parametrize("sharing", SHARINGS)
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


# ---- vmap ------------------------------------------------------------------------------------------------


@queries
@sharing
@pytest.mark.parametrize(
    "mapped", [(0, None, None, None, None), (0, 0, None, 0, 0), (None, 0, 0, None, None), (1, 1, 0, 0, None)]
)
def test_vmap_is_the_loop(query, sharing, mapped):
    case = chain(batch=(2,), n=3, sharing=sharing)
    # the item's index in the flattened batch is part of a draw
    assert_vmap_is_the_loop(query, case, mapped, shapes_alone=query is QUERIES["sample"])


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


def test_vmap_of_an_empty_batch():
    x = torch.zeros(2, 0, 3, 4, dtype=torch.float64)
    assert torch.vmap(ops.log_partition, in_dims=(0, None))(
        x, torch.zeros(4, 4, dtype=torch.float64)
    ).shape == (2, 0)


def test_vmap_of_the_registered_operator():
    case = chain(batch=(3, 2), n=3, ragged=False)
    operator = torch.ops.structlv.chain_marginals
    found = torch.vmap(lambda u: operator(u, *case[1:3], None, None, False))(case.unary)
    same(found, operator(case.unary, *case[1:3], None, None, False))


# ---- functorch -------------------------------------------------------------------------------------------


@sharing
def test_func_grad_is_autograd(sharing):
    case, leaves = chain(n=3, sharing=sharing).leaves()
    found = torch.func.grad(lambda *x: ops.log_partition(*x, case.lengths).sum(), argnums=(0, 1, 2, 3))(
        *leaves
    )
    same(tuple(found), gradient(case, leaves))


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


# ---- forward mode ----------------------------------------------------------------------------------------


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
