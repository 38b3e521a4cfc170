"""The PCFG under vmap, func.grad, jacobians, hessians and forward mode."""

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad

from structlv import reference
from structlv.ops import pcfg as ops
from tests.cases import GRAMMARS, SPANS, pcfg
from tests.ops.queries import PCFG_QUERIES, assert_vmap_is_the_loop, flatten, gradient, right_branching, same
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

pytestmark = pytest.mark.usefixtures("native")
grammar = pytest.mark.parametrize("grammar", GRAMMARS)
spans = pytest.mark.parametrize("spans", SPANS)
queries = pytest.mark.parametrize("query", PCFG_QUERIES.values(), ids=PCFG_QUERIES.keys())


# ---- vmap ------------------------------------------------------------------------------------------------


@queries
@grammar
@spans
@pytest.mark.parametrize(
    "mapped",
    [(None, None, 0, None, None), (0, 0, 0, 0, 0), (0, 0, None, None, None), (0, 1, 1, 2, None)],
    ids=str,
)
def test_vmap_is_the_loop(query, spans, grammar, mapped):
    case = pcfg(batch=(2,), n=3, grammar=grammar, spans=spans)
    mapped = (*mapped[:3], None if spans is None else mapped[3], mapped[4])
    # the item's index in the flattened batch is part of a draw
    assert_vmap_is_the_loop(query, case, mapped, shapes_alone=query is PCFG_QUERIES["sample"])


def test_vmap_of_decode():
    scores, lengths = torch.randn(4, 3, 5, 5), torch.tensor([5, 0, 3])
    expected = ops.decode(scores, lengths.expand(4, 3))
    assert torch.equal(torch.vmap(lambda x: ops.decode(x, lengths))(scores), expected)
    each = torch.vmap(ops.decode, in_dims=(1, 0))(scores[:1], lengths[:, None])
    assert torch.equal(each[:, 0], expected[0])


@spans
@grammar
def test_vmap_of_a_gradient(grammar, spans):
    case = pcfg(batch=(2,), n=3, grammar=grammar, spans=spans)
    unary = torch.stack([case.unary, case.unary * 0.3])

    def total(unary, rules):
        z = ops.log_partition(case.root, rules, unary, *case[3:])
        return torch.where(z.isfinite(), z, 0.0).sum()

    gradient = torch.func.grad(total, argnums=(0, 1))
    found = torch.vmap(gradient, in_dims=(0, None))(unary, case.rules)
    rows = [gradient(x, case.rules) for x in unary]
    for mine, theirs in zip(found, zip(*rows, strict=True), strict=True):
        assert_probabilities(mine, torch.stack(theirs))


def test_nested_vmap():
    case = pcfg(batch=(2, 3), n=3, ragged=False)
    rules = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    inner = torch.vmap(ops.log_partition, in_dims=(None, None, 0))
    found = torch.vmap(inner, in_dims=(None, 0, 0))(case.root, rules, case.unary)
    assert_nats(found, ops.log_partition(case.root, rules[:, None], case.unary))


def test_vmap_of_the_registered_operator():
    case = pcfg(batch=(3, 2), n=3, ragged=False)
    operator = torch.ops.structlv.pcfg_marginals
    found = torch.vmap(lambda u: operator(*case[:2], u, None, None, True, False))(case.unary)
    expected = operator(*case[:3], None, None, True, False)
    same(found[:3], expected[:3])
    assert found[3].shape == (3, 0)


@pytest.mark.parametrize("with_rules", [True, False])
def test_vmap_of_the_gradient_of_some_marginals(with_rules):
    case = pcfg(batch=(3, 2), n=3, ragged=False)

    def loss(rules, unary):
        parts = ops.marginals(case.root, rules, unary, with_rules=with_rules, with_spans=not with_rules)
        return sum(x.square().sum() for x in parts if x is not None)

    gradient = torch.func.grad(loss, argnums=(0, 1))
    found = torch.vmap(gradient, in_dims=(None, 0))(case.rules, case.unary)
    rows = [gradient(case.rules, unary) for unary in case.unary]
    for mine, theirs in zip(found, zip(*rows, strict=True), strict=True):
        assert_second_order(mine, torch.stack(theirs))


# ---- functorch -------------------------------------------------------------------------------------------


@grammar
@spans
def test_func_grad_is_autograd(spans, grammar):
    case, leaves = pcfg(n=3, grammar=grammar, spans=spans).leaves()
    full = len(leaves)

    def total(*x):
        return ops.log_partition(*x, *case[full:4], case.lengths).sum()

    same(torch.func.grad(total, argnums=tuple(range(full)))(*leaves), gradient(case, leaves))


@grammar
@pytest.mark.parametrize("spans", [None, "label"])
@pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev], ids=["forward", "reverse"])
def test_hessian(outer, spans, grammar):
    case = pcfg(batch=(2,), n=3, symbols=(2, 1), grammar=grammar, spans=spans, ragged=False)

    def hessian(query, argnums=(0, 1, 2)):
        total = lambda *x: query(*x, *case[3:]).sum()  # noqa: E731
        return outer(torch.func.jacrev(total, argnums=argnums), argnums=argnums)(*case[:3])

    pairs = zip(
        flatten(hessian(ops.log_partition)), flatten(hessian(reference.pcfg.log_partition)), strict=True
    )
    for mine, theirs in pairs:
        assert_second_order(mine, theirs)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=["jacrev", "jacfwd"])
@pytest.mark.parametrize("query", ["log_partition", "marginals"])
@spans
def test_jacobians(spans, query, transform):
    case = pcfg(batch=(2,), n=3, symbols=(2, 1), spans=spans, ragged=False)
    argnums = (0, 1, 2) if spans is None else (0, 1, 2, 3)
    mine = transform(getattr(ops, query), argnums=argnums)(*case)
    theirs = transform(getattr(reference.pcfg, query), argnums=argnums)(*case)
    for a, b in zip(flatten(mine), flatten(theirs), strict=True):
        assert_second_order(a, b)


def test_jacobians_of_score():
    case = pcfg(batch=(2,), n=3, spans="label")
    event = right_branching(case.unary, 2)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        mine = transform(lambda *x: ops.score(event, *x), argnums=(0, 1, 2, 3))(*case)
        theirs = transform(lambda *x: reference.pcfg.score(event, *x), argnums=(0, 1, 2, 3))(*case)
        same(tuple(mine), tuple(theirs))


def test_choices_inside_func_grad():
    case = pcfg(batch=(2,), n=3, ragged=False)

    def loss(rules):
        drawn = ops.sample(case.root, rules, case.unary, num_samples=2, seed=1)
        best = ops.argmax(case.root, rules, case.unary)
        event = torch.cat([drawn, best[None]])
        return ops.score(event, case.root, rules, case.unary).sum()

    drawn = ops.sample(*case, num_samples=2, seed=1)
    event = torch.cat([drawn, ops.argmax(*case)[None]])
    counts = torch.func.grad(loss)(case.rules)
    assert counts.sum() == 3 * 2 * 2  # trees, items, rules in a tree
    zeros = torch.zeros_like(case.root), torch.zeros_like(case.unary)
    assert_nats((counts * case.rules).sum(), ops.score(event, zeros[0], case.rules, zeros[1]).sum())


# ---- forward mode ----------------------------------------------------------------------------------------


@grammar
@spans
def test_forward_mode(spans, grammar):
    case = pcfg(n=3, grammar=grammar, spans=spans)
    primals = tuple(x for x in case[:4] if x is not None)
    tangents = tuple(torch.randn_like(x) for x in primals)

    def with_rest(query, *scores):
        return query(*scores, *[None] * (4 - len(scores)), case.lengths)

    for query in ("log_partition", "marginals"):
        mine, theirs = (
            torch.func.jvp(partial(with_rest, getattr(family, query)), primals, tangents)
            for family in (ops, reference.pcfg)
        )
        for a, b in zip(flatten(mine), flatten(theirs), strict=True):
            valid = b.isfinite()
            assert_second_order(a[valid], b[valid])


def test_forward_mode_of_some_marginals():
    case = pcfg(n=3, ragged=False)
    direction = torch.randn_like(case.rules)

    def jvp(**wanted):
        f = lambda rules: [x for x in ops.marginals(case.root, rules, case.unary, **wanted) if x is not None]  # noqa: E731
        return torch.func.jvp(f, (case.rules,), (direction,))[1]

    every = jvp()
    same(tuple(jvp(with_rules=False)), (every[0], *every[2:]))
    same(tuple(jvp(with_spans=False)), tuple(every[:3]))


def test_dual_numbers():
    case = pcfg(n=3, ragged=False)
    direction = torch.randn_like(case.unary)
    with forward_ad.dual_level():
        dual = case._replace(unary=forward_ad.make_dual(case.unary, direction))
        tangent = forward_ad.unpack_dual(ops.log_partition(*dual)).tangent
        assert ops.argmax(*dual).dtype == torch.int64
    assert_probabilities(tangent, (ops.marginals(*case)[2] * direction).sum((-2, -1)))


def test_forward_mode_is_never_silently_zero():
    case = pcfg(n=3)
    with pytest.raises(NotImplementedError, match="max_marginals is not differentiable"):
        torch.func.jvp(
            lambda u: ops.max_marginals(*case[:2], u), (case.unary,), (torch.ones_like(case.unary),)
        )


def test_third_order_refuses_under_functorch():
    case = pcfg(n=2, symbols=(1, 1), batch=(), ragged=False)
    f = lambda u: ops.log_partition(*case[:2], u)  # noqa: E731
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f)))(case.unary)
