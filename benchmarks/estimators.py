"""``python -m benchmarks.estimators``: bias, spread and time of every estimator of a gradient.

A chain and a tree of few structures, so that enumeration gives the exact gradient of E[f]; f is linear in
the parts, or its square. Each estimator makes many independent gradients: *bias* is the norm of their mean's
error, less what that many would have by chance (0 where it is not above it), *spread* the root of the summed
variance of one, both relative to the norm of the exact gradient; *error* is the root of both squares added.
Writes estimators.json and estimators.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks import machine
from structlv import (
    IMLE,
    BinaryTree,
    GumbelCRF,
    LinearChain,
    PerturbAndMAP,
    StochasticSoftmax,
    StraightThroughMarginals,
)
from structlv.learning.control_variates import REBAR
from structlv.learning.estimators import LeaveOneOut, MovingAverage, Relaxed, ScoreFunction, UnorderedSet
from structlv.viz import plot_bias_variance

COUNT = 20000  # independent gradients
TEMPERATURES = (0.1, 0.3, 1.0, 3.0)
SAMPLES = (1, 2, 4, 16)


class Problem:
    """A distribution over scores, a cost of parts, and E[f] by enumeration."""

    def __init__(self, build: Callable[[Tensor], Any], shape: tuple[int, ...], curved: bool) -> None:
        generator = Generator().manual_seed(1)
        self.build, self.curved = build, curved
        self.scores = torch.randn(shape, generator=generator)
        self.cost = torch.randn(shape, generator=generator)

    def of_parts(self, parts: Any) -> Tensor:
        linear = (parts[0] * self.cost).flatten(-self.cost.dim()).sum(-1)
        return linear.square() if self.curved else linear

    def of_events(self, events: Tensor) -> Tensor:
        return self.of_parts(self.build(self.scores).to_parts(events))

    def exact(self) -> Tensor:
        scores = self.scores.double().requires_grad_()
        p = self.build(scores)
        probability, events = _everything(p)
        value = (p.log_prob(events).exp() * self.of_events(events)).sum()
        assert abs(float(probability) - 1) < 1e-9  # they are all there
        return torch.autograd.grad(value, scores)[0]

    def gradients(self, estimator: Any, count: int) -> tuple[Tensor, float]:
        """(count, ...), and the seconds that one took."""
        scores = self.scores.expand(count, *self.scores.shape).clone().requires_grad_()
        f = self.of_parts if isinstance(estimator, Relaxed | REBAR) else self.of_events
        start = time.perf_counter()
        surrogate = estimator(self.build(scores), f, Generator().manual_seed(2))
        (found,) = torch.autograd.grad(surrogate.sum(), scores)
        return found.double(), (time.perf_counter() - start) / count


def _everything(p: Any) -> tuple[Tensor, Tensor]:
    """All structures, the best first, and their probability."""
    count = round(float(p.log_count().exp()))
    scores, events = p.topk(count)
    return (scores - p.log_partition()).exp().sum().detach(), events


def chain(scores: Tensor) -> LinearChain:
    return LinearChain(scores, torch.linspace(-1, 1, 9, dtype=scores.dtype).reshape(3, 3))


def tree(scores: Tensor) -> BinaryTree:
    return BinaryTree(scores, labelled=True)


PROBLEMS = {
    f"{name}, {'squared' if curved else 'linear'}": Problem(build, shape, curved)
    for name, build, shape in (("chain", chain, (5, 3)), ("tree", tree, (5, 5, 2)))
    for curved in (False, True)
}


def estimators() -> Iterator[tuple[str, str, float, Any]]:
    """Name, what is varied, its value, estimator."""
    for s in SAMPLES:
        yield "score function", "samples", s, ScoreFunction(s, baseline=None)
        yield "score function, moving average", "samples", s, ScoreFunction(s, baseline=MovingAverage())
        if s > 1:
            yield "score function, leave one out", "samples", s, ScoreFunction(s, baseline=LeaveOneOut())
            yield "unordered set", "samples", s, UnorderedSet(s)
        yield "straight-through marginals", "samples", s, Relaxed(StraightThroughMarginals(), num_samples=s)
        yield "IMLE, step 1", "samples", s, Relaxed(IMLE(), num_samples=s)
        if s < 16:
            yield "REBAR, temperature 0.5", "samples", s, REBAR(0.5, num_samples=s)
    for t in TEMPERATURES:
        for name, method in (
            ("stochastic softmax", StochasticSoftmax()),
            ("perturb and MAP", PerturbAndMAP()),
            ("Gumbel-CRF", GumbelCRF()),
            ("Gumbel-CRF, straight-through", GumbelCRF(hard=True)),
        ):
            yield f"{name}, 4 samples", "temperature", t, Relaxed(method, t, 4)


def measure(problem: Problem, estimator: Any, exact: Tensor) -> dict[str, float]:
    problem.gradients(estimator, 16)  # what a moving average remembers; warm caches
    found, seconds = problem.gradients(estimator, COUNT)
    norm = float(exact.norm())
    spread = float(found.var(0).sum().sqrt())
    squared = float((found.mean(0) - exact).square().sum()) - spread**2 / COUNT
    bias = max(squared, 0.0) ** 0.5
    significant = squared > 4 * spread**2 / COUNT
    return {
        "bias": bias / norm if significant else 0.0,
        "spread": spread / norm,
        "error": (max(squared, 0.0) + spread**2) ** 0.5 / norm,
        "microseconds": 1e6 * seconds,
    }


def run() -> dict[str, Any]:
    torch.set_num_threads(1)
    rows = []
    for title, problem in PROBLEMS.items():
        exact = problem.exact()
        print(f"\n{title:36s} {'':12s} {'bias':>8s} {'spread':>8s} {'error':>8s} {'us':>8s}")
        for name, varied, value, estimator in estimators():
            row = measure(problem, estimator, exact)
            rows.append({"problem": title, "estimator": name, varied: value, **row})
            print(
                f"{name:36s} {varied[:4]:4s} {value:<7g} {row['bias']:8.3f} {row['spread']:8.3f} "
                f"{row['error']:8.3f} {row['microseconds']:8.1f}"
            )
    return {"machine": machine.describe(), "torch": torch.__version__, "count": COUNT, "rows": rows}


def draw(document: dict[str, Any], file: Path) -> None:
    """A panel for each problem: bias against spread, a line for each estimator along what is varied."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), squeeze=False)
    for axis, title in zip(axes.flat, PROBLEMS, strict=True):
        mine = [row for row in document["rows"] if row["problem"] == title]
        estimates: dict[str, list[tuple[float, float, float]]] = {}
        for row in mine:
            varied = "temperature" if "temperature" in row else "samples"
            name = f"{row['estimator']} ({varied})"
            estimates.setdefault(name, []).append((row[varied], row["bias"], row["spread"]))
        plot_bias_variance(estimates, ax=axis, title=title)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    folder = parser.parse_args().out
    document = run()
    (folder / "estimators.json").write_text(json.dumps(document, indent=1) + "\n")
    draw(document, folder / "estimators.png")


if __name__ == "__main__":
    main()
