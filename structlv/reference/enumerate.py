"""Brute force over every structure: slow, obviously right, and sharing no code with the recursions.

An item of a chain has ``unary (l, k)``, ``transition (k, k)`` or ``(>= l-1, k, k)``, ``initial (k)`` and
``final (k)``; one of a PCFG ``root (NT)``, ``rules (NT, S, S)``, ``unary (l, T)``, ``spans (l, l, NT or 1)``.
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


def brackets(first: int, last: int) -> list[list[tuple[int, int, int]]]:
    """All binary trees over words first..last: rows (i, j, last word of the left child) in pre-order."""
    if first == last:
        return [[(first, last, -1)]]
    return [
        [(first, last, middle), *left, *right]
        for middle in range(first, last)
        for left in brackets(first, middle)
        for right in brackets(middle + 1, last)
    ]


def labelled(rows: list[tuple[int, int, int]], nonterminals: int, preterminals: int) -> Tensor:
    """All ways to give each row of a tree a symbol, ``(count, rows)``."""
    above, below = range(nonterminals), range(nonterminals, nonterminals + preterminals)
    return torch.tensor(list(itertools.product(*[above if i < j else below for i, j, _ in rows])))


def trees(length: int, nonterminals: int, preterminals: int) -> Tensor:
    """All labelled trees of a sentence, ``(count, max(2 l - 1, 0), 3)`` rows (i, j, symbol) in pre-order."""
    found = [torch.zeros(0, max(2 * length - 1, 0), 3, dtype=torch.long)]
    for rows in brackets(0, length - 1) if length > 1 else []:
        symbols = labelled(rows, nonterminals, preterminals)
        ends = torch.tensor([row[:2] for row in rows]).expand(len(symbols), -1, -1)
        found.append(torch.cat([ends, symbols[..., None]], -1))
    return torch.cat(found)


def tree_scores(root: Tensor, rules: Tensor, unary: Tensor, spans: Tensor | None) -> Tensor:
    """The score of each of :func:`trees`, float64, added up row by row."""
    (length, preterminals), nonterminals = unary.shape, len(root)
    found = [unary.new_zeros(0, dtype=torch.float64)]
    for rows in brackets(0, length - 1) if length > 1 else []:
        symbols = labelled(rows, nonterminals, preterminals)
        total = root[symbols[:, 0]].double()
        for at, (i, j, middle) in enumerate(rows):
            symbol = symbols[:, at]
            if i == j:
                total = total + unary[i, symbol - nonterminals].double()
                continue
            right = next(r for r in range(at, len(rows)) if rows[r][:2] == (middle + 1, j))
            total = total + rules[symbol, symbols[:, at + 1], symbols[:, right]].double()
            if spans is not None:
                total = total + spans[i, j].expand(nonterminals)[symbol].double()
        found.append(total)
    return torch.cat(found)


def tree_items(
    root: Tensor, rules: Tensor, unary: Tensor, spans: Tensor | None = None, lengths: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """``(trees, scores)`` of every item of the flattened batch, each cut to its own length."""
    batch, (n, preterminals) = unary.shape[:-2], unary.shape[-2:]
    sizes = [n] * batch.numel() if lengths is None else lengths.clamp(0, n).flatten().tolist()

    def item(x: Tensor, core: int, b: int) -> Tensor:
        tail = x.shape[x.dim() - core :]
        return x.expand(*batch, *tail).reshape(batch.numel(), *tail)[b]

    items = []
    for b, size in enumerate(sizes):
        between = None if spans is None else item(spans, 3, b)
        scores = tree_scores(item(root, 1, b), item(rules, 3, b), item(unary, 2, b)[:size], between)
        items.append((trees(size, root.shape[-1], preterminals), scores))
    return items
