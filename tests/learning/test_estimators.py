"""Estimators of gradients, each beside the exact gradient, which enumeration gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from structlv import IMLE, LinearChain, PerturbAndMAP, StochasticSoftmax, StraightThroughMarginals
from structlv.learning.estimators import (
    VIMCO,
    LeaveOneOut,
    MovingAverage,
    Relaxed,
    ScoreFunction,
    UnorderedSet,
)
from structlv.learning.unordered import leave_one_out
from tests.learning.problems import Problem, assert_unbiased, chain, problems
from tests.tolerance import assert_nats, assert_probabilities


@problems
@pytest.mark.parametrize("kind", ["linear", "curved"])
@pytest.mark.parametrize(
    "estimator",
    [
        ScoreFunction(2),
        ScoreFunction(5),
        ScoreFunction(1, baseline=None),
        ScoreFunction(2, lambda f: f.new_tensor(0.4)),
        UnorderedSet(2),
        UnorderedSet(5),
    ],
    ids=["leave one out, 2", "leave one out, 5", "no baseline", "constant", "unordered, 2", "unordered, 5"],
)
def test_unbiased_estimators(problem: str, kind: str, estimator: Any) -> None:
    p = Problem(problem)
    fn = getattr(p, kind)
    value, gradient = p.exact(fn)
    count = 3000 if isinstance(estimator, UnorderedSet) else 20000
    values, gradients = p.estimates(estimator, p.of_events(fn), count)
    assert_unbiased(values, value)
    for found, wanted in zip(gradients, gradient, strict=True):
        assert_unbiased(found, wanted)


@problems
def test_leave_one_out_lowers_the_variance(problem: str) -> None:
    p = Problem(problem)
    shifted = p.of_events(lambda parts: p.linear(parts) + 5.0)

    def variance(estimator: Any) -> float:
        return float(p.estimates(estimator, shifted, 2000)[1][0].var(0).sum())

    assert variance(ScoreFunction(4)) < 0.25 * variance(ScoreFunction(4, baseline=None))


def test_an_unordered_set_spends_no_sample_twice() -> None:
    """On a peaked distribution, where samples with replacement are mostly one structure."""
    p = Problem("chain")
    p.start = p.start * 3
    fn = p.of_events(p.curved)

    def variance(estimator: Any) -> float:
        return float(p.estimates(estimator, fn, 2000)[1][0].var(0).sum())

    assert variance(UnorderedSet(4)) < 0.3 * variance(ScoreFunction(4))


@pytest.mark.parametrize("count", [8, 9, 40])
def test_an_unordered_set_of_all_structures_is_exact(count: int) -> None:
    """Also where some are nearly impossible, and where there are none to fill the set with."""
    torch.manual_seed(3)
    scores = torch.randn(4, 3, 2, dtype=torch.float64)
    scores[0] *= 40
    scores[1, 0, 1] = -torch.inf
    scores[2, 0] = -torch.inf
    scores.requires_grad_()
    d = LinearChain(scores, torch.zeros(2, 2, dtype=torch.float64))
    weight = torch.randn(8, dtype=torch.float64)
    weight.requires_grad_()

    def f(states: Tensor) -> Tensor:
        return weight[(states * torch.tensor([4, 2, 1])).sum(-1).clamp_min(0)]

    found = UnorderedSet(count)(d, f, Generator().manual_seed(1))
    events = torch.cartesian_prod(*[torch.arange(2)] * 3).unsqueeze(1).expand(8, 4, 3)
    exact = (d.log_prob(events).exp() * f(events)).sum(0)
    assert_nats(found, exact)
    keep = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)  # no structure: no gradient
    for a, b in zip(
        torch.autograd.grad((found * keep).sum(), (scores, weight)),
        torch.autograd.grad((exact * keep).sum(), (scores, weight)),
        strict=True,
    ):
        assert_probabilities(a, b)


def test_leave_one_out_ratios_by_all_orders() -> None:
    """P(S) and P(S | s first) as sums over the orders in which S can be drawn."""
    p = torch.tensor([0.4, 0.05, 0.2, 1e-9, 0.1], dtype=torch.float64)

    def orders(chosen: list[int], rest: list[int]) -> float:
        """The probability that those of ``rest`` are drawn next."""
        if not rest:
            return 1.0
        left = 1 - float(p[chosen].sum())
        return sum(float(p[i]) / left * orders([*chosen, i], [j for j in rest if j != i]) for i in rest)

    weights, others = leave_one_out(p.log())
    everything = list(range(5))
    for s in everything:
        rest = [j for j in everything if j != s]
        ratio = orders([s], rest) / orders([], everything)
        assert float(weights[s]) == pytest.approx(float(p[s]) * ratio, rel=1e-12)
        for t in rest:
            ratio = orders([s, t], [j for j in rest if j != t]) / orders([s], rest)
            assert float(others[s, t]) == pytest.approx(float(p[t]) * ratio, rel=1e-12)
        assert float(others[s, s]) == pytest.approx(float(p[s]))


@problems
def test_vimco_is_unbiased(problem: str) -> None:
    """Its target, E[log mean exp f], by enumeration of pairs of structures."""
    p = Problem(problem)
    fn = p.of_events(p.linear)
    log_prob = p.build(p.scores).log_prob(p.events)
    f = fn(p.events)
    pair = torch.logaddexp(f.unsqueeze(0), f.unsqueeze(1)) - torch.tensor(2.0).log()
    value = ((log_prob.unsqueeze(0) + log_prob.unsqueeze(1)).exp() * pair).sum()
    wanted = p.gradient(value)[0]
    values, gradients = p.estimates(VIMCO(2), fn, 20000)
    assert_unbiased(values, value.detach())
    assert_unbiased(gradients[0], wanted)


@problems
def test_straight_through_marginals_are_exact_for_linear_functions(problem: str) -> None:
    p = Problem(problem)
    _, gradient = p.exact(p.linear)
    _, gradients = p.estimates(Relaxed(StraightThroughMarginals()), p.linear, 3)
    for found in gradients[0]:
        assert_probabilities(found, gradient[0])


@problems
@pytest.mark.parametrize(
    "method", [StochasticSoftmax(), PerturbAndMAP(), IMLE()], ids=lambda m: type(m).__name__
)
def test_relaxed_gradients_point_downhill(problem: str, method: Any) -> None:
    """Biased, but of positive inner product with the exact gradient, and of smaller variance than without."""
    p = Problem(problem)
    _, gradient = p.exact(p.linear)
    _, gradients = p.estimates(Relaxed(method, num_samples=4), p.linear, 2000)
    mean = gradients[0].mean(0)
    assert float((mean * gradient[0]).sum()) > 0.5 * float(mean.norm() * gradient[0].norm())


def test_moving_average() -> None:
    baseline = MovingAverage(decay=0.5)
    assert float(baseline(torch.tensor([4.0]))) == 0.0
    assert float(baseline(torch.tensor([8.0]))) == 4.0
    assert float(baseline(torch.tensor([0.0]))) == pytest.approx((0.25 * 4 + 0.5 * 8) / 0.75)
    p = Problem("chain")
    value, gradient = p.exact(p.linear)
    estimator = ScoreFunction(1, baseline=MovingAverage())
    p.estimates(estimator, p.of_events(p.linear), 10)  # what it remembers is of other samples
    values, gradients = p.estimates(estimator, p.of_events(p.linear), 20000)
    assert_unbiased(values, value)
    assert_unbiased(gradients[0], gradient[0])


def test_no_structure_possible() -> None:
    scores = torch.full((2, 3, 2), -torch.inf, requires_grad=True)
    for estimator in (ScoreFunction(2), VIMCO(2), UnorderedSet(2)):
        surrogate = estimator(LinearChain(scores, torch.zeros(2, 2)), lambda z: z.sum(-1).float())
        (found,) = torch.autograd.grad(surrogate.sum(), scores)
        assert not found.any()


def test_the_value_is_the_mean_of_the_function() -> None:
    d = chain(torch.zeros(4, 3, 3, dtype=torch.float64))
    events = d.sample((6,), Generator().manual_seed(1))
    f = lambda z: z.sum(-1).double()  # noqa: E731
    assert_nats(ScoreFunction(6)(d, f, Generator().manual_seed(1)), f(events).mean(0))
    assert_nats(VIMCO(6)(d, f, Generator().manual_seed(1)), f(events).exp().mean(0).log())


def test_refusals() -> None:
    d = chain(torch.zeros(4, 3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"f must give one number for each sample, shape \(8, 4\)"):
        ScoreFunction()(d, lambda z: z)
    with pytest.raises(ValueError, match="found int"):
        ScoreFunction()(d, lambda z: 3)  # type: ignore[arg-type,return-value]
    for make in (ScoreFunction, VIMCO, UnorderedSet):
        with pytest.raises(ValueError, match="at least 2"):
            make(1)
    with pytest.raises(ValueError, match="at least 1"):
        Relaxed(num_samples=0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        LeaveOneOut()(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="decay"):
        MovingAverage(1.0)
