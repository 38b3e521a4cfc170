"""REBAR and RELAX, learned baselines, annealing, pathwise: without bias, and of less variance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from structlv import FactorialChain, LinearChain, TreePosterior
from structlv.learning.control_variates import REBAR, RELAX
from structlv.learning.estimators import Annealed, LearnedBaseline, Pathwise, Relaxed, ScoreFunction
from tests.learning.problems import Problem, assert_unbiased, problems
from tests.tolerance import assert_nats, assert_probabilities

COUNT = 4000


def control(parts: Any) -> Tensor:
    """Some differentiable function, far from f."""
    return (parts[0] * 1.3).sin().flatten(2).sum(-1)


def estimators() -> dict[str, Any]:
    return {
        "REBAR": REBAR(temperature=0.7, scale=0.8, num_samples=2),
        "RELAX": RELAX(control, temperature=0.4, num_samples=2),
        "RELAX with f": RELAX(control, temperature=1.5, with_f=True, num_samples=1),
    }


@problems
@pytest.mark.parametrize("kind", ["linear", "curved"])
@pytest.mark.parametrize("name", list(estimators()))
def test_unbiased(problem: str, kind: str, name: str) -> None:
    at = Problem(problem)
    fn = getattr(at, kind)
    value, wanted = at.exact(fn)
    values, found = at.estimates(estimators()[name], fn, COUNT)
    assert_unbiased(values, value)
    for x, y in zip(found, wanted, strict=True):
        assert_unbiased(x, y)


@pytest.mark.parametrize("name", ["sharp", "wrong noise"])
def test_a_wrong_estimator_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the second relaxation not tied to the sample, or the temperatures different, there were a bias."""
    from structlv.distributions.traces import Choices

    at = Problem("chain")
    tied = Choices.perturbed
    if name == "sharp":
        monkeypatch.setattr(Choices, "perturbed", lambda self, seed: tied(self, seed) * (1 + seed % 2))
    else:
        monkeypatch.setattr(
            Choices,
            "perturbed",
            lambda self, seed: tied(self, seed) if seed % 2 else self.flat() + self.noise(seed).flatten(-1),
        )
    _, wanted = at.exact(at.curved)
    _, found = at.estimates(REBAR(num_samples=1), at.curved, COUNT)
    with pytest.raises(AssertionError):
        assert_unbiased(found[0], wanted[0])


def spread(estimator: Any, at: Problem) -> float:
    _, found = at.estimates(estimator, at.curved, COUNT)
    return float(found[0].var(0).sum())


@problems
def test_less_variance_than_the_score_function(problem: str) -> None:
    at = Problem(problem)
    assert spread(REBAR(num_samples=1), at) < 0.7 * spread(ScoreFunction(1, baseline=None), at)


class Quadratic(nn.Module):
    """A learned function of the parts."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.square = (nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for _ in range(2))

    def forward(self, parts: Any) -> Tensor:
        score = (parts[0] * self.linear).flatten(2).sum(-1)
        return score + (parts[0] * self.square).flatten(2).sum(-1).square()


def test_a_learned_control_variate_lowers_the_variance() -> None:
    """The surrogate's gradient trains it, and leaves the rest alone."""
    at = Problem("chain")
    torch.manual_seed(0)
    relax = RELAX(Quadratic(at.start.shape), temperature=0.5)
    before = spread(relax, at)
    assert before == pytest.approx(spread(ScoreFunction(1, baseline=None), at), rel=0.2)
    optimizer = torch.optim.Adam(relax.parameters(), lr=0.02)
    generator = Generator().manual_seed(1)
    for _ in range(150):
        optimizer.zero_grad()
        p = at.build(at.start.expand(64, *at.start.shape))
        relax(p, at.curved, generator).mean().backward()
        optimizer.step()
    assert spread(relax, at) < 0.5 * before


def test_the_variance_does_not_move_what_is_estimated() -> None:
    at = Problem("chain")
    weight = at.weight
    rebar = REBAR(num_samples=1)
    loss = rebar(at.build(at.scores), at.curved, Generator().manual_seed(3)).sum()
    learned = torch.autograd.grad(loss, [rebar.scale, rebar.log_temperature, weight, at.scores])
    for x in (rebar.scale, rebar.log_temperature):
        x.requires_grad_(False)
    fixed = rebar(at.build(at.scores), at.curved, Generator().manual_seed(3)).sum()
    for x, y in zip(learned[2:], torch.autograd.grad(fixed, [weight, at.scores]), strict=True):
        assert_probabilities(x, y)
    assert learned[0].abs() + learned[1].abs() > 0


def test_every_structure_with_choices() -> None:
    torch.manual_seed(0)
    rules = torch.randn(2, 5, 5, dtype=torch.float64)
    unary = torch.randn(3, 4, 3, dtype=torch.float64)
    trees = TreePosterior(torch.randn(2, dtype=torch.float64), rules, unary, lengths=torch.tensor([4, 1, 3]))
    moves = [torch.zeros(2, 2).double(), torch.eye(3).double()]
    chains = FactorialChain(torch.randn(3, 4, 2, 3, dtype=torch.float64), moves)
    for p, field in ((trees, "unary"), (chains, "joint")):
        surrogate = REBAR(num_samples=2)(p, lambda parts, f=field: getattr(parts, f).flatten(2).cos().sum(-1))
        assert surrogate.shape == (3,)
        assert bool(surrogate.isfinite().all())


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


def test_refusals() -> None:
    at = Problem("chain")
    with pytest.raises(ValueError, match="temperature must be positive"):
        REBAR(temperature=0.0)
    with pytest.raises(ValueError, match="num_samples must be an integer"):
        RELAX(control, num_samples=0)
    with pytest.raises(ValueError, match="one number for each sample"):
        REBAR()(at.build(at.scores), lambda parts: parts[0])
