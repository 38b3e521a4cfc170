"""The reference against the chain of joint states, derivatives of any order, any device, any dtype."""

import pytest
import torch

from structlv.reference import chain
from structlv.reference import factorial as reference
from tests.cases import SMALL_FACTORIALS, factorial, name
from tests.ops.queries import sized
from tests.oracle import EnumeratedFactorial
from tests.tolerance import assert_nats, assert_probabilities

SIZES = [(3,), (2, 3), (1, 4), (3, 1, 2), (2, 2, 2, 2)]
log_partition, marginals = sized(reference.log_partition), sized(reference.marginals)


@pytest.mark.parametrize("options", SMALL_FACTORIALS, ids=name)
def test_against_the_chain_of_joint_states(options):
    case = factorial(**options)
    joint = case.chain()
    assert_nats(log_partition(*case), chain.log_partition(*joint))
    assert_probabilities(marginals(*case)[0], chain.marginals(*joint)[0])
    states = chain.argmax(*joint)
    assert_nats(
        reference.score(states, *case[:3], case.lengths, sizes=case.sizes), chain.score(states, *joint)
    )
    # scores of joint states are added in another order: a tie within rounding may fall otherwise
    found = sized(reference.argmax)(*case)
    assert_nats(chain.score(found, *joint), chain.score(states, *joint))


@pytest.mark.parametrize("options", SMALL_FACTORIALS, ids=name)
def test_against_enumeration(options):
    case = factorial(**options)
    oracle = EnumeratedFactorial(case)
    assert_nats(log_partition(*case), oracle.log_partition())
    for found, expected in zip(marginals(*case, edges=True), oracle.marginals(), strict=True):
        assert_probabilities(found, expected)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_samples_are_those_of_the_chain_of_joint_states(sizes, holes):
    case = factorial((4,), 6, sizes, holes=holes, seed=2)
    drawn = sized(reference.sample)(*case, num_samples=50, seed=5)
    expected = chain.sample(*case.chain(), num_samples=50, seed=5)
    assert (drawn == expected).all(-1).double().mean() > 0.99


@pytest.mark.parametrize("sharing", ["shared", "item"])
def test_to_chain(sharing):
    case = factorial((2,), 3, (2, 1, 3), sharing=sharing)
    found = reference.to_chain(case.transition, case.initial, sizes=case.sizes)
    assert_nats(found[0], case.chain().transition)
    assert_nats(found[1], case.chain().initial)
    assert reference.to_chain(case.transition, sizes=case.sizes)[1] is None


@pytest.mark.parametrize("sharing", ["shared", "item"])
def test_marginals_are_the_gradient_to_third_order(sharing):
    case, leaves = factorial((2,), 3, (2, 2), sharing, holes=0.2, seed=1).leaves()
    by_hand = marginals(*case)[0]
    z = log_partition(*case)
    by_autograd = torch.autograd.grad(z[z.isfinite()].sum(), leaves, create_graph=True)[0]
    weight = torch.randn_like(by_hand)
    for _ in range(3):
        assert_probabilities(by_hand, by_autograd)
        by_hand = torch.autograd.grad((by_hand * weight).sum(), leaves, create_graph=True)[0]
        by_autograd = torch.autograd.grad((by_autograd * weight).sum(), leaves, create_graph=True)[0]


def test_runs_where_there_is_nothing_but_shapes():
    """Every function is plain torch: any device will do, here the one that only knows shapes."""
    case = factorial(n=3).map(lambda x: x.to("meta"))
    case = case._replace(lengths=case.lengths.to("meta"))
    assert log_partition(*case).shape == (3,)
    assert marginals(*case)[1].shape == (3, 13)
    assert marginals(*case, edges=True)[1].shape == (3, 2, 13)
    assert sized(reference.argmax)(*case).shape == (3, 3)
    assert sized(reference.sample)(*case, num_samples=2, seed=0).shape == (2, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    case = factorial(dtype=dtype)
    scalar = torch.float32 if dtype.itemsize == 2 else dtype
    assert log_partition(*case).dtype == scalar
    assert log_partition(*case, as_double=True).dtype == torch.float64
    assert {x.dtype for x in marginals(*case)} == {dtype}
