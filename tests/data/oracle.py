"""The inside recursion over a Grammar's arrays, as short as it can be: an oracle for small cases."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from structlv.data import Grammar


def inside(grammar: Grammar, unary: Tensor) -> float:
    """log Z of the words with scores (n, T), in plain probabilities; unary rules have no cycle."""
    index, weights = grammar.index.numpy(), np.exp(grammar.scores.numpy())
    chains, pairs = index[:, 2] < 0, index[:, 2] >= 0
    left, right, pair_weights = index[pairs, 1], index[pairs, 2], weights[pairs]
    starts = np.flatnonzero(np.diff(index[pairs, 0], prepend=-1))  # rules are sorted by parent
    parents = index[pairs, 0][starts]
    n, size = len(unary), len(grammar.symbols)

    def close(cell: np.ndarray) -> np.ndarray:
        total, step = cell.copy(), cell
        while step.any():
            gained = weights[chains] * step[index[chains, 1]]
            step = np.bincount(index[chains, 0], gained, minlength=size)
            total += step
        return total

    chart = np.zeros((n, n, size))
    for i in range(n):
        leaf = np.concatenate([np.zeros(len(grammar.nonterminals)), np.exp(unary[i].numpy())])
        chart[i, i] = close(leaf)
    for width in range(1, n):
        i = np.arange(n - width)
        found = np.zeros((n - width, len(left)))
        for k in range(width):
            found += chart[i, i + k][:, left] * chart[i + k + 1, i + width][:, right]
        cells = np.zeros((n - width, size))
        cells[:, parents] = np.add.reduceat(found * pair_weights, starts, 1)
        chart[i, i + width] = [close(cell) for cell in cells]
    with np.errstate(divide="ignore"):
        root = np.exp(grammar.root.numpy())
        return float(np.log(root @ chart[0, n - 1, : len(root)]))
