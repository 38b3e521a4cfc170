"""Markov chains: their rows, and where they settle."""

from __future__ import annotations

import torch
from torch import Tensor

from structlv.distributions.validation import is_eager
from structlv.reference.semiring import log_normalize, softmax

NOT_UNIQUE = (
    "the stationary distribution is not unique: no state can be reached from every other state, so the "
    "chain has several closed classes, each with a stationary distribution of its own"
)


def with_stop(transition: Tensor, final: Tensor | None, per_step: bool) -> tuple[Tensor, Tensor | None]:
    """Normalised transition rows, with ``final`` one more outcome of each, and what that outcome gets."""
    if final is None:
        return log_normalize(transition), None
    rows = transition.shape[:-1]
    stop = final.unsqueeze(-2) if per_step else final
    batch = torch.broadcast_shapes(rows, stop.shape)
    outcomes = torch.cat([transition.expand(batch + rows[-1:]), stop.expand(batch).unsqueeze(-1)], -1)
    outcomes = log_normalize(outcomes)
    left = outcomes[..., -1]
    if per_step:
        end = log_normalize(final.unsqueeze(-1)).squeeze(-1).unsqueeze(-2)
        left = torch.cat([left, end.expand(left.shape[:-2] + end.shape[-2:])], -2)
    return outcomes[..., :-1], left


def stationary_distribution(transition_logits: Tensor) -> Tensor:
    """pi (*b, k) with pi P = pi and sum 1, for P (*b, k, k) given by log-probabilities. Differentiable.

    The linear system (I - P^T + 1 1^T) pi = 1, regular exactly when pi is unique, in float64: O(k^3).

    Raises:
        ValueError: pi is not unique.
    """
    transition = softmax(transition_logits.double(), -1)
    reach = _reachable(transition.detach() > 0)
    if is_eager(reach) and not bool(reach.all(-2).any(-1).all()):
        raise ValueError(NOT_UNIQUE)
    k = transition.shape[-1]
    system = torch.eye(k, dtype=torch.float64, device=transition.device) - transition.transpose(-1, -2) + 1.0
    solution = torch.linalg.solve(system, system.new_ones(k, 1)).squeeze(-1)
    recurrent = reach.all(-2)
    return torch.where(recurrent, solution, 0.0).to(transition_logits.dtype)


def _reachable(steps: Tensor) -> Tensor:
    """(*b, k, k) bool: whether state j can be reached from state i, by repeated squaring."""
    k = steps.shape[-1]
    reach = (steps | torch.eye(k, dtype=torch.bool, device=steps.device)).to(torch.float32)
    for _ in range(max(1, (k - 1).bit_length())):
        reach = ((reach @ reach) > 0).to(torch.float32)
    return reach > 0
