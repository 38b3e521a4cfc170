"""First and second derivatives, and clear refusals where there are none."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from structlv import reference
from structlv.ops import pcfg as ops
from tests.cases import GRAMMARS, SPANS, name, pcfg
from tests.ops.queries import assert_exact_derivatives, call, dot, right_branching
from tests.tolerance import assert_probabilities, assert_second_order

grammar = pytest.mark.parametrize("grammar", GRAMMARS)
spans = pytest.mark.parametrize("spans", SPANS)
cases = [
    {"n": 3, "symbols": (2, 1), "batch": (2,), "seed": 1},
    {"n": 2, "symbols": (1, 2), "batch": (2, 1), "ragged": False},
    {"n": 1, "symbols": (1, 2), "batch": (2,)},
]
small = pytest.mark.parametrize("options", cases, ids=name)


def finite_only(f):
    """``f`` where it is finite: the log-partition of a sentence without trees has no finite differences."""
    return lambda *x: torch.where((z := f(*x)).isfinite(), z, 0.0)


@grammar
@spans
@small
def test_log_partition(options, spans, grammar, backend):
    f, leaves = call(ops.log_partition, pcfg(grammar=grammar, spans=spans, **options))
    assert gradcheck(finite_only(f), leaves)
    assert gradgradcheck(finite_only(f), leaves)


@grammar
@spans
def test_marginals(spans, grammar, backend):
    case = pcfg(grammar=grammar, spans=spans, **cases[0])
    every = ((True, True), (False, True), (True, False))
    for wanted in every if backend == "native" else every[:1]:
        options = dict(zip(("with_rules", "with_spans"), wanted, strict=True))
        f, leaves = call(ops.marginals, case, **options)
        assert gradcheck(lambda *x, f=f: tuple(y for y in f(*x) if y is not None), leaves)


@grammar
@spans
def test_score(spans, grammar, backend):
    case = pcfg(n=3, grammar=grammar, spans=spans)
    event = torch.cat([right_branching(case.unary, 2), torch.full((1, 3, 5, 3), -1)])
    f, leaves = call(lambda *potentials: ops.score(event, *potentials), case)
    finite = f(*leaves).isfinite()
    assert finite.any()
    assert gradcheck(lambda *x: f(*x)[finite], leaves)
    assert gradgradcheck(lambda *x: f(*x)[finite], leaves)
    for gradient in torch.autograd.grad(f(*leaves).sum(), leaves):
        assert not gradient.isnan().any()


@pytest.mark.parametrize("holes", [0.1, 0.4])
@spans
def test_forbidden_parts_have_exact_finite_derivatives(spans, holes, native):
    assert_exact_derivatives(
        ops.log_partition,
        reference.pcfg.log_partition,
        pcfg(batch=(4,), n=5, symbols=(3, 3), spans=spans, holes=holes, seed=3),
    )


@spans
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("symbols", [(2, 5), (5, 17)], ids=str)
def test_second_order_of_awkward_sizes(symbols, dtype, spans, native):
    case = pcfg(batch=(2,), n=6, symbols=symbols, spans=spans, holes=0.05, dtype=dtype)
    (narrow, leaves), (wide, wide_leaves) = case.leaves(), case.to(torch.float64).leaves()
    weights = [torch.randn_like(x) for x in leaves]

    def product(query, potentials, tensors):
        z = query(*potentials)
        first = torch.autograd.grad(z[z.isfinite()].sum(), tensors, create_graph=True)
        directions = [w.to(x.dtype) for w, x in zip(weights, first, strict=True)]
        return torch.autograd.grad(dot(first, directions), tensors)

    found = product(ops.log_partition, narrow, leaves)
    expected = product(reference.pcfg.log_partition, wide, wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert_second_order(mine, theirs, dtype)


@spans
def test_the_gradient_is_the_marginals(spans, backend):
    """Of what is shared, their sum over items; of a span's one score, their sum over nonterminals."""
    case, leaves = pcfg(batch=(3,), n=4, spans=spans).leaves()
    found = torch.autograd.grad(ops.log_partition(*case).sum(), leaves)
    for mine, part, x in zip(found, ops.marginals(*case), leaves, strict=False):
        assert_probabilities(mine, part.sum_to_size(x.shape))


def test_third_order_raises(native):
    case, leaves = pcfg(n=3, ragged=False).leaves()
    (first,) = torch.autograd.grad(ops.log_partition(*case).sum(), leaves[:1], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative of a PCFG"):
        torch.autograd.grad(second.sum(), leaves[:1])


def test_second_order_of_marginals_raises(native):
    case, leaves = pcfg(n=3, ragged=False).leaves()
    (first,) = torch.autograd.grad(ops.marginals(*case)[1].square().sum(), leaves[1:2], create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.autograd.grad(first.sum(), leaves[1:2])


def test_max_marginals_refuse(native):
    case, _ = pcfg(n=3, ragged=False).leaves()
    with pytest.raises(NotImplementedError, match="max_marginals is not differentiable"):
        ops.max_marginals(*case)[1].sum().backward()


def test_choices_are_integers_without_a_graph(backend):
    case, _ = pcfg(spans="one").leaves()
    best, drawn = ops.topk(*case, k=2), ops.sample(*case, num_samples=2, seed=0)
    for event in (ops.argmax(*case), best, drawn, ops.decode(case.spans[..., 0])):
        assert event.dtype == torch.int64
        assert not event.requires_grad


def test_only_what_is_needed_gets_a_gradient(backend):
    case = pcfg(spans="label")
    rules = case.rules.requires_grad_()
    ops.log_partition(*case).sum().backward()
    assert rules.grad is not None
    assert case.unary.grad is None
    assert case.spans.grad is None


def test_nothing_is_recorded_under_no_grad(backend):
    case, _ = pcfg().leaves()
    with torch.no_grad():
        assert not ops.log_partition(*case).requires_grad
        assert not ops.marginals(*case)[0].requires_grad
    with torch.inference_mode():
        assert not ops.log_partition(*case).requires_grad
