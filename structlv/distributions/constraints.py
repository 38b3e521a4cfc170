"""Supports of structured events, as ``torch.distributions`` constraints."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from structlv.distributions.tree_events import is_binary_tree, rows_of, without_padding

__all__ = ["ConstituencyTree", "StateSequence", "StateSequences"]


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


class StateSequences(Constraint):
    """Sequences of ``length`` states for each of m chains, shape (*, m, n), of chain i in 0..``sizes[i]``-1;
    past its end a sequence holds anything.

    Args:
        sizes: the numbers of states of the chains.
        length: n.
        lengths: (*b) int64, the number of steps of each item; None where every item has n.
    """

    is_discrete = True
    event_dim = 2

    def __init__(self, sizes: tuple[int, ...], length: int, lengths: Tensor | None = None) -> None:
        self.sizes, self.length, self.lengths = sizes, length, lengths
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(*) bool, for events (*, m, n)."""
        shape = (len(self.sizes), self.length)
        if value.dim() < 2 or value.shape[-2:] != shape:
            raise ValueError(
                f"events must have shape (*, m, n) with last dimensions {shape}, found {tuple(value.shape)}"
            )
        chains = zip(self.sizes, value.unbind(-2), strict=True)
        legal = [StateSequence(k, self.length, self.lengths).check(states) for k, states in chains]
        return torch.stack(legal).all(0)

    def __repr__(self) -> str:
        return f"StateSequences(sizes={self.sizes}, length={self.length})"


class ConstituencyTree(Constraint):
    """Binary trees over n = ``length`` words as rows (i, j, symbol) in pre-order, shape (*, 2n - 1, 3); past
    its last row a tree holds anything.

    Args:
        length: n.
        inner: the symbols of constituents of several words.
        leaves: the symbols of words.
        lengths: (*b) int64, the number of words of each item; None where every item has n.
        minimum: the least number of words that has a tree.
    """

    is_discrete = True
    event_dim = 2

    def __init__(
        self, length: int, inner: range, leaves: range, lengths: Tensor | None = None, minimum: int = 2
    ) -> None:
        self.length, self.inner, self.leaves = length, inner, leaves
        self.lengths, self.minimum = lengths, minimum
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(*) bool, for events (*, 2 length - 1, 3)."""
        rows = rows_of(self.length)
        if value.dim() < 2 or value.shape[-2:] != (rows, 3):
            raise ValueError(f"events must have shape (*, {rows}, 3), found {tuple(value.shape)}")
        lengths = torch.as_tensor(self.length if self.lengths is None else self.lengths, device=value.device)
        i, j, symbol = without_padding(value, lengths).unbind(-1)
        legal = torch.where(i < j, _among(symbol, self.inner), _among(symbol, self.leaves)) | (i == -1)
        return legal.all(-1) & is_binary_tree(value, lengths) & (lengths >= self.minimum)

    def __repr__(self) -> str:
        return f"ConstituencyTree(length={self.length}, inner={self.inner}, leaves={self.leaves})"


def _among(symbol: Tensor, symbols: range) -> Tensor:
    return (symbol >= symbols.start) & (symbol < symbols.stop) & (symbol % 1 == 0)
