"""The factorial chain under vmap, func.grad, jacobians, hessians and forward mode."""

import pytest
import torch
from torch.autograd import forward_ad

from structlv import reference
from structlv.ops import factorial as ops
from tests.cases import factorial
from tests.ops.queries import (
    FACTORIAL_QUERIES,
    assert_vmap_is_the_loop,
    factorial_score,
    flatten,
    gradient,
    same,
    sized,
)
from tests.tolerance import assert_probabilities, assert_second_order

pytestmark = pytest.mark.usefixtures("native")
log_partition, marginals = sized(ops.log_partition), sized(ops.marginals)
exact = reference.factorial
sharing = pytest.mark.parametrize("sharing", ["shared", "item"])
queries = pytest.mark.parametrize("query", FACTORIAL_QUERIES.values(), ids=FACTORIAL_QUERIES.keys())
PAIRS = {
    "log_partition": (log_partition, sized(exact.log_partition)),
    "marginals": (marginals, sized(exact.marginals)),
    "edges": (lambda *x: marginals(*x, edges=True), lambda *x: sized(exact.marginals)(*x, edges=True)),
}
pairs = pytest.mark.parametrize(("query", "oracle"), PAIRS.values(), ids=PAIRS.keys())


@queries
@sharing
@pytest.mark.parametrize(
    "mapped", [(0, None, None, None), (0, 0, 0, 0), (None, 0, 0, None), (1, -1, None, 0)]
)
def test_vmap_is_the_loop(query, sharing, mapped):
    *scores, sizes, lengths = factorial((2,), 3, sharing=sharing)
    # the item's index in the flattened batch is part of a draw
    shapes_alone = query is FACTORIAL_QUERIES["sample"]
    sized_query = lambda u, t, i, lengths: query(u, t, i, sizes, lengths)  # noqa: E731
    assert_vmap_is_the_loop(sized_query, (*scores, lengths), mapped, shapes_alone)


def test_sizes_cannot_be_mapped():
    case = factorial(n=3)
    operator = torch.ops.structlv.factorial_log_partition
    with pytest.raises(NotImplementedError, match="cannot be mapped by vmap"):
        torch.vmap(lambda k: operator(*case[:3], k, None, False))(torch.tensor([[2, 3], [3, 2]]))


@sharing
def test_vmap_of_a_gradient(sharing):
    case = factorial((2,), 3, sharing=sharing)
    unary = torch.stack([case.unary, case.unary * 0.3])

    def one(unary, transition):
        total = lambda *x: log_partition(*x, *case[2:]).sum()  # noqa: E731
        return torch.func.grad(total, argnums=(0, 1))(unary, transition)

    found = torch.vmap(one, in_dims=(0, None))(unary, case.transition)
    rows = [one(x, case.transition) for x in unary]
    for mine, theirs in zip(found, zip(*rows, strict=True), strict=True):
        assert_probabilities(mine, torch.stack(theirs))


def test_vmap_of_the_registered_operator():
    case = factorial((3, 2), 3, ragged=False)
    operator, sizes = torch.ops.structlv.factorial_marginals, torch.tensor(case.sizes)
    for edges in (False, True):
        found = torch.vmap(lambda u, i, e=edges: operator(u, case.transition, i, sizes, None, e))(
            case.unary, case.initial
        )
        same(found, operator(*case[:3], sizes, None, edges))


@sharing
@pytest.mark.parametrize("edges", [False, True], ids=["summed", "per step"])
def test_many_cotangents_at_once(edges, sharing):
    """The backward of marginals under vmap: a direction for each step, where edges are one for each step."""
    case, leaves = factorial((2,), 3, (2, 2), sharing).leaves()
    found = marginals(*case, edges=edges)
    weights = [torch.randn(4, *x.shape, dtype=x.dtype) for x in found]
    together = torch.autograd.grad(found, leaves, weights, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(found, leaves, w, retain_graph=True) for w in zip(*weights, strict=True)]
    for mine, theirs in zip(together, zip(*each, strict=True), strict=True):
        assert_second_order(mine, torch.stack(theirs))


@sharing
def test_func_grad_is_autograd(sharing):
    case, leaves = factorial(n=3, sharing=sharing).leaves()
    total = lambda *x: log_partition(*x, case.sizes, case.lengths).sum()  # noqa: E731
    same(tuple(torch.func.grad(total, argnums=(0, 1, 2))(*leaves)), gradient(case, leaves))


@sharing
@pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev], ids=["forward", "reverse"])
def test_hessian(outer, sharing):
    case = factorial((2,), 2, (2, 2), sharing)

    def hessian(query):
        total = lambda *x: query(*x, *case[3:]).sum()  # noqa: E731
        return outer(torch.func.jacrev(total, argnums=(0, 1, 2)), argnums=(0, 1, 2))(*case[:3])

    for a, b in zip(*(flatten(hessian(query)) for query in PAIRS["log_partition"]), strict=True):
        assert_second_order(a, b)


@pairs
@sharing
@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=["jacrev", "jacfwd"])
def test_jacobians(transform, sharing, query, oracle):
    case = factorial((2,), 3, (2, 2), sharing)
    mine = transform(lambda *x: query(*x, *case[3:]), argnums=(0, 1, 2))(*case[:3])
    theirs = transform(lambda *x: oracle(*x, *case[3:]), argnums=(0, 1, 2))(*case[:3])
    for a, b in zip(flatten(mine), flatten(theirs), strict=True):
        assert_second_order(a, b)


def test_jacobians_of_score():
    case = factorial((2,), 3, (2, 2))
    states = torch.randint(0, 4, (4, 2, 3))
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        mine = transform(lambda *x: factorial_score(states, *x, *case[3:]), argnums=(0, 1, 2))(*case[:3])
        theirs = transform(
            lambda *x: exact.score(states, *x, case.lengths, sizes=case.sizes), argnums=(0, 1, 2)
        )(*case[:3])
        same(tuple(mine), tuple(theirs))


@pairs
@sharing
def test_forward_mode(sharing, query, oracle):
    case = factorial(n=3, sharing=sharing)
    tangents = tuple(torch.randn_like(x) for x in case[:3])
    mine = torch.func.jvp(lambda *x: query(*x, *case[3:]), tuple(case[:3]), tangents)
    theirs = torch.func.jvp(lambda *x: oracle(*x, *case[3:]), tuple(case[:3]), tangents)
    for a, b in zip(flatten(mine), flatten(theirs), strict=True):
        assert_second_order(a, b)


def test_dual_numbers():
    case = factorial(n=3, ragged=False)
    direction = torch.randn_like(case.unary)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(case.unary, direction)
        tangent = forward_ad.unpack_dual(log_partition(dual, *case[1:])).tangent
        assert sized(ops.argmax)(dual, *case[1:]).dtype == torch.int64
    assert_probabilities(tangent, (marginals(*case)[0] * direction).sum((-2, -1)))


def test_third_order_refuses_under_functorch():
    f = lambda u: ops.log_partition(u, torch.zeros(4), sizes=(2,))  # noqa: E731
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f)))(torch.randn(2, 2))
