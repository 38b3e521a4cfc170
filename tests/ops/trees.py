"""Every tree of small grammars, and what follows from them: the oracle of the tree operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

NT, T, S = 2, 2, 4
INF = torch.inf


class Grammar(NamedTuple):
    """The positional arguments of a PCFG's queries."""

    root: Tensor
    rules: Tensor
    unary: Tensor
    spans: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def potentials(self) -> list[Tensor]:
        return [x for x in self[:4] if x is not None]

    def item(self, *index: int) -> Grammar:
        """One sentence of the batch, cut to its length."""
        batch = self.unary.shape[:-2]
        n = self.unary.shape[-2] if self.lengths is None else int(self.lengths[index])

        def pick(x: Tensor, dim: int) -> Tensor:
            return x.broadcast_to(*batch, *x.shape[-dim:])[index]

        spans = None if self.spans is None else pick(self.spans, 3)[:n, :n]
        return Grammar(pick(self.root, 1), pick(self.rules, 3), self.unary[index][:n], spans)


@cache
def trees(n: int) -> tuple[Tensor, Tensor]:
    """All trees over n words: events (N, m, 3), and the counts of all parts (N, p)."""

    def grow(i: int, j: int, a: int) -> list[tuple]:
        if i == j:
            return [((i, j, a),)]
        found = []
        for k in range(i, j):
            for y in range(NT, S) if k == i else range(NT):
                for z in range(NT, S) if k + 1 == j else range(NT):
                    rights = grow(k + 1, j, z)
                    found += [((i, j, a), *left, *right) for left in grow(i, k, y) for right in rights]
        return found

    events = torch.tensor([tree for a in range(NT) for tree in grow(0, n - 1, a)])
    return events, torch.stack([parts(event.tolist(), n) for event in events])


def parts(event: list[list[int]], n: int) -> Tensor:
    """How often a tree has each part: root, rules, unary, spans in one vector."""
    root, rules = torch.zeros(NT), torch.zeros(NT, S, S)
    unary, spans = torch.zeros(n, T), torch.zeros(n, n, NT)
    root[event[0][2]] = 1
    for row, (i, j, a) in enumerate(event):
        if i == j:
            unary[i, a - NT] += 1
            continue
        spans[i, j, a] += 1
        k = event[row + 1][1]
        right = next(z for left, end, z in event[row + 1 :] if (left, end) == (k + 1, j))
        rules[a, event[row + 1][2], right] += 1
    return torch.cat([x.flatten() for x in (root, rules, unary, spans)]).double()


def split(x: Tensor, n: int) -> list[Tensor]:
    shapes = (NT,), (NT, S, S), (n, T), (n, n, NT)
    pieces = x.split([torch.Size(shape).numel() for shape in shapes], -1)
    return [piece.unflatten(-1, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def vector(g: Grammar) -> Tensor:
    """A sentence's potentials, or a direction, in the order of `parts`."""
    n = g.unary.shape[0]
    spans = torch.zeros(n, n, NT) if g.spans is None else g.spans.expand(n, n, NT)
    return torch.cat([x.double().flatten() for x in (g.root, g.rules, g.unary, spans)])


def scores(g: Grammar) -> Tensor:
    """Of all trees, in their order."""
    counts = trees(g.unary.shape[0])[1]
    return torch.where(counts > 0, counts * vector(g), 0).sum(-1)


def grammar(
    *,
    n: int = 4,
    batch: tuple[int, ...] = (3,),
    shared: bool = True,
    spans: str | None = "labelled",
    holes: float = 0.0,
    whole: bool = False,
    lengths: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Grammar:
    """Random potentials: `holes` is the share of -inf; `whole` rounds, so that scores are often equal."""

    def numbers(*shape: int) -> Tensor:
        x = torch.randn(shape, dtype=torch.float64)
        x = x.round() if whole else x
        return x.masked_fill(torch.rand(shape) < holes, -INF).to(dtype)

    lead = () if shared else batch
    table = None if spans is None else numbers(*lead, n, n, NT if spans == "labelled" else 1)
    return Grammar(numbers(*lead, NT), numbers(*lead, NT, S, S), numbers(*batch, n, T), table, lengths)


def build(case: dict[str, Any]) -> Grammar:
    """The grammar of a case; NaN wherever no sentence looks."""
    g = grammar(**case)
    if g.lengths is None:
        return g
    n = g.unary.shape[-2]
    padding = torch.arange(n) >= g.lengths[..., None]
    g = g._replace(unary=g.unary.masked_fill(padding[..., None], torch.nan))
    if g.spans is not None:
        g.spans.masked_fill_(torch.ones(n, n).tril().bool()[..., None], torch.nan)
    return g


def items(g: Grammar) -> Iterator[tuple[tuple[int, ...], Grammar | None]]:
    """Each sentence and its index; those too short for a tree as None."""
    for index in product(*map(range, g.unary.shape[:-2])):
        one = g.item(*index)
        yield index, one if one.unary.shape[0] >= 2 else None


def expected_parts(
    g: Grammar, weight: Tensor, per_part: Callable[[Grammar, tuple[int, ...]], Tensor]
) -> list[Tensor]:
    """`per_part(sentence, index)`, a vector over all parts, times the weight of the sentence."""
    batch, n = g.unary.shape[:-2], g.unary.shape[-2]
    out = split(torch.zeros(*batch, NT + NT * S * S + n * T + n * n * NT, dtype=torch.float64), n)
    for index, one in items(g):
        if one is not None:
            cut = one.unary.shape[0]
            pieces = split(per_part(one, index) * weight[index], cut)
            out[0][index], out[1][index], out[2][index][:cut], out[3][index][:cut, :cut] = pieces
    return out


def in_shape(gradients: list[Tensor], g: Grammar) -> list[Tensor]:
    """Summed to the shapes of the potentials."""
    return [x.sum_to_size(y.shape) for x, y in zip(gradients, g[:4], strict=True) if y is not None]


def probabilities(one: Grammar) -> Tensor:
    """Of all trees, in their order."""
    s = scores(one)
    return torch.exp(s - s.logsumexp(0)) if s.max() > -INF else torch.zeros_like(s)


def mean(one: Grammar, index: tuple[int, ...] = ()) -> Tensor:
    """The expectation of all parts."""
    return probabilities(one) @ trees(one.unary.shape[0])[1]


def ranked(g: Grammar, i: int, j: int, a: int) -> list[tuple[float, tuple]]:
    """The trees of a node, best first; equals by split, left and right symbol, ranks of the children."""
    if i == j:
        return [(float(g.unary[i, a - NT]), ((i, j, a),))]
    found, span = [], 0.0 if g.spans is None else float(g.spans[i, j, a % g.spans.shape[-1]])
    for k in range(i, j):
        for y in range(NT, S) if k == i else range(NT):
            for z in range(NT, S) if k + 1 == j else range(NT):
                own = span + float(g.rules[a, y, z])
                pairs = product(ranked(g, i, k, y), ranked(g, k + 1, j, z))
                found += [(own + p + q, ((i, j, a), *left, *right)) for (p, left), (q, right) in pairs]
    return sorted((x for x in found if x[0] > -INF), key=lambda x: -x[0])


def best(g: Grammar, k: int) -> Tensor:
    """The events of the k best trees."""
    n, roots = g.unary.shape[0], [a for a in range(NT) if g.root[a] > -INF]
    tops = [(float(g.root[a]) + s, tree) for a in roots for s, tree in ranked(g, 0, n - 1, a)]
    rows = [tree for _, tree in sorted(tops, key=lambda x: -x[0])[:k]]
    out = torch.full((k, 2 * n - 1, 3), -1)
    if rows:
        out[: len(rows)] = torch.tensor(rows)
    return out
