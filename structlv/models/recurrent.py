"""What recurrent networks of several models share: lengths, masks, a bidirectional encoder of words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run_lstm(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor, *, padding: float = 0.0) -> Tensor:
    """The states (b, n, d) of a batch-first LSTM over right-padded inputs (b, n, e), ``padding`` past the
    end.

    The direction from the right starts at each sequence's own end, so that padding changes nothing.
    """
    packed = pack_padded_sequence(inputs, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(
        lstm(packed)[0], batch_first=True, padding_value=padding, total_length=inputs.shape[1]
    )
    return states


def inside(lengths: Tensor, n: int) -> Tensor:
    """(*b, n) bool: the positions before the end."""
    return torch.arange(n, device=lengths.device) < lengths.unsqueeze(-1)


def all_lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``lengths``, or of every sequence of x (b, n, ...) all of it."""
    return torch.full(x.shape[:1], x.shape[1], device=x.device) if lengths is None else lengths


class WordEncoder(nn.Module):
    """Embeddings of words, read in both directions: x (b, n) and lengths (b) to (b, n, ``dim``).

    Args: `vocab_size` V; `dim`, even, of embeddings and of states (half of it in each direction).
    """

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be even and at least 2 (half for each direction), found {dim}")
        self.embedding = nn.Embedding(vocab_size, dim)
        self.lstm = nn.LSTM(dim, dim // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return run_lstm(self.lstm, self.embedding(x), lengths)
