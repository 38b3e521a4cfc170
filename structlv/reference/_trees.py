"""What the recursions over binary trees share: lengths, charts by width, the way down a tree, events.

A chart is a list by width: entry ``w - 1`` is ``(*b, n - w + 1, q)``, the spans of w words from left to
right. An event is int64 ``(*b, max(2n - 1, 0), 3)``: rows (i, j, symbol) in pre-order, leaves
included, -1 in the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

# (width, slots (*, p)) to the first child's number of words less one and the slots of both children, (*, p)
Choose: TypeAlias = Callable[[int, Tensor], tuple[Tensor, Tensor, Tensor]]


def tree_lengths(like: Tensor, lengths: Tensor | None, least: int) -> Tensor:
    """The lengths of sentences ``like (*b, n, q)``: in 0..n, and 0 if under ``least``, what a tree needs."""
    full = torch.full(like.shape[:-2], like.shape[-2], device=like.device)
    lengths = full if lengths is None else torch.minimum(lengths, full)
    return torch.where(lengths < least, 0, lengths)


def inner_spans(lengths: Tensor, n: int) -> Tensor:
    """``(*b, n, n)``: is i < j < length?"""
    place = torch.arange(n, device=lengths.device)
    return (place[:, None] < place) & (place < lengths[..., None, None])


def of_width(spans: Tensor, width: int) -> Tensor:
    """``(*b, n, n, q)``, by first and last word, to ``(*b, n - width + 1, q)``."""
    return spans.diagonal(width - 1, -3, -2).movedim(-1, -2)


def by_ends(chart: list[Tensor], empty: float) -> Tensor:
    """A chart as ``(*b, n, n, q)``, by first and last word; ``empty`` unless first < last."""
    n = len(chart)
    square = torch.stack([shifted(x, 0, n, empty) for x in chart], -3)  # width - 1, first word
    place = torch.arange(n, device=square.device)
    first, more = torch.broadcast_tensors(place[:, None], place - place[:, None])
    return torch.where((more > 0)[..., None], square[..., more.clamp(min=0), first, :], empty)


def shifted(x: Tensor, start: int, size: int, empty: float) -> Tensor:
    """``x (*b, p, q)`` as positions ``start`` to ``start + p`` of ``(*b, size, q)``; ``empty`` elsewhere."""
    return torch.nn.functional.pad(x, (0, 0, start, size - start - x.shape[-2]), value=empty)


def splits(chart: Sequence[Tensor], width: int) -> list[tuple[Tensor, Tensor]]:
    """Left and right children of the spans of a width, for each split: views ``(*b, n - width + 1, q)``."""
    spans = chart[0].shape[-2] - width + 1
    return [
        (chart[k][..., :spans, :], chart[width - 2 - k][..., k + 1 : k + 1 + spans, :])
        for k in range(width - 1)
    ]


def children(chart: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Left and right children of the spans of a width, by split: ``(*b, n - width + 1, width - 1, q)``."""
    left, right = zip(*splits(chart, width), strict=True)
    return torch.stack(left, -2), torch.stack(right, -2)


def whole(chart: list[Tensor], lengths: Tensor) -> Tensor:
    """The entry of every sentence's own span, ``(*b, q)``; of a sentence without one, its first word's."""
    tops = torch.stack([x[..., 0, :] for x in chart], -2)
    index = (lengths - 1).clamp(min=0)[..., None, None].expand(*lengths.shape, 1, tops.shape[-1])
    return tops.gather(-2, index).squeeze(-2)


def descend(top: Tensor, lengths: Tensor, n: int, choose: Choose) -> Tensor:
    """The tree under each sentence's ``top (*s, *b)``: the slots of its spans, ``(*s, *b, n * n)``, else -1.

    A slot is what ``choose`` knows a node by: a symbol, perhaps with a rank. A top of -1 has no tree.
    """
    nowhere = n * n  # one place more, which keeps -1
    at = torch.where((top >= 0) & (lengths > 0), lengths - 1, nowhere)[..., None]
    slots = top.new_full((*top.shape, nowhere + 1), -1)
    slots = slots.scatter(-1, at, torch.where(at < nowhere, top[..., None], -1))
    for width in range(n, 1, -1):
        first = torch.arange(n - width + 1, device=top.device)
        last = first + width - 1
        node = slots[..., first * n + last]
        split, left, right = choose(width, node.clamp(min=0))
        middle = first + split
        for slot, place in ((left, first * n + middle), (right, (middle + 1) * n + last)):
            place = torch.where(node >= 0, place, nowhere)
            slots = slots.scatter(-1, place, torch.where(node >= 0, slot, -1))
    return slots[..., :nowhere]


def events(symbols: Tensor, n: int) -> Tensor:
    """The event of trees given by the symbols of their spans, ``(*, n * n)`` with -1 where there is none."""
    place = torch.arange(n, device=symbols.device)
    first, last = place.repeat_interleave(n), place.flip(0).repeat(n)  # a span before those within it
    rows = symbols[..., first * n + last]
    order = (rows < 0).to(torch.uint8).argsort(dim=-1, stable=True)[..., : max(2 * n - 1, 0)]
    symbol = rows.gather(-1, order)
    return torch.where((symbol >= 0)[..., None], torch.stack([first[order], last[order], symbol], -1), -1)


def no_trees(shape: tuple[int, ...], n: int, device: torch.device) -> Tensor:
    """Events of sentences that have no tree, ``(*shape, max(2n - 1, 0), 3)`` of -1."""
    return torch.full((*shape, max(2 * n - 1, 0), 3), -1, device=device)


def links(event: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(inner, left, right, proper)``: which rows ``(*s, *b, m)`` have children, the row numbers of these,
    and ``(*s, *b)`` whether the rows are a binary tree over the sentence in pre-order.

    A row's first child is the next row; over w words it takes 2w - 1 rows, and after them comes the second.
    """
    rows = torch.arange(event.shape[-2], device=event.device)
    used = rows < 2 * lengths[..., None] - 1
    first, last = (torch.where(used, x, 0) for x in event[..., :2].unbind(-1))
    inner, end = used & (first < last), event.shape[-2] - 1
    left = (rows + 1).clamp(max=end).expand(inner.shape)
    middle = last.gather(-1, left)
    right = (rows + 2 * (middle - first + 1)).clamp(min=0, max=end)
    split = (first.gather(-1, left) == first) & (first <= middle) & (middle < last)
    split = split & (first.gather(-1, right) == middle + 1) & (last.gather(-1, right) == last)
    good = torch.where(inner, split, (first == last) | ~used)
    top = (first[..., 0] == 0) & (last[..., 0] == lengths - 1)
    return inner, left, right, good.all(-1) & top & (lengths > 0)
