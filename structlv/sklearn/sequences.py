"""Rows of a matrix as sequences: what scikit-learn's users have, and what structlv takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Array = NDArray[Any]
CHUNK = 1 << 16  # padded rows that are looked at together


def checked_lengths(rows: int, lengths: Any) -> list[int]:
    """Of each sequence, in order; None: all rows are one. Raises ValueError where they do not fit."""
    if lengths is None:
        return [rows]
    given = np.asarray(lengths)
    if (
        given.ndim != 1
        or not np.issubdtype(given.dtype, np.integer)
        or (given < 1).any()
        or given.sum() != rows
    ):
        raise ValueError(f"lengths must be positive integers that sum to {rows} samples, found {lengths!r}")
    return given.tolist()


def batches(rows: Tensor, lengths: list[int], most: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """Right-padded sequences (b, n, ...) in their order, and their lengths (b)."""
    pieces = rows.split(lengths)
    begin = 0
    for i in range(1, len(pieces) + 1):
        longest = max(lengths[begin : i + 1]) if i < len(pieces) else 0
        if i == len(pieces) or longest * (i + 1 - begin) > most:
            yield pad_sequence(list(pieces[begin:i]), batch_first=True), torch.tensor(lengths[begin:i])
            begin = i


def joined(padded: Tensor, lengths: Tensor) -> Tensor:
    """The rows of right-padded sequences (b, n, ...), one after the other."""
    return padded[torch.arange(padded.shape[1]) < lengths.unsqueeze(-1)]


def log(probabilities: Any) -> Tensor:
    """Float64, -inf where the probability is 0."""
    return torch.as_tensor(np.array(probabilities, dtype=np.float64)).log()
