"""Learned baselines, annealed temperatures, pathwise gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from structlv import LinearChain
from structlv.learning.estimators import Annealed, LearnedBaseline, Pathwise, Relaxed, ScoreFunction
from tests.learning.problems import Problem, assert_unbiased
from tests.tolerance import assert_nats

COUNT = 4000


def test_a_learned_baseline() -> None:
    at = Problem("chain")
    guess = torch.zeros((), dtype=torch.float64, requires_grad=True)
    estimator = ScoreFunction(4, LearnedBaseline(lambda: guess.expand(COUNT)))
    value, wanted = at.exact(at.curved)
    _, found = at.estimates(estimator, at.of_events(at.curved), COUNT)
    assert_unbiased(found[0], wanted[0])
    optimizer = torch.optim.SGD([guess], lr=0.5)
    for seed in range(20):
        optimizer.zero_grad()
        p = at.build(at.start.expand(COUNT, *at.start.shape))
        estimator(p, at.of_events(at.curved), Generator().manual_seed(seed)).mean().backward()
        optimizer.step()
    assert float(guess.detach()) == pytest.approx(float(value), abs=0.05)
    with pytest.raises(ValueError, match="one number for each item"):
        ScoreFunction(2, LearnedBaseline(lambda: torch.zeros(3)))(
            at.build(at.scores), at.of_events(at.linear)
        )


def test_annealing() -> None:
    schedule = Annealed(start=1.0, end=0.01, steps=2)
    assert [schedule() for _ in range(4)] == pytest.approx([1.0, 0.1, 0.01, 0.01])
    at = Problem("chain")
    relaxed = Relaxed(temperature=Annealed(1.0, 1e-9, 1))
    warm, cold = (relaxed(at.build(at.scores), at.linear, Generator().manual_seed(1)) for _ in range(2))
    hard = Relaxed(temperature=1e-9)(at.build(at.scores), at.linear, Generator().manual_seed(1))
    assert_nats(cold, hard)
    assert warm != cold
    with pytest.raises(ValueError, match="must be positive"):
        Annealed(start=0.0)


def test_pathwise() -> None:
    """The gradient of E[x^2] in mean and deviation."""
    torch.manual_seed(0)
    mean, deviation = (torch.full((5000,), x, dtype=torch.float64).requires_grad_() for x in (0.5, 2.0))
    surrogate = Pathwise(2)(torch.distributions.Normal(mean, deviation), torch.square)
    found = torch.autograd.grad(surrogate.sum(), (mean, deviation))
    for x, wanted in zip(found, (1.0, 4.0), strict=True):
        assert_unbiased(x, torch.tensor(wanted, dtype=torch.float64))
    with pytest.raises(ValueError, match="pathwise gradients"):
        Pathwise()(torch.distributions.Poisson(mean.exp()), torch.square)
    with pytest.raises(ValueError, match="pathwise gradients"):
        Pathwise()(LinearChain(torch.zeros(2, 2), torch.zeros(2, 2)), torch.square)
