"""Trees as rows: what follows from an event (*, m, 3) of rows (i, j, symbol).

Row by row in pre-order: a constituent of the words i..j (inclusive), then all of its first child's rows, then
all of its second child's. A binary tree over n words has 2n - 1 rows, leaves included; -1 pads.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(n: int) -> int:
    """The number of rows of a binary tree over n words."""
    return max(2 * n - 1, 0)


def without_padding(event: Tensor, lengths: Tensor | None) -> Tensor:
    """Events (*s, *b, m, 3) with -1 past the last row of a binary tree over ``lengths`` (*b) words."""
    if lengths is None:
        return event
    rows = torch.arange(event.shape[-2], device=event.device)
    return event.masked_fill((rows >= 2 * lengths.unsqueeze(-1) - 1).unsqueeze(-1), -1)


def children(event: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (*, m) of the first and the second child of every row, -1 where there is none.

    A row with the span of the next one is a unary parent: it has one child. The second child begins where
    the first one ended, and of all constituents that begin there it is the first in pre-order.
    """
    i, j = event[..., 0], event[..., 1]
    m = event.shape[-2]
    rows = torch.arange(m, device=event.device)
    below = (rows + 1).clamp_max(max(m - 1, 0))
    split = j[..., below]
    unary = (i >= 0) & (rows + 1 < m) & (i[..., below] == i) & (split == j)
    binary = (i < j) & ~unary
    # first[p]: the first row that begins at word p
    first = torch.full_like(i, m).scatter_reduce(-1, i.clamp(0, m), rows.expand_as(i), "amin")
    second = first.gather(-1, (split + 1).clamp(0, max(m - 1, 0)))
    return (rows + 1).expand_as(i).masked_fill(~(unary | binary), -1), second.masked_fill(~binary, -1)


def symbols_at(event: Tensor, rows: Tensor) -> Tensor:
    """The symbols (*, m) of the rows ``rows`` (*, m), -1 where ``rows`` is -1."""
    last = max(event.shape[-2] - 1, 0)
    return event[..., 2].gather(-1, rows.clamp(0, last)).masked_fill(rows < 0, -1)


def counted(index: Tensor, size: int) -> Tensor:
    """How often each of 0..size-1 occurs in ``index`` (*, m), as (*, size); -1 counts nowhere."""
    counts = index.new_zeros(*index.shape[:-1], size + 1)
    counts = counts.scatter_add(-1, torch.where(index < 0, size, index), torch.ones_like(index))
    return counts[..., :size]


def to_charts(event: Tensor, n: int, preterminals: int, nonterminals: int) -> tuple[Tensor, Tensor]:
    """How often the n words of events (*, m, 3) have each preterminal (*, n, T), and the spans i < j each
    nonterminal (*, n, n, NT); rows of -1 count nowhere.
    """
    i, j, symbol = event.unbind(-1)
    leaf = torch.where((i == j) & (symbol >= nonterminals), i * preterminals + symbol - nonterminals, -1)
    span = torch.where(i < j, (i * n + j) * nonterminals + symbol, -1)
    leaves = counted(leaf, n * preterminals).unflatten(-1, (n, preterminals))
    return leaves, counted(span, n * n * nonterminals).unflatten(-1, (n, n, nonterminals))


def from_charts(leaves: Tensor, spans: Tensor) -> Tensor:
    """The event (*, 2n - 1, 3) of the constituents in two charts; inverse of what lists them.

    Args:
        leaves: (*, n) the symbol of each word, -1 where there is none.
        spans: (*, n, n) the symbol of each constituent i < j, -1 where there is none; the rest is ignored.
    """
    n = leaves.shape[-1]
    word = torch.arange(n, device=leaves.device)
    chart = torch.where(word.unsqueeze(-1) < word, spans, -1)
    chart = torch.where(word.unsqueeze(-1) == word, leaves.unsqueeze(-1), chart)
    # pre-order: by beginning, the widest first
    symbols = chart.flip(-1).flatten(-2)
    order = (symbols < 0).to(torch.uint8).argsort(dim=-1, stable=True)[..., : rows_of(n)]
    symbol = symbols.gather(-1, order)
    event = torch.stack([order // max(n, 1), n - 1 - order % max(n, 1), symbol], -1)
    return event.masked_fill((symbol < 0).unsqueeze(-1), -1)


def is_binary_tree(event: Tensor, lengths: Tensor | int) -> Tensor:
    """Whether the spans of events (*s, *b, m, 3) are binary trees over ``lengths`` (*b) words, (*s, *b).

    The first row is the whole sentence, and both children of every row are where they must be; then all rows
    are of the tree. Symbols, and rows past the last, are not looked at.
    """
    i, j = event[..., 0], event[..., 1]
    m = event.shape[-2]
    length = torch.as_tensor(lengths, device=event.device)
    if m == 0:
        return torch.zeros_like(length).expand(event.shape[:-2]) == length
    rows = torch.arange(m, device=event.device)
    below = (rows + 1).clamp_max(m - 1)
    split = j[..., below]
    second = (rows + 2 * (split - i + 1)).clamp(0, m - 1)
    first_fits = (i[..., below] == i) & (i <= split) & (split < j)
    second_fits = (i.gather(-1, second) == split + 1) & (j.gather(-1, second) == j)
    unused = rows >= 2 * length.unsqueeze(-1) - 1
    fits = unused | (i == j) | (first_fits & second_fits)
    whole = (i[..., 0] == 0) & (j[..., 0] == length - 1)
    return fits.all(-1) & (whole | (length == 0))
