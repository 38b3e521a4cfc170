"""What every recursion of the dense PCFG starts from: clean, broadcast potentials, and the inside pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from structlv.reference import semiring
from structlv.reference._potentials import Maybe
from structlv.reference._trees import children, inner_spans, of_width, tree_lengths


class Sentences(NamedTuple):
    """A grammar and its sentences in the dtype of the sums, with zeros where no tree looks."""

    root: Tensor  # (*b, NT)
    rules: Tensor  # (*b, NT, S, S)
    leaves: Tensor  # (*b, n, S): -inf for nonterminals
    spans: Maybe  # (*b, n, n, NT) or (*b, n, n, 1)
    lengths: Tensor  # (*b): 0 for a sentence without a tree

    def span(self, width: int) -> Tensor | float:
        """The scores of the spans of a width, ``(*b, n - width + 1, NT)``."""
        return 0.0 if self.spans is None else of_width(self.spans, width)

    def apply(self, pairs: Tensor) -> Tensor:
        """``pairs (*b, p, S, S)`` of children under every rule: ``(*b, p, NT, S * S)``."""
        return (self.rules.unsqueeze(-4) + pairs.unsqueeze(-3)).flatten(-2)


def prepare(root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe, lengths: Maybe) -> Sentences:
    wide, n = semiring.wide_dtype(unary.device), unary.shape[-2]
    lengths = tree_lengths(unary, lengths, 2)
    some = lengths > 1
    words = torch.arange(n, device=unary.device) < lengths[..., None]
    leaves = torch.where(words[..., None], unary.to(wide), 0.0)
    if spans is not None:
        spans = torch.where(inner_spans(lengths, n)[..., None], spans.to(wide), 0.0)
    return Sentences(
        torch.where(some[..., None], root.to(wide), 0.0),
        torch.where(some[..., None, None, None], rules.to(wide), 0.0),
        torch.nn.functional.pad(leaves, (root.shape[-1], 0), value=-torch.inf),
        spans,
        lengths,
    )


def detached(root: Tensor, rules: Tensor, unary: Tensor, spans: Maybe, lengths: Maybe) -> Sentences:
    return prepare(
        root.detach(), rules.detach(), unary.detach(), None if spans is None else spans.detach(), lengths
    )


def join(left: Tensor, right: Tensor) -> Tensor:
    """``(*, S)`` of two children to ``(*, S, S)`` of the pair."""
    return left.unsqueeze(-1) + right.unsqueeze(-2)


def inside(s: Sentences, total: Callable[[Tensor, int], Tensor] = semiring.logsumexp) -> list[Tensor]:
    """The sum over all trees of a span that have a symbol at the top, as a chart ``(*b, p, S)``."""
    chart, preterminals = [s.leaves], s.leaves.shape[-1] - s.root.shape[-1]
    for width in range(2, s.leaves.shape[-2] + 1):
        pairs = total(join(*children(chart, width)), -3)
        scores = total(s.apply(pairs), -1) + s.span(width)
        chart.append(torch.nn.functional.pad(scores, (0, preterminals), value=-torch.inf))
    return chart
