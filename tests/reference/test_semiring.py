"""Sums in which zero is a real -inf: values, gradients and second order where torch's own give NaN."""

import pytest
import torch

from structlv.reference import semiring

INF = torch.inf


def rows(dtype=torch.float64):
    return torch.tensor(
        [[0.3, -INF, 2.0], [-INF, -INF, -INF], [1e4, -1e4, 0.0], [-INF, 5.0, -INF]], dtype=dtype
    )


def test_logsumexp_is_torch_s_where_that_is_right():
    assert torch.allclose(semiring.logsumexp(rows(), -1), torch.logsumexp(rows(), -1), atol=1e-15)


def test_log_normalize_and_softmax_keep_empty_rows_empty():
    out = semiring.log_normalize(rows())
    assert torch.equal(out[1], torch.full((3,), -INF, dtype=torch.float64))
    assert torch.allclose(out[0], torch.log_softmax(rows()[0], -1))
    assert torch.equal(semiring.softmax(rows(), -1)[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("f", [semiring.logsumexp, semiring.softmax], ids=["logsumexp", "softmax"])
def test_derivatives_of_empty_rows_are_zero_to_second_order(f):
    x = rows().requires_grad_()
    weight = torch.randn_like(f(x, -1))
    (first,) = torch.autograd.grad(
        (weight * f(x, -1).masked_fill(f(x, -1) == -INF, 0)).sum(), x, create_graph=True
    )
    (second,) = torch.autograd.grad((first * torch.randn_like(first)).sum(), x)
    for gradient in (first, second):
        assert not gradient.isnan().any()
        assert not gradient[1].any()


def test_log_normalize_gradient_of_an_empty_row_is_zero():
    x = rows().requires_grad_()
    y = semiring.log_normalize(x)
    (g,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert not g.isnan().any()
    assert not g[1].any()


def test_gradcheck():
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    for f in (semiring.logsumexp, semiring.softmax, semiring.log_normalize):
        assert torch.autograd.gradcheck(lambda y, f=f: f(y, -1), x)
        assert torch.autograd.gradgradcheck(lambda y, f=f: f(y, -1), x)


def test_products():
    a, b = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    assert torch.allclose(semiring.log_matmul(a, b), (a.exp() @ b.exp()).log())
    assert torch.allclose(semiring.log_vecmat(a, b), (a.exp() @ b.exp()).log())
    assert torch.equal(semiring.max_vecmat(a, b), (a[..., None] + b).amax(-2))
