"""Supports of structured events, as ``torch.distributions`` constraints."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

__all__ = ["StateSequence"]


class StateSequence(Constraint):
    """Sequences of ``length`` states in 0..``num_states``-1, shape (*, n); past its end a sequence holds
    anything.

    Args:
        num_states: k.
        length: n, the last dimension of an event.
        lengths: (*b) int64, the number of states of each item; None where every item has n.
    """

    is_discrete = True
    event_dim = 1

    def __init__(self, num_states: int, length: int, lengths: Tensor | None = None) -> None:
        self.num_states = num_states
        self.length = length
        self.lengths = lengths
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(*) bool, for events (*, n)."""
        if value.dim() < 1 or value.shape[-1] != self.length:
            raise ValueError(
                f"events must have shape (*, n) with n = {self.length}, found {tuple(value.shape)}"
            )
        legal = (value >= 0) & (value < self.num_states) & (value % 1 == 0)
        if self.lengths is not None:
            steps = torch.arange(self.length, device=value.device)
            legal = legal | (steps >= self.lengths.unsqueeze(-1))
        return legal.all(-1)

    def __repr__(self) -> str:
        return f"StateSequence(num_states={self.num_states}, length={self.length})"
