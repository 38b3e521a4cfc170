"""Brute force over every structure: slow, obviously right, and sharing no code with the recursions.

An item of a chain has ``unary (l, k)``, ``transition (k, k)`` or ``(>= l-1, k, k)``, ``initial (k)`` and
``final (k)``; one of a factorial chain ``unary (l, S)``, ``transition (P)``, ``initial (Q)``; one of a PCFG
``root (NT)``, ``rules (NT, S, S)``, ``unary (l, T)``, ``spans (l, l, NT or 1)``.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

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


def joint_states(sizes: tuple[int, ...]) -> Tensor:
    """The states of the m chains in each joint state, ``(S, m)``, in lexicographic order."""
    return torch.tensor(list(itertools.product(*[range(k) for k in sizes])))


def factorial_scores(
    unary: Tensor, transition: Tensor, initial: Tensor | None, sizes: tuple[int, ...]
) -> Tensor:
    """The score of each of :func:`paths` of joint states, ``(S ** l)`` float64, added up part by part."""
    found, chains = paths(*unary.shape), joint_states(sizes)
    total = unary.new_zeros(len(found), dtype=torch.float64)
    for t in range(found.shape[-1]):
        total = total + unary[t, found[:, t]].double()
    first_edge = first_state = 0
    for i, k in enumerate(sizes):
        matrix = transition[first_edge : first_edge + k * k].double().view(k, k)
        states = chains[found, i]  # (S ** l, l)
        for t in range(found.shape[-1] - 1):
            total = total + matrix[states[:, t], states[:, t + 1]]
        if found.shape[-1] and initial is not None:
            total = total + initial[first_state : first_state + k].double()[states[:, 0]]
        first_edge, first_state = first_edge + k * k, first_state + k
    return total


def factorial_items(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
) -> list[tuple[Tensor, Tensor]]:
    """``(paths of joint states, scores)`` of every item of the flattened batch, cut to its own length."""
    batch, (n, joint) = unary.shape[:-2], unary.shape[-2:]
    count = batch.numel()
    flat = unary.reshape(count, n, joint)
    matrices = transition.expand(*batch, -1).reshape(count, transition.shape[-1])
    firsts = None if initial is None else initial.expand(*batch, -1).reshape(count, initial.shape[-1])
    cuts = [n] * count if lengths is None else lengths.clamp(0, n).flatten().tolist()
    items = []
    for b, size in enumerate(cuts):
        first = None if firsts is None else firsts[b]
        items.append((paths(size, joint), factorial_scores(flat[b, :size], matrices[b], first, sizes)))
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


Derivation: TypeAlias = tuple[list[tuple[int, int, int]], list[int]]  # rows in pre-order, rules by number


def derivations(rules: list[list[int]], nonterminals: int, i: int, j: int, symbol: int) -> list[Derivation]:
    """All trees of a symbol over words i..j by binary rules (A, y, z) and unary rules (A, y, -1)."""
    if symbol >= nonterminals:
        return [([(i, j, symbol)], [])] if i == j else []
    found = []
    for number, (parent, y, z) in enumerate(rules):
        splits = [] if parent != symbol else [(j, None)] if z < 0 else [(k, z) for k in range(i, j)]
        for k, right in splits:
            rest: list[Derivation] = [([], [])]
            if right is not None:
                rest = derivations(rules, nonterminals, k + 1, j, right)
            for rows, used in derivations(rules, nonterminals, i, k, y) if rest else []:
                for more, other in rest:
                    found.append(([(i, j, symbol), *rows, *more], [number, *used, *other]))
    return found


def sparse_items(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> list[tuple[list[Derivation], Tensor]]:
    """The trees of every item of the flattened batch, and their scores, float64, added up part by part."""
    batch, n, nonterminals = unary.shape[:-2], unary.shape[-2], root.shape[-1]
    sizes = [n] * batch.numel() if lengths is None else lengths.clamp(0, n).flatten().tolist()

    def item(x: Tensor, core: int, b: int) -> Tensor:
        tail = x.shape[x.dim() - core :]
        return x.expand(*batch, *tail).reshape(batch.numel(), *tail)[b].double()

    items = []
    for b, size in enumerate(sizes):
        tops = range(nonterminals if size else 0)
        trees = [tree for a in tops for tree in derivations(index.tolist(), nonterminals, 0, size - 1, a)]
        between = None if spans is None else item(spans, 3, b)
        tables = item(root, 1, b), item(scores, 1, b), item(unary, 2, b), between
        rows = [_derivation_score(tree, *tables) for tree in trees]
        items.append((trees, torch.stack(rows) if rows else torch.zeros(0, dtype=torch.float64)))
    return items


def _derivation_score(
    tree: Derivation, root: Tensor, scores: Tensor, unary: Tensor, spans: Tensor | None
) -> Tensor:
    rows, used = tree
    total, nonterminals = root[rows[0][2]], len(root)
    for rule in used:
        total = total + scores[rule]
    for at, (i, j, symbol) in enumerate(rows):
        if symbol >= nonterminals:
            total = total + unary[i, symbol - nonterminals]
        elif i < j and spans is not None:
            if spans.shape[-1] > 1:
                total = total + spans[i, j, symbol]
            elif at == 0 or rows[at - 1][:2] != (i, j):  # once for a constituent
                total = total + spans[i, j, 0]
    return total
