"""What enumeration says: every quantity of a structured distribution from its list of structures."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from tests.distributions.examples import Example


def tensors(result: Any) -> list[Tensor]:
    """The tensors of a result: itself, or those of its fields, however nested."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for field in result if field is not None for tensor in tensors(field)]


class Oracle:
    """One item's structures, their scores, and what follows from them."""

    def __init__(self, example: Example, item: Any) -> None:
        self.item = item
        self.events = example.structures(item)
        self.scores = example.scores(item, self.events)

    @property
    def possible(self) -> Tensor:
        return self.scores > -torch.inf

    @property
    def log_partition(self) -> Tensor:
        if not bool(self.possible.any()):
            return torch.tensor(-torch.inf, dtype=torch.float64)
        return self.scores[self.possible].logsumexp(0)

    @property
    def probabilities(self) -> Tensor:
        if not bool(self.possible.any()):
            return torch.zeros_like(self.scores)
        return (self.scores - self.log_partition).exp()

    @property
    def parts(self) -> list[Tensor]:
        """For each kind of part, how often each structure uses each part: (m, *part)."""
        return tensors(self.item.to_parts(self.events))

    @property
    def marginals(self) -> list[Tensor]:
        return [torch.tensordot(self.probabilities, part.double(), 1) for part in self.parts]

    @property
    def max_marginals(self) -> list[Tensor]:
        best = []
        for part in self.parts:
            scores = self.scores.reshape(-1, *[1] * (part.dim() - 1))
            best.append(torch.where(part > 0, scores, -torch.inf).amax(0))
        return best

    @property
    def entropy(self) -> Tensor:
        p = self.probabilities[self.probabilities > 0]
        return -(p * p.log()).sum()

    def cross_entropy(self, other: Oracle) -> Tensor:
        mine = self.probabilities > 0
        return -(self.probabilities[mine] * (other.scores[mine] - other.log_partition)).sum()

    def ranked(self) -> tuple[Tensor, Tensor]:
        """Scores and events of the possible structures, best first, ties in order."""
        order = self.scores.argsort(descending=True, stable=True)
        order = order[self.scores[order] > -torch.inf]
        return self.scores[order], self.events[order]


def items(d: Any) -> list[tuple[int, ...]]:
    """The indices of all items of a batch."""
    return list(itertools.product(*(range(size) for size in d.batch_shape)))


def oracles(example: Example, d: Any) -> dict[tuple[int, ...], Oracle]:
    return {index: Oracle(example, d[index] if index else d) for index in items(d)}
