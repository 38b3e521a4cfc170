"""The reference against enumeration, derivatives of any order, and the dtypes it must not care about."""

import pytest
import torch

from structlv.reference import chain as reference
from tests.cases import SHARINGS, SMALL, chain, name
from tests.oracle import Enumerated, filtered
from tests.tolerance import assert_nats, assert_probabilities


@pytest.mark.parametrize("options", SMALL, ids=name)
def test_against_enumeration(options):
    case = chain(**options)
    oracle = Enumerated(case)
    assert_nats(reference.log_partition(*case), oracle.log_partition())
    for found, expected in zip(reference.marginals(*case, edges=True), oracle.marginals(), strict=True):
        assert_probabilities(found, expected)
    assert_nats(reference.max_marginals(*case)[0], oracle.max_marginals()[0])
    assert_nats(reference.filter(*case), filtered(case))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_marginals_are_the_gradient_to_third_order(sharing):
    case, leaves = chain(batch=(2,), n=3, k=2, sharing=sharing, holes=0.2, seed=1).leaves()
    by_hand = reference.marginals(*case)[0]
    z = reference.log_partition(*case)
    by_autograd = torch.autograd.grad(z[z.isfinite()].sum(), leaves, create_graph=True)[0]
    weight = torch.randn_like(by_hand)
    for _ in range(3):
        assert_probabilities(by_hand, by_autograd)
        by_hand = torch.autograd.grad((by_hand * weight).sum(), leaves, create_graph=True)[0]
        by_autograd = torch.autograd.grad((by_autograd * weight).sum(), leaves, create_graph=True)[0]


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_filter_vjp_is_autograd_s(sharing, holes):
    case, leaves = chain(n=4, sharing=sharing, holes=holes, seed=4).leaves()
    rows = reference.filter(*case)
    grad = torch.randn_like(rows).masked_fill(rows.isinf(), 0.0)
    found = reference.filter_vjp(grad, *case)
    expected = torch.autograd.grad(rows, leaves, grad, allow_unused=True, materialize_grads=True)
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs)


def test_runs_where_there_is_nothing_but_shapes():
    """Every function is plain torch: any device will do, here the one that only knows shapes."""
    case = chain(n=3).map(lambda x: x.to("meta"))
    case = case._replace(lengths=case.lengths.to("meta"))
    assert reference.log_partition(*case).shape == (3,)
    assert reference.marginals(*case)[1].shape == (3, 3, 3)
    assert reference.argmax(*case).shape == (3, 3)
    assert reference.topk(*case, k=2).shape == (2, 3, 3)
    assert reference.sample(*case, num_samples=2, seed=0).shape == (2, 3, 3)
    assert reference.filter(*case).shape == (3, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    case = chain(dtype=dtype)
    scalar = torch.float32 if dtype.itemsize == 2 else dtype
    assert reference.log_partition(*case).dtype == scalar
    assert reference.log_partition(*case, as_double=True).dtype == torch.float64
    assert {x.dtype for x in (*reference.marginals(*case), *reference.max_marginals(*case))} == {dtype}
    assert reference.filter(*case).dtype == dtype
