"""First and second derivatives of the low-rank PCFG, and clear refusals where there are none."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from structlv import reference
from structlv.ops import lowrank as ops
from tests.cases import GRAMMARS, HEADS, SPANS, lowrank, name
from tests.ops.queries import assert_exact_derivatives, call, right_branching

grammar = pytest.mark.parametrize("grammar", GRAMMARS)
spans = pytest.mark.parametrize("spans", SPANS)
heads = pytest.mark.parametrize("heads", HEADS)
cases = [
    {"n": 3, "symbols": (2, 1), "batch": (2,), "rank": 2, "seed": 1},
    {"n": 2, "symbols": (1, 2), "batch": (2, 1), "ragged": False},
    {"n": 1, "symbols": (1, 2), "batch": (2,)},
]


def finite_only(f):
    """``f`` where it is finite: the log-partition of a sentence without trees has no finite differences."""
    return lambda *x: torch.where((z := f(*x)).isfinite(), z, 0.0)


@grammar
@spans
@heads
@pytest.mark.parametrize("options", cases, ids=name)
def test_log_partition(options, heads, spans, grammar, backend):
    f, leaves = call(ops.log_partition, lowrank(grammar=grammar, spans=spans, heads=heads, **options))
    assert gradcheck(finite_only(f), leaves)
    assert gradgradcheck(finite_only(f), leaves)


@grammar
@spans
@heads
def test_marginals(heads, spans, grammar, backend):
    case = lowrank(grammar=grammar, spans=spans, heads=heads, **cases[0])
    for wanted in ((True, True), (False, True), (True, False)):
        options = dict(zip(("with_rules", "with_spans"), wanted, strict=True))
        f, leaves = call(ops.marginals, case, **options)
        assert gradcheck(lambda *x, f=f: tuple(y for y in f(*x) if y is not None), leaves)


@heads
def test_score(heads, backend):
    case = lowrank(n=3, heads=heads, spans="label")
    event = torch.cat([right_branching(case.unary, 2), torch.full((1, 3, 5, 3), -1)])
    f, leaves = call(lambda *potentials: ops.score(event, *potentials), case)
    finite = f(*leaves).isfinite()
    assert finite.any()
    assert gradcheck(lambda *x: f(*x)[finite], leaves)
    assert gradgradcheck(lambda *x: f(*x)[finite], leaves)
    for gradient in torch.autograd.grad(f(*leaves).sum(), leaves):
        assert not gradient.isnan().any()


@pytest.mark.parametrize("holes", [0.1, 0.4])
@heads
def test_forbidden_parts_have_exact_finite_derivatives(heads, holes, native):
    assert_exact_derivatives(
        ops.log_partition,
        reference.lowrank.log_partition,
        lowrank((4,), 5, (3, 3), 4, heads, spans="label", holes=holes, seed=0),
    )


@heads
def test_third_order_raises(heads, native):
    case, leaves = lowrank(n=3, ragged=False, heads=heads).leaves()
    (first,) = torch.autograd.grad(ops.log_partition(*case).sum(), leaves[:1], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative of a PCFG"):
        torch.autograd.grad(second.sum(), leaves[:1])


def test_only_what_is_needed_gets_a_gradient(backend):
    case = lowrank(spans="label")
    left = case.left.requires_grad_()
    ops.log_partition(*case).sum().backward()
    assert left.grad is not None
    assert case.head.grad is None
    assert case.unary.grad is None


def test_samples_have_no_graph(backend):
    case, _ = lowrank(spans="one").leaves()
    drawn = ops.sample(*case, num_samples=2, seed=0)
    assert drawn.dtype == torch.int64
    assert not drawn.requires_grad
    with torch.no_grad():
        assert not ops.log_partition(*case).requires_grad
        assert not ops.marginals(*case)[0].requires_grad
