"""Sums and products in which zero is a real ``-inf``: the one place of the Python side with a max-shift.

A sum over nothing but ``-inf`` is ``-inf`` and its derivatives, of any order, are 0 (``torch.logsumexp`` and
``torch.log_softmax`` give NaN there). Maxima are detached: a shift cancels, so no gradient goes through it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which sums are formed: float64, or float32 where the device has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _shift(x: Tensor, dim: int) -> Tensor:
    top = x.detach().amax(dim, keepdim=True)
    return torch.where(top == -torch.inf, 0.0, top)


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """``log sum exp x`` over ``dim``, in nats; ``-inf`` with zero gradient where everything is ``-inf``."""
    shift = _shift(x, dim)
    total = (x - shift).exp().sum(dim, keepdim=True)
    some = total > 0
    value = torch.where(some, torch.where(some, total, 1.0).log() + shift, -torch.inf)
    return value.squeeze(dim)


def scatter_max(x: Tensor, index: Tensor, size: int) -> Tensor:
    """The maximum of ``x (*, r)`` at each place ``index (r)`` of ``(*, size)``; ``-inf`` without any."""
    empty = x.new_full((*x.shape[:-1], size), -torch.inf)
    return empty.scatter_reduce(-1, index.expand(x.shape), x, "amax")


def scatter_logsumexp(x: Tensor, index: Tensor, size: int) -> Tensor:
    """``log sum exp`` of the entries of ``x (*, r)`` at each place ``index (r)`` of ``(*, size)``."""
    top = scatter_max(x.detach(), index, size)
    shift = torch.where(top == -torch.inf, 0.0, top)
    terms = (x - shift[..., index]).exp()
    total = torch.zeros_like(top).scatter_add(-1, index.expand(x.shape), terms)
    some = total > 0
    return torch.where(some, torch.where(some, total, 1.0).log() + shift, -torch.inf)


def softmax(x: Tensor, dim: int) -> Tensor:
    """``exp(x) / sum exp(x)`` over ``dim``; all 0 with zero gradient where everything is ``-inf``."""
    weights = (x - _shift(x, dim)).exp()
    total = weights.sum(dim, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


def log_normalize(x: Tensor, dim: int = -1) -> Tensor:
    """``log_softmax`` over ``dim`` whose all-``-inf`` rows stay ``-inf`` with zero gradient (in nats)."""
    empty = x.detach().amax(dim, keepdim=True) == -torch.inf
    if _visible(empty) and not bool(empty.any()):
        return x.log_softmax(dim)  # two passes over a large table less
    return x.masked_fill(empty, 0.0).log_softmax(dim).masked_fill(empty, -torch.inf)


def _visible(x: Tensor) -> bool:
    """Whether values may be looked at: no graph is traced, no transform is on, no device is waited for."""
    traced = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
    return not traced and type(x) is Tensor and x.is_cpu


def log_matmul(a: Tensor, b: Tensor) -> Tensor:
    """``log(exp(a) @ exp(b))``: ``(*, i, j)`` and ``(*, j, k)`` to ``(*, i, k)``; batches broadcast."""
    return logsumexp(a.unsqueeze(-1) + b.unsqueeze(-3), -2)


def log_vecmat(a: Tensor, b: Tensor) -> Tensor:
    """``log(exp(a) @ exp(b))`` of a row vector ``(*, i)`` and a matrix ``(*, i, j)``, to ``(*, j)``."""
    return logsumexp(a.unsqueeze(-1) + b, -2)


def max_vecmat(a: Tensor, b: Tensor) -> Tensor:
    """The max-plus product of a row vector ``(*, i)`` and a matrix ``(*, i, j)``, to ``(*, j)``."""
    return (a.unsqueeze(-1) + b).amax(-2)
