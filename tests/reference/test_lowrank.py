"""The reference against the dense PCFG, derivatives of any order, and the dtypes it must not care about."""

import pytest
import torch

from structlv.reference import lowrank as reference
from structlv.reference import pcfg
from tests.cases import HEADS, SMALL_LOWRANKS, SPANS, lowrank, name
from tests.ops.queries import dot
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

heads = pytest.mark.parametrize("heads", HEADS)


@pytest.mark.parametrize("options", SMALL_LOWRANKS, ids=name)
def test_against_the_dense_rules(options):
    case = lowrank(**options)
    dense = (case.root, reference.to_dense(*case[1:4]), *case[4:])
    assert_nats(reference.log_partition(*case), pcfg.log_partition(*dense))
    root, _, unary, spans = pcfg.marginals(*dense)
    found = reference.marginals(*case)
    for mine, theirs in zip((found[0], found[4], found[5]), (root, unary, spans), strict=True):
        assert_probabilities(mine, theirs)
    best = pcfg.topk(*dense, k=3)
    assert_nats(reference.score(best, *case), pcfg.score(best, *dense))


@pytest.mark.parametrize("spans", SPANS)
@heads
def test_marginals_are_the_gradient_to_third_order(heads, spans):
    case, leaves = lowrank((2,), 3, heads=heads, spans=spans, seed=1, ragged=False).leaves()
    by_hand = reference.marginals(*case)[4]
    z = reference.log_partition(*case)
    by_autograd = torch.autograd.grad(z.sum(), case.unary, create_graph=True)[0]
    weight = torch.randn_like(by_hand)
    for _ in range(3):
        assert_probabilities(by_hand, by_autograd)
        by_hand = torch.autograd.grad((by_hand * weight).sum(), case.unary, create_graph=True)[0]
        by_autograd = torch.autograd.grad((by_autograd * weight).sum(), case.unary, create_graph=True)[0]
    assert len(leaves) == sum(x is not None for x in case[:6])


@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("holes", [0.0, 0.2])
@heads
def test_hvp_is_that_of_autograd(heads, holes, spans):
    case, leaves = lowrank((4,), 5, (2, 3), 3, heads, spans=spans, holes=holes, seed=4).leaves()
    z = reference.log_partition(*case)
    weight = torch.where(z.isfinite(), torch.linspace(0.5, 2, 4, dtype=z.dtype), 0.0)
    first = torch.autograd.grad((z[z.isfinite()] * weight[z.isfinite()]).sum(), leaves, create_graph=True)
    directions = [torch.randn_like(x) for x in leaves]
    slope = dot(first, directions)
    expected = torch.autograd.grad(slope, leaves)
    given = iter(directions)
    aligned = [None if x is None else next(given) for x in case[:6]]
    mean, *found = reference.hvp(weight, *aligned, *case)
    assert_nats((mean * weight).sum(), slope)
    for mine, theirs in zip([x for x in found if x.numel()], expected, strict=True):
        assert_second_order(mine, theirs)


@pytest.mark.parametrize("spans", SPANS)
@heads
def test_hvp_of_minus_infinity_is_zero(heads, spans):
    """The derivative of the entropy has the potentials themselves as its direction."""
    case = lowrank((4,), 5, (2, 3), 3, heads, spans=spans, holes=0.3, seed=4)
    finite = [None if x is None else x.masked_fill(x == -torch.inf, 0.0) for x in case[:6]]
    for x, y in zip(reference.hvp(None, *case[:6], *case), reference.hvp(None, *finite, *case), strict=True):
        assert torch.equal(x, y)


@heads
def test_runs_where_there_is_nothing_but_shapes(heads):
    """Every function is plain torch: any device will do, here the one that only knows shapes."""
    case = lowrank(n=3, heads=heads, spans="label").map(lambda x: x.to("meta"))
    case = case._replace(lengths=case.lengths.to("meta"))
    assert reference.log_partition(*case).shape == (3,)
    assert reference.marginals(*case)[5].shape == (3, 3, 3, 2)
    assert reference.sample(*case, num_samples=2, seed=0).shape == (2, 3, 5, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    case = lowrank(n=3, dtype=dtype)
    z = reference.log_partition(*case)
    assert z.dtype == (torch.float32 if dtype.itemsize < 4 else dtype)
    assert reference.log_partition(*case, as_double=True).dtype == torch.float64
    assert {x.dtype for x in reference.marginals(*case)} == {dtype}
