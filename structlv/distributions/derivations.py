"""Sentences and their trees from the top down, given that they are not longer than a maximum.

Let p(A, w) be the probability that symbol A derives w words. It is 1 for a preterminal and w = 1, and sums
over the splits of w. A length is drawn first, then the symbol at the top, then at every node the split and
both children in proportion to the probability of all that is below them: nothing is ever thrown away.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Size, Tensor

from structlv.distributions.tree_events import rows_of
from structlv.reference import philox, semiring

_NODE, _TOP = 1, 2  # streams of Philox


class Derivations(Protocol):
    """What deriving sentences of up to ``max_length`` words needs to know of a grammar's rules."""

    max_length: int

    def tops(self) -> Tensor:
        """(*b, max_length + 1, NT): the probability that a sentence has w words and symbol A at its top."""

    def children(self, item: Tensor, symbol: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """The words of the left child and both children's symbols, (N) each, of nodes (N) by uniforms (N, 4).

        ``item`` is a place in the flattened batch.
        """


class DenseDerivations:
    """``Derivations`` of dense rules. O(max_length NT S (S + max_length)) time.

    Args:
        root: (*b, NT) log-probabilities, with the whole batch shape.
        rules: (*b, NT, S, S) log-probabilities; batch dimensions broadcast.
        max_length: the most words.
    """

    def __init__(self, root: Tensor, rules: Tensor, max_length: int) -> None:
        self.max_length = max_length
        batch = root.shape[:-1]
        shared = rules.shape[:-3]
        count = torch.arange(shared.numel(), device=root.device).reshape(shared)
        self._grammar = count.expand(batch).flatten()  # of each item
        self._root = semiring.softmax(root.double(), -1)
        self._rules = semiring.softmax(rules.double().flatten(-2), -1).unflatten(-1, rules.shape[-2:])
        self._rules = self._rules.reshape(-1, *rules.shape[-3:])  # (g, NT, S, S)
        self._below, self._right, self._splits = self._tables()

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """p(A, w) (g, w, S); sum_z rules[A, y, z] p(z, w) (g, w, NT, S); weights of splits (g, w, k, NT)."""
        g, nonterminals, symbols, _ = self._rules.shape
        size = self.max_length + 1
        below = self._rules.new_zeros(g, size, symbols)
        right = self._rules.new_zeros(g, size, nonterminals, symbols)
        splits = self._rules.new_zeros(g, size, size, nonterminals)
        below[:, 1:2, nonterminals:] = 1.0
        for width in range(1, size):
            if width > 1:
                left, other = below[:, 1:width], right[:, 1:width].flip(1)
                splits[:, width, 1:width] = (other @ left.unsqueeze(-1)).squeeze(-1)
                below[:, width, :nonterminals] = splits[:, width].sum(1)
            right[:, width] = (self._rules @ below[:, width, None, :, None]).squeeze(-1)
        return below, right, splits

    def tops(self) -> Tensor:
        nonterminals = self._root.shape[-1]
        below = self._below[self._grammar, :, :nonterminals]
        below = below.reshape(*self._root.shape[:-1], *below.shape[1:])
        return self._root.unsqueeze(-2) * below

    def children(self, item: Tensor, symbol: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        g = self._grammar[item]
        split = _choice(self._splits[g, width, :, symbol], u[:, 0])
        rest = width - split
        left = _choice(self._right[g, rest, symbol] * self._below[g, split], u[:, 1])
        right = _choice(self._rules[g, symbol, left] * self._below[g, rest], u[:, 2])
        return split, left, right


def derive(derivations: Derivations, batch: Size, num_samples: int, seed: int) -> Tensor:
    """Trees (num_samples, B, 2 max_length - 1, 3) for the B items of the flattened batch, padded with -1.

    All nodes of one depth are drawn together. A draw is a function of (seed, item, sample, span) alone: the
    streams and places of ``structlv.ops.pcfg.sample``, the length by the second word of the top's.
    """
    n, items = derivations.max_length, batch.numel()
    tops = derivations.tops()
    tops = tops.reshape(items, *tops.shape[-2:])
    item = torch.arange(items, device=tops.device).repeat(num_samples)
    sample = torch.arange(num_samples, device=tops.device).repeat_interleave(items)
    place = torch.zeros_like(item)
    u = _uniforms(seed, place, item, sample, _TOP)
    width = _choice(tops.sum(-1)[item], u[:, 1])
    symbol = _choice(tops[item, width], u[:, 0])
    event = torch.full((len(item), rows_of(n), 3), -1, device=tops.device)
    draw = torch.arange(len(item), device=tops.device)
    nodes = torch.stack([draw, place, place, width - 1, symbol])[:, width > 0]  # draw, row, i, j, symbol
    while nodes.shape[-1]:
        draw, row, i, j, symbol = nodes
        event[draw, row] = nodes[2:].mT
        draw, row, i, j, symbol = nodes[:, i < j]
        u = _uniforms(seed, j * (j + 1) // 2 + i, item[draw], sample[draw], _NODE)
        split, left, right = derivations.children(item[draw], symbol, j - i + 1, u)
        first = torch.stack([draw, row + 1, i, i + split - 1, left])
        second = torch.stack([draw, row + 2 * split, i + split, j, right])
        nodes = torch.cat([first, second], -1)
    return event.reshape(num_samples, items, *event.shape[1:])


def _uniforms(seed: int, place: Tensor, item: Tensor, sample: Tensor, stream: int) -> Tensor:
    """Float64 uniforms (N, 4) in [0, 1) of Philox at counters (place, item, sample, stream)."""
    counter = (place, item, sample, torch.full_like(place, stream))
    return philox.philox(counter, (seed & 0xFFFFFFFF, seed >> 32)).double() * 2.0**-32


def _choice(weights: Tensor, u: Tensor) -> Tensor:
    """The first index (N) whose cumulative weight (N, q) exceeds u times the total; 0 without weight."""
    cumulative = weights.cumsum(-1)
    return (cumulative > u.unsqueeze(-1) * cumulative[:, -1:]).to(torch.uint8).argmax(-1)
