"""What every recursion of the chain starts from: clean, broadcast potentials, and the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from structlv.reference import semiring

Maybe: TypeAlias = Tensor | None
_Potentials: TypeAlias = tuple[Tensor, Tensor, Maybe, Maybe]
_HALF = (torch.float16, torch.bfloat16)


class Chain(NamedTuple):
    """Potentials with initial and final scores folded into ``unary`` and zeros in the padding."""

    unary: Tensor  # (*b, n, k), the dtype of the sums
    transition: Tensor  # (*b, k, k), or (*b, n-1, k, k) when per_step
    lengths: Tensor  # (*b)
    valid: Tensor  # (*b, n): is t < length?
    per_step: bool

    def step(self, t: int) -> Tensor:
        """The matrix of the step from t to t + 1."""
        return self.transition[..., t, :, :] if self.per_step else self.transition


def prepare(unary: Tensor, transition: Tensor, initial: Maybe, final: Maybe, lengths: Maybe) -> Chain:
    n, wide = unary.shape[-2], semiring.wide_dtype(unary.device)
    per_step = transition.dim() == unary.dim() + 1
    lengths = clamped(lengths, unary)
    position = torch.arange(n, device=unary.device)
    left = lengths[..., None] - position  # how many positions are left, this one included
    x = torch.where((left > 0)[..., None], unary.to(wide), 0.0)
    for scores, here in ((initial, (left > 0) & (position == 0)), (final, left == 1)):
        if scores is not None:
            x = x + torch.where(here[..., None], scores.to(wide)[..., None, :], 0.0)
    used = (left[..., :-1] > 1) if per_step else (lengths > 1)
    edges = torch.where(used[..., None, None], transition.to(wide), 0.0)
    if n < 2:
        x = x + edges.sum()  # all zeros: an unused transition still has a gradient, of zeros
    return Chain(x, edges, lengths, left > 0, per_step)


def clamped(lengths: Maybe, unary: Tensor) -> Tensor:
    """Lengths ``(*b)`` in 0..n of ``unary (*b, n, k)``; n where there are none."""
    full = torch.full(unary.shape[:-2], unary.shape[-2], device=unary.device)
    return full if lengths is None else torch.minimum(lengths.clamp(min=0), full)


def narrow(x: Tensor, like: Tensor) -> Tensor:
    return x.to(torch.float32 if like.dtype in _HALF else like.dtype)


def forward(chain: Chain, product: Callable[[Tensor, Tensor], Tensor] = semiring.log_vecmat) -> list[Tensor]:
    """``alpha[t][..., j]``: the sum over prefixes that end in state j at t; carried through the padding."""
    alphas = [chain.unary[..., 0, :]]
    for t in range(1, chain.unary.shape[-2]):
        alpha = product(alphas[-1], chain.step(t - 1)) + chain.unary[..., t, :]
        alphas.append(torch.where(chain.valid[..., t, None], alpha, alphas[-1]))
    return alphas


def detached(unary: Tensor, transition: Tensor, initial: Maybe, final: Maybe) -> _Potentials:
    ends = [None if x is None else x.detach() for x in (initial, final)]
    return unary.detach(), transition.detach(), ends[0], ends[1]
