"""First and second derivatives, and clear refusals where there are none."""

import gc
import weakref

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import SHARINGS, chain
from tests.ops.queries import assert_exact_derivatives, call, dot
from tests.tolerance import assert_probabilities, assert_second_order

sharing = pytest.mark.parametrize("sharing", SHARINGS)
cases = [
    {"n": 3, "k": 2},
    {"n": 1, "k": 3},
    {"n": 3, "k": 3, "ragged": False, "ends": False},
    {"batch": (2, 1), "n": 2},
]
small = pytest.mark.parametrize("options", cases, ids=lambda o: "-".join(f"{k}{v}" for k, v in o.items()))


@sharing
@small
def test_log_partition(options, sharing, backend):
    f, leaves = call(ops.log_partition, chain(sharing=sharing, **options))
    assert gradcheck(f, leaves)
    assert gradgradcheck(f, leaves)


@sharing
@small
def test_marginals(options, sharing, backend):
    case = chain(sharing=sharing, **options)
    for edges in (False, True):
        f, leaves = call(ops.marginals, case, edges=edges)
        assert gradcheck(f, leaves)
    f, leaves = call(ops.state_marginals, case)
    assert gradcheck(f, leaves)


@sharing
def test_score(sharing, backend):
    case = chain(n=3, sharing=sharing)
    states = torch.randint(-1, 3, (2, 3, 3))
    f, leaves = call(lambda *potentials: ops.score(states, *potentials), case)
    finite = f(*leaves).isfinite()
    assert gradcheck(lambda *x: f(*x)[finite], leaves)
    assert gradgradcheck(lambda *x: f(*x)[finite], leaves)
    for gradient in torch.autograd.grad(f(*leaves).sum(), leaves):
        assert not gradient.isnan().any()


@sharing
def test_filter(sharing, backend):
    f, leaves = call(ops.filter, chain(n=3, sharing=sharing))
    valid = f(*leaves).isfinite()
    assert gradcheck(lambda *x: f(*x)[valid], leaves)


@pytest.mark.parametrize("holes", [0.2, 0.6])
@sharing
def test_forbidden_parts_have_exact_finite_derivatives(sharing, holes, native):
    assert_exact_derivatives(
        ops.log_partition,
        reference.chain.log_partition,
        chain(batch=(4,), n=5, sharing=sharing, holes=holes, seed=0),
    )


@sharing
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("k", [5, 17, 33])
def test_second_order_of_awkward_sizes(k, dtype, sharing, native):
    case, leaves = chain(n=9, k=k, sharing=sharing, holes=0.05, dtype=dtype).leaves()
    wide, wide_leaves = case.to(torch.float64).leaves()
    weights = [torch.randn_like(x) for x in leaves]

    def product(query, potentials, tensors):
        z = query(*potentials)
        first = torch.autograd.grad(z[z.isfinite()].sum(), tensors, create_graph=True)
        return torch.autograd.grad(
            dot(first, [w.to(x.dtype) for w, x in zip(weights, first, strict=True)]), tensors
        )

    found = product(ops.log_partition, case, leaves)
    expected = product(reference.chain.log_partition, wide, wide_leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert_second_order(mine, theirs, dtype)


def test_gradient_of_a_shared_parameter_is_the_sum_over_items(backend):
    case, leaves = chain(batch=(3,), n=4).leaves()
    ops.log_partition(*case).sum().backward()
    assert_probabilities(leaves[1].grad, ops.marginals(*case)[1].sum(0))


def test_third_order_raises(native):
    x = torch.randn(2, 3, 2, requires_grad=True)
    transition = torch.randn(2, 2)
    (first,) = torch.autograd.grad(ops.log_partition(x, transition).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.autograd.grad(second.sum(), x)


def test_second_order_of_marginals_raises(native):
    x = torch.randn(2, 3, 2, requires_grad=True)
    (first,) = torch.autograd.grad(
        ops.marginals(x, torch.randn(2, 2))[0].square().sum(), x, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.autograd.grad(first.sum(), x)


def test_max_marginals_refuse(native):
    x = torch.randn(2, 3, 2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="max_marginals is not differentiable"):
        ops.max_marginals(x, torch.randn(2, 2))[0].sum().backward()


def test_second_order_of_filter_raises(native):
    x = torch.randn(2, 3, 2, requires_grad=True)
    (first,) = torch.autograd.grad(
        ops.filter(x, torch.randn(2, 2)).exp().square().sum(), x, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(first.sum(), x)


def test_choices_are_integers_without_a_graph(backend):
    case, _ = chain().leaves()
    for states in (ops.argmax(*case), ops.topk(*case, k=2), ops.sample(*case, num_samples=2, seed=0)):
        assert states.dtype == torch.int64
        assert not states.requires_grad


def test_only_what_is_needed_gets_a_gradient(backend):
    case = chain()
    transition = case.transition.requires_grad_()
    ops.log_partition(*case).sum().backward()
    assert transition.grad is not None
    assert case.unary.grad is None


def test_nothing_is_recorded_under_no_grad(backend):
    case, _ = chain().leaves()
    with torch.no_grad():
        assert not ops.log_partition(*case).requires_grad
        assert not ops.marginals(*case)[0].requires_grad
        assert not ops.filter(*case).requires_grad
    with torch.inference_mode():
        assert not ops.log_partition(*case).requires_grad


def test_what_is_saved_is_of_the_size_of_unary(native):
    """Memory for the backward pass: never n k^2, only the inputs and a chart of two vectors a step."""
    unary, transition = torch.randn(4, 256, 32, requires_grad=True), torch.randn(32, 32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        ops.log_partition(unary, transition)
    inputs = {unary.data_ptr(), transition.data_ptr()}
    assert sum(x.numel() for x in saved if x.data_ptr() not in inputs) < 2.1 * unary.numel()


def test_backward_frees_what_was_saved(native):
    unary, transition = torch.randn(4, 9, 3, requires_grad=True), torch.randn(3, 3)
    alive = weakref.ref(transition)
    z = ops.log_partition(unary, transition).sum()
    del transition
    assert alive() is not None
    z.backward()
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_that_share_large_steps_add_up(dtype):
    """Of large sums there are fewer than items: some items are added into the sum of another."""
    generator = torch.Generator().manual_seed(1)
    unary = torch.randn(12, 34, 64, generator=generator, dtype=torch.float64).to(dtype)
    steps = torch.randn(1, 33, 64, 64, generator=generator, dtype=torch.float64).to(dtype)
    lengths = torch.arange(23, 35)
    shared, own = steps.clone().requires_grad_(), steps.repeat(12, 1, 1, 1).requires_grad_()
    for transition in (shared, own):
        ops.log_partition(unary, transition, lengths=lengths).sum().backward()
    assert_probabilities(shared.grad[0], own.grad.double().sum(0).to(dtype), dtype)
