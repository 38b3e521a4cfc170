"""What every recursion of the low-rank PCFG starts from: clean potentials, the inside pass, and the way down.

Charts are lists by width (see :mod:`structlv.reference._trees`), over ranks or over nonterminals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from structlv.reference import semiring
from structlv.reference._potentials import Maybe
from structlv.reference._trees import children, inner_spans, of_width, shifted, tree_lengths, whole


class Sentences(NamedTuple):
    """A grammar and its sentences in the dtype of the sums, with zeros where no tree looks."""

    root: Tensor  # (*b, NT)
    head: Maybe  # (*b, NT, r)
    left: Tensor  # (*b, r, S)
    right: Tensor  # (*b, r, S)
    words: Tensor  # (*b, n, T)
    spans: Maybe  # (*b, n, n, NT) or (*b, n, n, 1)
    lengths: Tensor  # (*b): 0 for a sentence without a tree

    def sides(self, width: int) -> tuple[Tensor, Tensor]:
        """Scores of the symbols that children of a width can have, ``(*b, r, T)`` or ``(*b, r, NT)``."""
        nonterminals = self.root.shape[-1]
        cut = slice(nonterminals, None) if width == 1 else slice(0, nonterminals)
        return self.left[..., cut], self.right[..., cut]

    def span(self, width: int) -> Tensor | float:
        """The scores of the spans of a width, ``(*b, n - width + 1, NT)``."""
        return 0.0 if self.spans is None else of_width(self.spans, width)


def prepare(
    root: Tensor, head: Maybe, left: Tensor, right: Tensor, unary: Tensor, spans: Maybe, lengths: Maybe
) -> Sentences:
    wide, n = semiring.wide_dtype(unary.device), unary.shape[-2]
    lengths = tree_lengths(unary, lengths, 2)
    some = (lengths > 1)[..., None, None]
    used = torch.arange(n, device=unary.device) < lengths[..., None]
    if spans is not None:
        spans = torch.where(inner_spans(lengths, n)[..., None], spans.to(wide), 0.0)
    return Sentences(
        torch.where(some[..., 0], root.to(wide), 0.0),
        None if head is None else torch.where(some, head.to(wide), 0.0),
        torch.where(some, left.to(wide), 0.0),
        torch.where(some, right.to(wide), 0.0),
        torch.where(used[..., None], unary.to(wide), 0.0),
        spans,
        lengths,
    )


class Charts(NamedTuple):
    """By width: spans as left and right children of a rank, over ranks, and over their symbols."""

    left: list[Tensor]  # (*b, p, r)
    right: list[Tensor]
    rank: list[Tensor]  # (*b, p, r): of the rule at the top; from width 2
    symbol: list[Tensor]  # (*b, p, T) of words, (*b, p, NT) of wider spans

    def top(self, s: Sentences) -> Tensor:
        """Every sentence as a whole with root scores, ``(*b, NT)``."""
        nonterminals = s.root.shape[-1]
        blank = torch.zeros_like(self.symbol[0][..., :1]).expand(*self.symbol[0].shape[:-1], nonterminals)
        return s.root + whole([blank, *self.symbol[1:]], s.lengths)

    def pairs(self, width: int) -> Tensor:
        """Both children of a rank for every split, ``(*b, p, width - 1, r)``."""
        return children(self.left, width)[0] + children(self.right, width)[1]


def inside(s: Sentences) -> Charts:
    """The sums over all trees of a span, in log space: O(n^3 r + n^2 r NT) time."""
    charts = Charts([], [], [], [s.words])
    for width in range(1, s.words.shape[-2] + 1):
        if width > 1:
            charts.rank.append(semiring.logsumexp(charts.pairs(width), -2))
            scores = charts.rank[-1]
            if s.head is not None:
                scores = semiring.log_matmul(scores, s.head.mT)
            charts.symbol.append(scores + s.span(width))
        for chart, side in zip((charts.left, charts.right), s.sides(width), strict=True):
            chart.append(semiring.log_matmul(charts.symbol[-1], side.mT))
    return charts


def means(s: Sentences, v: Sentences, charts: Charts) -> Charts:
    """What trees of a span expect of the function that sums the directions ``v`` over their parts."""
    mean = Charts([], [], [], [v.words])
    for width in range(1, s.words.shape[-2] + 1):
        if width > 1:
            mean.rank.append(_of(semiring.softmax(charts.pairs(width), -2), mean.pairs(width)).sum(-2))
            below = mean.rank[-1]
            if s.head is not None and v.head is not None:
                below = _expected(_rules(s.head, charts.rank[width - 2]), v.head, below)
            mean.symbol.append(below + v.span(width))
        sides = zip((mean.left, mean.right), s.sides(width), v.sides(width), strict=True)
        for chart, side, moved in sides:
            chart.append(_expected(_rules(side, charts.symbol[width - 1]), moved, mean.symbol[-1]))
    return mean


def _rules(table: Tensor, below: Tensor) -> Tensor:
    """The shares of alternatives ``y`` of rows ``x``: ``table (*b, x, y)``, ``below (*b, p, y)``."""
    return semiring.softmax(table.unsqueeze(-3) + below.unsqueeze(-2), -1)


def _of(probability: Tensor, x: Tensor) -> Tensor:
    """The two multiplied: what is impossible may have directions of -inf."""
    return torch.where(probability > 0, probability * x, 0.0)


def _expected(share: Tensor, own: Tensor, below: Tensor) -> Tensor:
    return _of(share, own.unsqueeze(-3) + below.unsqueeze(-2)).sum(-1)


class Flow(NamedTuple):
    """What goes down a tree: the probability of an event, and its covariance with a function of the tree."""

    mass: Tensor
    cov: Maybe

    def divided(self, share: Tensor, gain: Maybe, dim: int) -> Flow:
        """Among alternatives along a new ``dim``; ``gain``: what each expects more than all of them do."""
        mass = self.mass.unsqueeze(dim)
        if self.cov is None or gain is None:
            return Flow(share * mass, None)
        here = share * mass
        return Flow(here, torch.where(here > 0, share * (self.cov.unsqueeze(dim) + mass * gain), 0.0))

    def map(self, f: Callable[[Tensor], Tensor]) -> Flow:
        return Flow(f(self.mass), None if self.cov is None else f(self.cov))

    def beside(self, other: Flow) -> Flow:
        """One after the other, in the last dimension."""
        cov = None if self.cov is None or other.cov is None else torch.cat([self.cov, other.cov], -1)
        return Flow(torch.cat([self.mass, other.mass], -1), cov)

    def plus(self, other: Flow) -> Flow:
        cov = None if self.cov is None or other.cov is None else self.cov + other.cov
        return Flow(self.mass + other.mass, cov)


class Parts(NamedTuple):
    """A flow for each potential, per item; spans by width from 2."""

    root: Flow
    head: Flow | None  # (*b, NT, r)
    left: Flow  # (*b, r, S)
    right: Flow
    words: Flow  # (*b, n, T)
    spans: list[Flow]  # (*b, p, NT)


class Descent:
    """All probability from the top down, each share normalised where it is used.

    With directions ``v`` every flow has the covariance of its part with the sum of ``v`` over the parts.
    """

    def __init__(self, s: Sentences, v: Sentences | None = None) -> None:
        self.s, self.v, self.charts, self.n = s, v, inside(s), s.words.shape[-2]
        self.mean = None if v is None else means(s, v, self.charts)
        self.sides: list[list[Flow]] = []  # left, right; by width, over ranks
        self.mean_score = s.root.new_zeros(s.root.shape[:-1])

    def run(self) -> Parts:
        top, spans, counts = self._top(), [], []
        for _ in range(2):
            empty = [torch.zeros_like(x) for x in self.charts.left]
            self.sides.append([Flow(x, None if self.v is None else x) for x in empty])
        head: Flow | None = None
        for width in range(self.n, 0, -1):
            node, *rules = self._symbols(width)
            counts.append(rules)
            if width == 1:
                break
            whole_span = (self.s.lengths == width)[..., None]
            here = top.map(lambda x: torch.where(whole_span, x, 0.0).unsqueeze(-2))  # noqa: B023
            node = node.plus(here.map(lambda x: shifted(x, 0, self.n - width + 1, 0.0)))  # noqa: B023
            spans.append(node)
            head = self._ranks(width, node, head)
        inner = [sum_flows([x[i] for x in counts[:-1]]) for i in range(2)]
        left, right = (x.beside(y) for x, y in zip(inner, counts[-1], strict=True))
        return Parts(top, head, left, right, node, spans[::-1])

    def _top(self) -> Flow:
        scores = self.charts.top(self.s)
        some = (self.s.lengths > 1)[..., None]
        mass = torch.where(some, semiring.softmax(scores, -1), 0.0)
        if self.v is None or self.mean is None:
            return Flow(mass, None)
        value = self.mean.top(self.v)
        self.mean_score = _of(mass, value).sum(-1)
        return Flow(mass, _of(mass, value - self.mean_score[..., None]))

    def _gain(self, own: Maybe, below: Tensor, node: Tensor) -> Tensor:
        """What the alternatives below a node expect more of the function than the node."""
        total = below.unsqueeze(-2) if own is None else own.unsqueeze(-3) + below.unsqueeze(-2)
        return total - node.unsqueeze(-1)

    def _symbols(self, width: int) -> tuple[Flow, Flow, Flow]:
        """The flow of the symbols of a width's spans, and of the left and right rows that lead there."""
        symbol, found, counts = self.charts.symbol[width - 1], [], []
        for which, side in enumerate(self.s.sides(width)):
            gain = None
            if self.v is not None and self.mean is not None:
                below = (self.mean.left, self.mean.right)[which][width - 1]
                gain = self._gain(self.v.sides(width)[which], self.mean.symbol[width - 1], below)
            flow = self.sides[which][width - 1].divided(_rules(side, symbol), gain, -1)
            found.append(flow.map(lambda x: x.sum(-2)))
            counts.append(flow.map(lambda x: x.sum(-3)))
        return found[0].plus(found[1]), counts[0], counts[1]

    def _ranks(self, width: int, node: Flow, head: Flow | None) -> Flow | None:
        """From the symbols of a width's spans to their ranks, and on to both children; counts of the head."""
        rank, mean = self.charts.rank[width - 2], None if self.mean is None else self.mean.rank[width - 2]
        if self.s.head is not None:
            gain = None
            if self.v is not None and self.mean is not None and mean is not None:
                above = self.mean.symbol[width - 1] - self.v.span(width)
                gain = self._gain(self.v.head, mean, above)
            rules = node.divided(_rules(self.s.head, rank), gain, -1)
            node, counts = rules.map(lambda x: x.sum(-2)), rules.map(lambda x: x.sum(-3))
            head = counts if head is None else head.plus(counts)
        gain = None if self.mean is None or mean is None else self.mean.pairs(width) - mean.unsqueeze(-2)
        splits = node.divided(semiring.softmax(self.charts.pairs(width), -2), gain, -2)
        for k in range(width - 1):
            other = width - 2 - k  # the children have k + 1 and other + 1 words
            for which, child, start in ((0, k, 0), (1, other, k + 1)):
                moved = splits.map(lambda x: shifted(x[..., k, :], start, self.n - child, 0.0))  # noqa: B023
                self.sides[which][child] = self.sides[which][child].plus(moved)
        return head


def sum_flows(flows: list[Flow]) -> Flow:
    total = flows[0]
    for flow in flows[1:]:
        total = total.plus(flow)
    return total
