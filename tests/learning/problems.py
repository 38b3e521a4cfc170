"""Expectations over few structures, whose gradients enumeration gives exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from structlv import BinaryTree, LinearChain
from tests.distributions.examples import chain_structures
from tests.distributions.tree_cases import RULES, binary_structures, sparse_structures, sparse_trees

STANDARD_ERRORS = 4.0


def chain(unary: Tensor) -> Any:
    return LinearChain(unary, torch.linspace(-5, 5, 9, dtype=torch.float64).sin().reshape(3, 3))


def tree(scores: Tensor) -> Any:
    return BinaryTree(scores, labelled=True)


def listed(scores: Tensor) -> Any:
    """Of listed rules, unary ones among them."""
    root, unary = (torch.linspace(-1, 1, k, dtype=torch.float64) for k in (3, 6))
    return sparse_trees(RULES)(scores, root=root, unary=unary.reshape(3, 2))


# of each how it is built from scores, their shape, its structures, and the place of the scores' parts
PROBLEMS: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...], Callable[[Any], Tensor], int]] = {
    "chain": (chain, (3, 3), chain_structures, 0),
    "tree": (tree, (4, 4, 2), binary_structures, 0),
    "listed rules": (listed, (len(RULES),), sparse_structures, 1),
}
problems = pytest.mark.parametrize("problem", PROBLEMS)


class Problem:
    """A distribution over few structures, its scores, and functions of structures by events and by parts."""

    def __init__(self, name: str) -> None:
        self.build, shape, structures, self.place = PROBLEMS[name]
        generator = Generator().manual_seed(4)
        self.start = torch.randn(shape, dtype=torch.float64, generator=generator)
        self.cost = torch.randn(shape, dtype=torch.float64, generator=generator)
        self.scores = self.start.clone().requires_grad_()
        self.weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        self.events = structures(self.build(self.start))

    def linear(self, parts: Any) -> Tensor:
        return (parts[self.place] * self.cost).flatten(-self.cost.dim()).sum(-1)

    def curved(self, parts: Any) -> Tensor:
        return self.weight * self.linear(parts).square().mul(0.2).exp()

    def of_events(self, fn: Callable[[Any], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda events: fn(self.build(self.start).to_parts(events))

    def exact(self, fn: Callable[[Any], Tensor]) -> tuple[Tensor, list[Tensor]]:
        p = self.build(self.scores)
        value = (p.log_prob(self.events).exp() * self.of_events(fn)(self.events)).sum()
        return value.detach(), self.gradient(value)

    def gradient(self, value: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(value, [self.scores, self.weight], allow_unused=True)
        return [
            torch.zeros_like(x) if g is None else g
            for g, x in zip(found, (self.scores, self.weight), strict=True)
        ]

    def estimates(
        self, estimator: Any, fn: Callable[[Any], Tensor], count: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Values (count), and the gradient of each of ``count`` independent surrogates (count, ...)."""
        many = self.start.expand(count, *self.start.shape).clone().requires_grad_()
        weights = self.weight.detach().expand(count).clone().requires_grad_()
        mine, self.weight = self.weight, weights
        try:
            surrogate = estimator(self.build(many), fn, Generator().manual_seed(8))
        finally:
            self.weight = mine
        found = torch.autograd.grad(surrogate.sum(), (many, weights), allow_unused=True)
        pairs = zip(found, (many, weights), strict=True)
        return surrogate.detach(), [torch.zeros_like(x) if g is None else g for g, x in pairs]


def assert_unbiased(found: Tensor, wanted: Tensor) -> None:
    error = (found.mean(0) - wanted).abs()
    spread = found.std(0) / len(found) ** 0.5
    assert bool((error <= STANDARD_ERRORS * spread + 1e-12).all()), (error / spread).max()
