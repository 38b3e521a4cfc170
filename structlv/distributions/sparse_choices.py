"""Trees of listed rules as a series of choices: the symbol at the top; of every node its rule and split."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from structlv.distributions.traces import Choices, Trace, log_softmax, require_memory
from structlv.distributions.tree_parts import TreeParts
from structlv.distributions.validation import is_eager
from structlv.reference.sparse_pcfg import inside_scores

if TYPE_CHECKING:
    from structlv.distributions.sparse_trees import SparseTreePosterior


class RuleLists(NamedTuple):
    """The rules of each nonterminal, padded with r: the number of a rule that is none."""

    symbols: Tensor  # (r + 1, 3), those of each rule
    binary: Tensor  # (NT, R), R >= 1
    unary: Tensor  # (NT, U)
    column: Tensor  # (r + 1), where in its row a rule is

    @classmethod
    def of(cls, index: Tensor, nonterminals: int) -> RuleLists:
        r, lists = len(index), []
        column = index.new_zeros(r + 1)
        for rows, least in ((index[:, 2] >= 0, 1), (index[:, 2] < 0, 0)):
            rule = rows.nonzero().squeeze(-1)
            parent, order = index[rule, 0].sort(stable=True)
            rule, counts = rule[order], parent.bincount(minlength=nonterminals)
            column[rule] = torch.arange(len(rule), device=index.device) - (counts.cumsum(0) - counts)[parent]
            table = index.new_full((nonterminals, max(int(counts.max()), least)), r)
            table[parent, column[rule]] = rule
            lists.append(table)
        return cls(torch.nn.functional.pad(index, (0, 0, 0, 1)), lists[0], lists[1], column)


class Nodes(NamedTuple):
    """Nodes that rules were chosen for, in pre-order: (s, *b, m) all, 0 behind the last one of a tree."""

    used: Tensor
    i: Tensor
    j: Tensor
    symbol: Tensor
    middle: Tensor  # the last word of the first child
    rule: Tensor

    @classmethod
    def of(cls, event: Tensor, rules: Tensor, nonterminals: int) -> Nodes:
        """Those of ``event (s, *b, rows, 3)`` with the rules (s, *b, rows)."""
        inner = (event[..., 0] >= 0) & (event[..., 2] < nonterminals)
        order = inner.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        if is_eager(event):  # m is as small as it can be
            order = order[..., : max([1, *inner.sum(-1).flatten().tolist()])]
        columns = (inner, *event.unbind(-1), event[..., 1].roll(-1, -1), rules)
        used, *rest = (x.gather(-1, order) for x in columns)
        return cls(used, *(torch.where(used, x, 0) for x in rest))


class Alternatives:
    """The ways to build each node: q rows of unary rules, then a row of binary rules for each split.

    With R the most binary rules that a nonterminal has, U the most unary ones: (q + K, R), K = max(n - 1, 1)
    and q = U / R rounded up. A split is the number of words of the left child, less one.
    """

    def __init__(self, p: SparseTreePosterior, event: Tensor) -> None:
        self.p, self.n = p, p.unary.shape[-2]
        self.lists = RuleLists.of(p.index, p.num_nonterminals)
        self.nodes = nodes = Nodes.of(event, p._rules_used(event), p.num_nonterminals)
        used, none = nodes.used.unsqueeze(-1), len(p.index)
        self.single = torch.where(used, self.lists.unary[nodes.symbol], none)  # (s, *b, m, U) rules
        self.double = torch.where(used, self.lists.binary[nodes.symbol], none)  # (s, *b, m, R)
        self.child = self.lists.symbols[self.single, 1]
        self.left, self.right = self.lists.symbols[self.double][..., 1:].unbind(-1)
        self.middle = nodes.i.unsqueeze(-1) + torch.arange(max(self.n - 1, 1), device=event.device)
        self.fits = used & (self.middle < nodes.j.unsqueeze(-1))  # (s, *b, m, K)
        self.above = -(-self.single.shape[-1] // self.double.shape[-1])  # q

    def table(self) -> tuple[int, ...]:
        """The shape of ``logits``."""
        rows = self.above + self.middle.shape[-1]
        return (*self.nodes.i.shape, rows, self.double.shape[-1])

    def tops(self, chart: Tensor) -> Tensor:
        """(*b, NT) of the symbol at the top; from what ``logits`` are from."""
        p, last = self.p, torch.full(self.p.batch_shape, self.n - 1, device=chart.device)
        last = last if p.lengths is None else p.lengths - 1
        some = (last >= 0).unsqueeze(-1)
        place = self.cell(torch.zeros_like(last), last, last >= 0)[..., None, None]
        whole = chart.gather(-2, place.expand(*last.shape, 1, chart.shape[-1])).squeeze(-2)
        return torch.where(some, p.root, 0.0) + whole[..., : p.num_nonterminals]

    def logits(self, chart: Tensor) -> Tensor:
        """(s, *b, m, q + K, R) from inside scores (*b, cells, S), -inf in the last cell, which is no span."""
        nodes = self.nodes
        i, j = nodes.i.unsqueeze(-1), nodes.j.unsqueeze(-1)
        size, chart = chart.shape[-1], chart.flatten(-2)
        scores = self.padded(self.p.scores.to(chart.dtype), -torch.inf)
        first = size * self.cell(i, self.middle, self.fits).unsqueeze(-1) + self.left.unsqueeze(-2)
        second = size * self.cell(self.middle + 1, j, self.fits).unsqueeze(-1) + self.right.unsqueeze(-2)
        pairs = look(chart, first) + look(chart, second) + look(scores, self.double).unsqueeze(-2)
        if self.p.spans is not None and self.p.spans.shape[-1] == 1:  # of a constituent: where it splits
            spans = self.padded(self.p.spans.to(chart.dtype).flatten(-3), 0.0)
            pairs = pairs + look(spans, self.span(nodes.i, nodes.j, nodes.used))[..., None, None]
        below = size * self.cell(i, j, nodes.used.unsqueeze(-1)) + self.child
        single = look(chart, below) + look(scores, self.single)
        rest = self.above * pairs.shape[-1] - single.shape[-1]
        single = torch.nn.functional.pad(single, (0, rest), value=-torch.inf)
        return torch.cat([single.unflatten(-1, (self.above, pairs.shape[-1])), pairs], -2)

    def padded(self, table: Tensor, value: float) -> Tensor:
        """``table (*b, q)`` in full, and one entry more."""
        table = torch.nn.functional.pad(table, (0, 1), value=value)
        return table.expand(*self.p.batch_shape, table.shape[-1])

    def chosen(self) -> Tensor:
        """(s, *b, m)."""
        nodes, unary = self.nodes, self.lists.symbols[self.nodes.rule, 2] < 0
        row = torch.where(unary, 0, self.above + nodes.middle - nodes.i)
        place = row * self.double.shape[-1] + self.lists.column[nodes.rule]
        return torch.where(nodes.used, place, -1)

    def parts(self, weights: list[Tensor]) -> TreeParts:
        """Of weights (*, s, *b, 1, NT) of the symbol at the top and (*, s, *b, m, q + K, R) of nodes."""
        n, below, labels = self.n, self.p.num_preterminals, self.p._span_labels
        i, j, used = (x.unsqueeze(-1) for x in (self.nodes.i, self.nodes.j, self.nodes.used))
        top, single, pairs = weights[0], weights[1][..., : self.above, :], weights[1][..., self.above :, :]
        single = single.flatten(-2)[..., : self.child.shape[-1]]
        ends = (j - i - 1).clamp(min=0).unsqueeze(-1).expand(*pairs.shape[:-2], 1, pairs.shape[-1])
        rules = self.counts(len(self.p.index), (self.single, single), (self.double, pairs.sum(-2)))
        words = self.counts(
            n * below,
            (self.word(i, self.child, used & (i == j)), single),
            (self.word(i, self.left, i < j), pairs[..., 0, :]),
            (self.word(j, self.right, i < j), pairs.gather(-2, ends).squeeze(-2)),
        )
        whole = self.span(torch.zeros_like(i), j, used)[..., 0, :]
        left, right = self.span(i, self.middle, self.fits), self.span(self.middle + 1, j, self.fits)
        if labels == 1:  # a constituent counts where its topmost symbol comes from
            mass = pairs.sum(-1)
            spans = self.counts(n * n, (whole, top.sum(-1)), (left, mass), (right, mass))
        else:
            symbols = torch.arange(labels, device=i.device)
            spans = self.counts(
                n * n * labels,
                (self.symbol(whole.unsqueeze(-1), symbols), top),
                (self.symbol(left.unsqueeze(-1), self.left.unsqueeze(-2)), pairs),
                (self.symbol(right.unsqueeze(-1), self.right.unsqueeze(-2)), pairs),
                (self.symbol(self.span(i, j, used), self.child), single),
            )
        words, spans = words.unflatten(-1, (n, below)), spans.unflatten(-1, (n, n, labels))
        return TreeParts(*(x.to(self.p._dtype) for x in (top.squeeze(-2), rules, words, spans)))

    def counts(self, size: int, *pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Sums (*, s, *b, size) of weights (*, s, *b, *w) by place (s, *b, *w), where ``size`` is nowhere."""
        lead = self.nodes.i.dim() - 1
        total = pairs[0][1].new_zeros(())
        for place, weight in pairs:
            flat = weight.flatten(lead - place.dim())
            empty = flat.new_zeros(*flat.shape[:-1], size + 1)
            total = total + empty.scatter_add(-1, place.flatten(lead).expand(flat.shape), flat)
        return total[..., :size]

    def cell(self, i: Tensor, j: Tensor, exists: Tensor) -> Tensor:
        """The place of the words i..j in the chart."""
        width = j - i
        place = width * (2 * self.n - width + 1) // 2 + i
        return torch.where(exists, place, self.n * (self.n + 1) // 2)

    def span(self, i: Tensor, j: Tensor, exists: Tensor) -> Tensor:
        """The place of the words i..j, i < j, among (n, n)."""
        return torch.where(exists & (i < j), i * self.n + j, self.n * self.n)

    def symbol(self, span: Tensor, symbol: Tensor) -> Tensor:
        """The place of a nonterminal over a span, among (n, n, NT)."""
        size, labels = self.n * self.n, self.p.num_nonterminals
        return torch.where((span < size) & (symbol < labels), span * labels + symbol, size * labels)

    def word(self, i: Tensor, symbol: Tensor, exists: Tensor) -> Tensor:
        """The place of a preterminal over the word i, among (n, T)."""
        above, below = self.p.num_nonterminals, self.p.num_preterminals
        return torch.where(exists & (symbol >= above), i * below + symbol - above, self.n * below)


def look(table: Tensor, place: Tensor) -> Tensor:
    """What ``table (*b, q)`` has at each ``place (s, *b, *w)``; it is not copied for each s."""
    batch = table.dim() - 1
    behind = place.movedim(0, batch)
    return table.gather(-1, behind.flatten(batch)).reshape(behind.shape).movedim(batch, 0)


def sparse_trace(p: SparseTreePosterior, event: Tensor) -> Trace:
    """The trace of trees ``event (s, *b, rows, 3)`` of p, its parts those of ``p.marginals()``."""
    event = torch.nn.functional.pad(event, (0, 0, 0, 1), value=-1)  # sentences of no words have a row too
    ways = Alternatives(p, event)
    require_memory(ways.table(), 8)
    chart = torch.nn.functional.pad(inside_scores(*p._args), (0, 0, 0, 1), value=-torch.inf)
    top = torch.where(ways.nodes.used[..., :1], event[..., :1, 2], -1)
    choices = [
        Choices(log_softmax(ways.tops(chart)).unsqueeze(-2).expand(*top.shape, -1), top),
        Choices(log_softmax(ways.logits(chart), 2), ways.chosen(), 2),
    ]
    return Trace(choices, ways.parts)
