"""Log-probabilities of given words under a softmax over a large vocabulary, without the whole table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 20  # numbers of one piece of the table: 4 MiB in float32


def gather_log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """``log_softmax(hidden @ weight.T + bias)`` at the words of ``index``, transposed to one row a position.

    The table (*b, T, V) is never formed: its normaliser is summed up piece by piece in both directions; the
    dtype is that of ``weight``, under autocast too.

    Args:
        hidden: (*b, T, d), one vector for each preterminal (or state); singleton or missing batch dimensions
            are shared and computed once.
        weight: (V, d), a vector for each word.
        bias: (V,).
        index: (*b, n) words in 0..V-1.

    Returns: (*b, n, T) nats. Differentiable once. Time O(B T V d), memory O(B n (T + d)) and one piece.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = hidden.to(weight.dtype)
        log_normalizer = _LogNormalizer.apply(hidden, weight, bias)
        scores = torch.einsum("...nd,...td->...nt", weight[index], hidden) + bias[index].unsqueeze(-1)
        return scores - log_normalizer.unsqueeze(-2)


class _LogNormalizer(torch.autograd.Function):
    """``logsumexp over V of hidden @ weight.T + bias``: (*b, T, d) to (*b, T), some words at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        total = rows.new_full((len(rows),), -torch.inf)
        for words in _pieces(len(rows), len(weight)):
            piece = torch.addmm(bias[words], rows, weight[words].T)
            total = torch.logaddexp(total, piece.logsumexp(-1))
        ctx.save_for_backward(rows, weight, bias, total)
        return total.reshape(hidden.shape[:-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, weight, bias, total = ctx.saved_tensors
        d_rows, d_weight, d_bias = torch.zeros_like(rows), torch.empty_like(weight), torch.empty_like(bias)
        for words in _pieces(len(rows), len(weight)):
            piece = torch.addmm(bias[words], rows, weight[words].T)
            piece = piece.sub_(total.unsqueeze(-1)).exp_().mul_(grad.reshape(-1, 1))
            d_rows.addmm_(piece, weight[words])
            torch.mm(piece.T, rows, out=d_weight[words])
            d_bias[words] = piece.sum(0)
        return d_rows.reshape(*grad.shape, -1), d_weight, d_bias


def _pieces(rows: int, words: int) -> list[slice]:
    size = max(1, CHUNK // max(rows, 1))
    return [slice(start, min(start + size, words)) for start in range(0, words, size)]
