"""First and second derivatives, and clear refusals where there are none."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from structlv import reference
from structlv.ops import factorial as ops
from tests.cases import factorial, name
from tests.ops.queries import assert_exact_derivatives, call, dot, factorial_score, sized
from tests.tolerance import assert_probabilities, assert_second_order

log_partition, marginals = sized(ops.log_partition), sized(ops.marginals)
sharing = pytest.mark.parametrize("sharing", ["shared", "item"])
CASES = [
    {"n": 3, "sizes": (2, 2)},
    {"n": 1},
    {"n": 3, "sizes": (3,), "ragged": False, "initial": False},
    {"n": 2, "batch": (2, 1), "sizes": (1, 2)},
]
small = pytest.mark.parametrize("options", CASES, ids=name)


@sharing
@small
def test_log_partition(options, sharing, backend):
    f, leaves = call(log_partition, factorial(sharing=sharing, **options))
    assert gradcheck(f, leaves)
    assert gradgradcheck(f, leaves)


@sharing
@small
def test_marginals(options, sharing, backend):
    case = factorial(sharing=sharing, **options)
    for edges in (False, True):
        f, leaves = call(marginals, case, edges=edges)
        assert gradcheck(f, leaves)


@sharing
def test_score(sharing, backend):
    case = factorial(n=3, sharing=sharing)
    states = torch.randint(-1, 6, (2, 3, 3))
    f, leaves = call(lambda *potentials: factorial_score(states, *potentials), case)
    finite = f(*leaves).isfinite()
    assert finite.any()
    assert gradcheck(lambda *x: f(*x)[finite], leaves)
    assert gradgradcheck(lambda *x: f(*x)[finite], leaves)
    for gradient in torch.autograd.grad(f(*leaves).sum(), leaves):
        assert not gradient.isnan().any()


@pytest.mark.parametrize("holes", [0.2, 0.5])
@sharing
def test_forbidden_parts_have_exact_finite_derivatives(sharing, holes, native):
    case = factorial((4,), 5, (2, 3), sharing, holes=holes, seed=0)
    assert_exact_derivatives(log_partition, sized(reference.factorial.log_partition), case)


@sharing
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("sizes", [(17,), (5, 7), (3, 1, 4, 2)], ids=str)
def test_second_order_of_awkward_sizes(sizes, dtype, sharing, native):
    case, leaves = factorial(n=9, sizes=sizes, sharing=sharing, holes=0.02, dtype=dtype).leaves()
    wide, wide_leaves = case.to(torch.float64).leaves()
    weights = [torch.randn_like(x) for x in leaves]

    def product(query, potentials, tensors):
        z = query(*potentials)
        first = torch.autograd.grad(z[z.isfinite()].sum(), tensors, create_graph=True)
        own = [w.to(x.dtype) for w, x in zip(weights, first, strict=True)]
        return torch.autograd.grad(dot(first, own), tensors)

    found = product(log_partition, case, leaves)
    expected = product(sized(reference.factorial.log_partition), wide, wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert_second_order(mine, theirs, dtype)


def test_gradient_of_a_shared_parameter_is_the_sum_over_items(backend):
    case, leaves = factorial((3,), 4).leaves()
    log_partition(*case).sum().backward()
    assert_probabilities(leaves[1].grad, marginals(*case)[1].sum(0))


def test_third_order_raises(native):
    x = torch.randn(2, 3, 4, requires_grad=True)
    z = ops.log_partition(x, torch.randn(8), sizes=(2, 2))
    (first,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative of a factorial chain"):
        torch.autograd.grad(second.sum(), x)


def test_second_order_of_marginals_raises(native):
    x = torch.randn(2, 3, 4, requires_grad=True)
    mu = ops.marginals(x, torch.randn(8), sizes=(2, 2))[0]
    (first,) = torch.autograd.grad(mu.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.autograd.grad(first.sum(), x)


def test_choices_are_integers_without_a_graph(backend):
    case, _ = factorial().leaves()
    for states in (sized(ops.argmax)(*case), sized(ops.sample)(*case, num_samples=2, seed=0)):
        assert states.dtype == torch.int64
        assert not states.requires_grad


def test_only_what_is_needed_gets_a_gradient(backend):
    case = factorial()
    transition = case.transition.requires_grad_()
    log_partition(*case).sum().backward()
    assert transition.grad is not None
    assert case.unary.grad is None


def test_nothing_is_recorded_under_no_grad_or_in_inference_mode(backend):
    case, leaves = factorial(sizes=(5, 2)).leaves()  # sizes that no test before has made a tensor of
    with torch.inference_mode():
        assert not log_partition(*case).requires_grad
    with torch.no_grad():
        assert not log_partition(*case).requires_grad
        assert not marginals(*case)[0].requires_grad
    torch.autograd.grad(log_partition(*case).sum(), leaves)


def test_what_is_saved_is_of_the_size_of_unary(native):
    """Memory for the backward pass: never n S k, only the inputs and a chart of a vector a step."""
    unary, transition = torch.randn(4, 256, 64, requires_grad=True), torch.randn(128)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        ops.log_partition(unary, transition, sizes=(8, 8))
    inputs = {unary.data_ptr(), transition.data_ptr()}
    assert sum(x.numel() for x in saved if x.data_ptr() not in inputs) < 1.1 * unary.numel()
