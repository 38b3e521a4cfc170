"""Tables of joint states that are sums over chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from structlv.distributions.factorial_parts import along
from structlv.distributions.validation import is_eager

_BLOCK = 2**16  # numbers summed at a time: they stay in the second-level cache


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors that broadcast against one another."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def product_of(terms: Sequence[Tensor]) -> Tensor:
    """The product of tensors that broadcast against one another."""
    total = terms[0]
    for term in terms[1:]:
        total = total * term
    return total


def combined(terms: Sequence[Tensor], dim: int = -1) -> Tensor:
    """The products of one element of each tensor's dimension ``dim``, row-major; others broadcast."""
    total = terms[0]
    for term in terms[1:]:
        total = (total.unsqueeze(dim) * term.unsqueeze(dim - 1)).flatten(dim - 1, dim)
    return total


def seen(scores: Tensor, observed: Tensor | None) -> Tensor:
    """Scores (*b, n, k), 0 where nothing is observed."""
    return scores if observed is None else torch.where(observed.unsqueeze(-1), scores, 0.0)


def masked_table(table: Tensor, observed: Tensor | None, count: int) -> Tensor:
    """A table (*b, n, k_1, ..., k_m), m = ``count``, with 0 where not observed."""
    if observed is None:
        return table
    return torch.where(observed.reshape(*observed.shape, *(1,) * count), table, 0.0)


def joint_table(
    own: Sequence[Tensor],
    constant: Tensor | None,
    joint: Tensor | None,
    observed: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """constant[t] + sum_i own_i[t, z_i] + joint[z], (*b, n, k_1, ..., k_m); 0 where not observed.

    Args:
        own: for each chain (*b, n, k_i).
        constant: (*b, n) or None.
        joint: (*b, k_1, ..., k_m) or None.
        observed: (*b, n) bool, or None where everything is.
        dtype: of the result; the sum is formed in that of the arguments.
    """
    count, sizes = len(own), tuple(x.shape[-1] for x in own)
    terms = [along(x, i, count - 1) for i, x in enumerate(own[:-1])] if count > 1 else []
    shift = () if constant is None else (constant.reshape(*constant.shape, *(1,) * max(count - 1, 1)),)
    if not terms:
        rows = [own[0], *shift, *(() if joint is None else (joint.unsqueeze(-2),))]
        return masked_table(sum_of(rows).to(dtype), observed, count)
    left = sum_of([terms[0], *shift, *terms[1:]]).flatten(1 - count)  # (*b, n, R), all chains but the last
    together = None if joint is None else joint.flatten(-count, -2)  # (*b, R, k_m)
    table = _summed(left, own[-1], together, dtype)
    return masked_table(table.reshape(*table.shape[:-2], *sizes), observed, count)


def _summed(left: Tensor, right: Tensor, joint: Tensor | None, dtype: torch.dtype) -> Tensor:
    """left[t, r] + right[t, k] + joint[r, k], (*b, n, R, k)."""
    if joint is None or not is_eager(left):
        total = left.unsqueeze(-1) + right.unsqueeze(-2)
        return (total if joint is None else total + joint.unsqueeze(-3)).to(dtype)
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2], joint.shape[:-2])
    left, right = (x.expand(batch + x.shape[-2:]) for x in (left, right))
    return _Summed.apply(left, right, joint, dtype)


class _Summed(torch.autograd.Function):
    """The sum, block of steps by block of steps: a table in float64 is never whole in memory."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, joint: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.like, ctx.shape = joint.dtype, joint.unsqueeze(-3).shape
        table = left.new_empty(*left.shape, right.shape[-1], dtype=dtype)
        n, steps = left.shape[-2], max(1, _BLOCK // max(1, table[..., :1, :, :].numel()))
        for t in range(0, n, steps):
            at = slice(t, min(n, t + steps))
            block = left[..., at, :, None] + right[..., at, None, :]
            table[..., at, :, :].copy_(block.add_(joint.unsqueeze(-3)))
        return table

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad
        joint = grad.sum_to_size(ctx.shape).squeeze(-3).to(ctx.like) if wanted[2] else None
        return grad.sum(-1).to(ctx.like), grad.sum(-2).to(ctx.like), joint, None
