"""REBAR and RELAX: without bias, and of less variance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from structlv import FactorialChain, LinearChain, TreePosterior
from structlv.distributions import traces
from structlv.distributions.traces import Choices
from structlv.learning.control_variates import REBAR, RELAX
from structlv.learning.estimators import ScoreFunction
from tests.distributions.examples import BY_NAME
from tests.learning.problems import Problem, assert_unbiased, problems
from tests.tolerance import assert_probabilities

COUNT = 4000


def control(parts: Any) -> Tensor:
    """Some differentiable function, far from f."""
    return sum((x * 1.3).sin().flatten(2).sum(-1) for x in parts)


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


def test_a_wrong_estimator_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the noise given the choice not to move with the log-probabilities, there were a bias."""
    at = Problem("chain")
    moving = Choices.perturbed

    def still(self: Choices, seed: int) -> Tensor:
        return moving(self, seed).detach()

    monkeypatch.setattr(Choices, "perturbed", still)
    _, wanted = at.exact(at.linear)
    _, found = at.estimates(REBAR(), at.linear, COUNT)
    with pytest.raises(AssertionError):
        assert_unbiased(found[0], wanted[0])


def spread(estimator: Any, at: Problem) -> float:
    fn = at.of_events(at.curved) if isinstance(estimator, ScoreFunction) else at.curved
    _, found = at.estimates(estimator, fn, COUNT)
    return float(found[0].var(0).sum())


@problems
def test_less_variance_than_the_score_function(problem: str) -> None:
    at = Problem(problem)
    share = {"chain": 0.7, "tree": 0.95, "listed rules": 0.75}[problem]
    assert spread(REBAR(num_samples=1), at) < share * spread(ScoreFunction(1, baseline=None), at)


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
    listed = BY_NAME["listed rules, ragged"].make()
    for p, field in ((trees, "unary"), (chains, "joint"), (listed, "spans")):
        surrogate = REBAR(num_samples=2)(p, lambda parts, f=field: getattr(parts, f).flatten(2).cos().sum(-1))
        assert surrogate.shape == (3,)
        assert bool(surrogate.isfinite().all())


def test_refusal_of_tables_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are made: a structure for each of its choices."""
    monkeypatch.setattr(traces, "MAX_BYTES", 10_000)
    small, large = (LinearChain(torch.zeros(n, 3), torch.zeros(3, 3)) for n in (5, 50))
    assert REBAR()(small, lambda parts: parts.unary.sum((-2, -1))).isfinite()
    with pytest.raises(ValueError, match=r"50 x 1 x 50 x 3 numbers, about 0.000335 GiB in all"):
        REBAR()(large, lambda parts: parts.unary.sum((-2, -1)))


def test_refusals() -> None:
    at = Problem("chain")
    with pytest.raises(ValueError, match="temperature must be positive"):
        REBAR(temperature=0.0)
    with pytest.raises(ValueError, match="num_samples must be an integer"):
        RELAX(control, num_samples=0)
    with pytest.raises(ValueError, match="one number for each sample"):
        REBAR()(at.build(at.scores), lambda parts: parts[0])
