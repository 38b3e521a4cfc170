"""Gradients through samples: which estimators are right in the mean, and how far one of them strays.

Five words are tagged at random; the cost of a tagging is a square, so that it cannot be read off the
marginals. All 243 taggings can be listed: the gradient of the mean cost is known, and each estimator is
judged by its bias and its spread. Score functions and REBAR have no bias. Gumbel-softmax samples trade it for
spread by the temperature: the colder, the less bias and the more spread. Straight-through ones evaluate true
taggings, with a bias all the same. Where the tags form a chain, cold relaxations keep some bias: a relaxed
choice does not move the choices after it, and a chain with noise on its nodes alone has not quite the law of
the samples. Then the mean cost is minimised: too hot a relaxation stops at the wrong place, an annealed one
does not. Kim, Wiseman & Rush 2018, sections 6.2.1 and 6.4.1; ``benchmarks/estimators.py`` measures more
estimators on more problems.

Ends with a picture; ``python examples/gradient_estimators.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from structlv import GumbelCRF, LinearChain, StochasticSoftmax, StraightThroughMarginals
from structlv.learning.control_variates import REBAR
from structlv.learning.estimators import Annealed, Estimator, Pathwise, Relaxed, ScoreFunction

WORDS, TAGS, COUNT, DRAWS = 5, 3, 3000, 4  # COUNT gradients, each a mean over DRAWS samples
TEMPERATURES = (0.2, 0.5, 1.0, 2.0)
COUPLING = {"tags by themselves": 0.0, "tags in a chain": 1.0}
HOT, COLD, STEPS = 4.0, 0.2, 150


class Measured(NamedTuple):
    """Relative to the norm of the exact gradient.

    Attributes:
        bias: of the mean of COUNT estimates, the distance from the exact gradient.
        chance: what that distance would be without a bias, from the spread alone.
        spread: root of the summed variances of one estimate.
    """

    bias: float
    chance: float
    spread: float


Table = dict[str, dict[float | None, Measured]]  # by estimator and temperature


class Found(NamedTuple):
    """The tables of the Gaussian and of the taggings, and the exact mean cost after each step."""

    gaussian: dict[str, Measured]
    taggings: dict[str, Table]
    curves: dict[str, list[float]]


def taggings(scores: Tensor, coupling: float) -> LinearChain:
    """Scores (*b, 5, 3); with a coupling a tag likes to be followed by the next."""
    return LinearChain(scores, coupling * torch.eye(TAGS).roll(1, 1))


def cost(parts: Any) -> Tensor:
    """(2 - what the tags are worth)^2 of taggings, hard or relaxed: indicators (*s, 5, 3)."""
    return (2.0 - (parts.unary @ torch.tensor([1.0, -0.5, 0.2])).sum(-1)).square()


def exact(p: LinearChain) -> Tensor:
    """The mean cost, by listing all taggings."""
    _, every = p.topk(TAGS**WORDS)
    return (p.log_prob(every).exp() * cost(p.to_parts(every))).sum()


def surrogate(estimator: Estimator, p: LinearChain, generator: Generator) -> Tensor:
    """What has the estimated gradient, (*b): some estimators ask for the cost of parts, some of taggings."""
    f: Callable[[Any], Tensor] = cost if estimator.of_parts else lambda z: cost(p.to_parts(z))
    return estimator(p, f, generator)


def measured(found: Tensor, right: Tensor) -> Measured:
    """Of independent estimates (COUNT, ...)."""
    spread, norm = float(found.var(0).sum().sqrt()), float(right.norm())
    return Measured(float((found.mean(0) - right).norm()) / norm, spread / norm / COUNT**0.5, spread / norm)


def of_a_gaussian() -> dict[str, Measured]:
    """E[z^2] under N(1, 1), whose gradient in the mean is 2: samples are functions of noise already."""
    table = {}
    for name, estimator in (
        ("score function", ScoreFunction(DRAWS, baseline=None)),
        ("score function, leave one out", ScoreFunction(DRAWS)),
        ("reparameterised", Pathwise(DRAWS)),
    ):
        mean = torch.ones(COUNT, 1, requires_grad=True)
        value = estimator(Normal(mean, 1.0), torch.square)
        table[name] = measured(torch.autograd.grad(value.sum(), mean)[0], torch.tensor([2.0]))
    return table


def estimators() -> dict[str, dict[float | None, Estimator]]:
    """By name and temperature."""

    def at_each(make: Callable[[float], Estimator]) -> dict[float | None, Estimator]:
        return {t: make(t) for t in TEMPERATURES}

    return {
        "score function": {None: ScoreFunction(DRAWS, baseline=None)},
        "score function, leave one out": {None: ScoreFunction(DRAWS)},
        "REBAR": at_each(lambda t: REBAR(t, num_samples=DRAWS)),
        "Gumbel-softmax": at_each(lambda t: Relaxed(GumbelCRF(), t, DRAWS)),
        "Gumbel-softmax, straight-through": at_each(lambda t: Relaxed(GumbelCRF(hard=True), t, DRAWS)),
        "stochastic softmax": at_each(lambda t: Relaxed(StochasticSoftmax(), t, DRAWS)),
        "straight-through marginals": {None: Relaxed(StraightThroughMarginals(), num_samples=DRAWS)},
    }


def of_taggings(scores: Tensor, coupling: float) -> Table:
    """Every estimator at scores (5, 3)."""
    leaf = scores.clone().requires_grad_()
    right = torch.autograd.grad(exact(taggings(leaf, coupling)), leaf)[0]
    many = scores.expand(COUNT, *scores.shape).clone().requires_grad_()

    def one(estimator: Estimator) -> Measured:
        value = surrogate(estimator, taggings(many, coupling), Generator().manual_seed(1))
        return measured(torch.autograd.grad(value.sum(), many)[0], right)

    return {name: {t: one(e) for t, e in each.items()} for name, each in estimators().items()}


def descend(scores: Tensor) -> dict[str, list[float]]:
    """The exact mean cost of a chain's taggings, as gradients of several kinds bring it down."""
    ways = {
        "exact": None,
        "score function, leave one out": ScoreFunction(DRAWS),
        f"Gumbel-softmax at {HOT:g}": Relaxed(GumbelCRF(), HOT, DRAWS),
        f"Gumbel-softmax, {HOT:g} to {COLD:g}": Relaxed(GumbelCRF(), Annealed(HOT, COLD, STEPS // 2), DRAWS),
    }
    curves = {}
    for name, estimator in ways.items():
        leaf, generator = scores.clone().requires_grad_(), Generator().manual_seed(2)
        optimiser = torch.optim.Adam([leaf], lr=0.2)
        curves[name] = []
        for _ in range(STEPS):
            p = taggings(leaf, 1.0)
            value = exact(p)
            curves[name].append(value.item())
            optimiser.zero_grad()
            (value if estimator is None else surrogate(estimator, p, generator)).backward()
            optimiser.step()
    return curves


def draw(found: Found, path: Path) -> None:
    """Bias against spread, a line along the temperatures; the mean cost over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), dpi=130, layout="constrained")
    *plots, last = figure.subplots(1, 3)
    for ax, (title, table) in zip(plots, found.taggings.items(), strict=True):
        for name, each in table.items():
            bias, spread = [m.bias for m in each.values()], [m.spread for m in each.values()]
            ax.plot(bias, spread, "o-", ms=4, lw=1, label=name)
            for t, x, y in zip(each, bias, spread, strict=True):
                if t is not None:
                    ax.annotate(f"{t:g}", (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
        ax.set(
            yscale="log", xlabel="bias (of the exact gradient)", ylabel="spread of one estimate", title=title
        )
    plots[0].legend(fontsize=6)
    for name, curve in found.curves.items():
        last.plot(curve, label=name)
    last.set(xlabel="step", ylabel="mean cost", yscale="log", title="minimised with them")
    last.legend(fontsize=7)
    figure.savefig(path)


def shown(name: str, m: Measured) -> str:
    """A line; the bars are bias and spread, eight characters the exact gradient's norm."""
    bars = "█" * round(8 * m.bias) + "░" * round(8 * m.spread)
    return f"  {name:36} {m.bias:6.3f} ({m.chance:5.3f}) {m.spread:7.3f}  {bars}"


def main(picture: Path | None = None) -> Found:
    """Measure and minimise."""
    torch.manual_seed(0)
    scores = 0.5 * torch.randn(WORDS, TAGS)
    print(f"{'estimator, temperature':38} {'bias (chance)':>14} {'spread':>7}  bias █, spread ░")
    print("a Gaussian")
    gaussian, tables = of_a_gaussian(), {}
    for name, m in gaussian.items():
        print(shown(name, m))
    for title, coupling in COUPLING.items():
        print(title)
        tables[title] = of_taggings(scores, coupling)
        for name, each in tables[title].items():
            for t, m in each.items():
                print(shown(name if t is None else f"{name}, {t:g}", m))
    print(f"mean cost of a chain's taggings, before and after {STEPS} steps")
    curves = descend(scores)
    for name, curve in curves.items():
        print(f"  {name:36} {curve[0]:.3f} -> {curve[-1]:.3f}")
    found = Found(gaussian, tables, curves)
    if picture is not None:
        draw(found, picture)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
