"""Brute force over every structure: slow, obviously right, and sharing no code with the recursions.

An item has ``unary (l, k)``, ``transition (k, k)`` or ``(>= l-1, k, k)``, ``initial (k)`` and ``final (k)``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def paths(length: int, k: int) -> Tensor:
    """All ``k ** length`` sequences of states, ``(k ** length, length)``, in lexicographic order."""
    rows = list(itertools.product(range(k), repeat=length))
    return torch.tensor(rows, dtype=torch.long).view(len(rows), length)


def chain_scores(unary: Tensor, transition: Tensor, initial: Tensor | None, final: Tensor | None) -> Tensor:
    """The score of each of :func:`paths`, ``(k ** l)`` float64, added up part by part."""
    length, k = unary.shape
    scores = []
    for path in paths(length, k).tolist():
        total = unary.new_zeros((), dtype=torch.float64)
        for t in range(length):
            total = total + unary[t, path[t]].double()
        for t in range(length - 1):
            matrix = transition if transition.dim() == 2 else transition[t]
            total = total + matrix[path[t], path[t + 1]].double()
        if length and initial is not None:
            total = total + initial[path[0]].double()
        if length and final is not None:
            total = total + final[path[-1]].double()
        scores.append(total)
    return torch.stack(scores)


def chain_items(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """``(paths, scores)`` of every item of the flattened batch, each cut to its own length."""
    batch, per_step = unary.shape[:-2], transition.dim() == unary.dim() + 1
    n, k = unary.shape[-2:]
    count = batch.numel()
    flat_unary = unary.reshape(count, n, k)
    matrix_shape = transition.shape[-3:] if per_step else transition.shape[-2:]
    flat_transition = transition.expand(*batch, *matrix_shape).reshape(count, *matrix_shape)
    flat = [None if x is None else x.expand(*batch, k).reshape(count, k) for x in (initial, final)]
    sizes = [n] * count if lengths is None else lengths.clamp(0, n).flatten().tolist()
    items = []
    for b in range(count):
        size = sizes[b]
        ends = [None if x is None else x[b] for x in flat]
        items.append((paths(size, k), chain_scores(flat_unary[b, :size], flat_transition[b], *ends)))
    return items
