"""What factorial HMMs are good for: ``python -m benchmarks.factorial_learning chorales`` (or ``toy``).

``chorales``: held-out nats per event of the melodies of the UCI Bach chorales (pitches; 66 to learn from, 34
to test), a factorial HMM beside HMMs of as many parameters and of as many joint states. Sizes and priors are
chosen by cross-validation on the 66, the tests are seen once. ``toy``: EM with exact and mean-field E-steps
on data of known factorial HMMs, after Ghahramani & Jordan, "Factorial Hidden Markov Models", 1997, section
4.1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import structlv
from benchmarks.machine import describe
from structlv import AdditiveGaussian, Exact, FactorialHMM, MeanField, StructuredMeanField
from structlv.data import read_melodies
from structlv.learning import (
    Prior,
    fit_em,
    nats_per_event,
    num_parameters,
    padded,
    random_categorical,
    random_gaussian,
    states_of_equal_parameters,
)
from structlv.models import AdditiveBigram

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).with_name("results")
SEEDS = (0, 1, 2)

TRAIN = 66
FOLDS = 3
CHOOSING_SEEDS = (100, 101)  # others than those that are reported
SIZES = ((8, 4), (8, 8), (4, 4, 4), (5, 5, 5), (6, 6, 6), (3, 3, 3, 3), (4, 4, 4, 4))
LARGER_HMMS = (20, 30, 48, 64, 96)
PRIORS = (Prior(0.1, 0.1, 0.01), Prior(0.1, 0.1, 0.1), Prior(0.1, 0.5, 0.02))
ITERATIONS, TOLERANCE = 100, 1e-4

Sizes = tuple[int, ...]


# ---- chorales ------------------------------------------------------------------------------------------


def chorales() -> dict[str, Any]:
    """Choose, learn, test."""
    begun = time.perf_counter()
    melodies = [m.pitches - 60 for m in read_melodies(DATA / "uci_chorales" / "chorales.lisp")]
    train, test = melodies[:TRAIN], melodies[TRAIN:]
    vocabulary = int(torch.cat(melodies).max()) + 1
    validation = {sizes: best_prior(sizes, train, vocabulary) for sizes in SIZES}
    sizes = min(validation, key=lambda one: validation[one][1])
    same = (states_of_equal_parameters(sizes, vocabulary),)
    joint = (math.prod(sizes),)
    free = [(k,) for k in LARGER_HMMS]
    for one in (same, joint, *free):
        validation[one] = best_prior(one, train, vocabulary)
    largest = min(free, key=lambda one: validation[one][1])
    named = {
        "factorial HMM": sizes,
        "HMM, as many parameters": same,
        "HMM, as many joint states": joint,
        "HMM, best of all sizes": largest,
    }
    models = {name: tested(one, validation[one], train, test, vocabulary) for name, one in named.items()}
    bigram = AdditiveBigram(vocabulary).fit(m.tolist() for m in train)
    nats = -sum(bigram.log_prob(m.tolist()) for m in test) / sum(map(len, test))
    return {
        "machine": describe(),
        "versions": {"structlv": structlv.__version__, "torch": torch.__version__},
        "test_events": sum(map(len, test)),
        "models": {**models, "bigram, add 1/2": {"nats": [nats], "mean_nats": nats, "mean_bits": bits(nats)}},
        "validation": {
            "x".join(map(str, one)): {"prior": list(prior), "nats": value}
            for one, (prior, value) in validation.items()
        },
        "seconds": time.perf_counter() - begun,
    }


def best_prior(sizes: Sizes, train: list[Tensor], vocabulary: int) -> tuple[Prior, float]:
    """By cross-validated nats per event, over folds and seeds."""
    values = {prior: cross_validated(sizes, prior, train, vocabulary) for prior in PRIORS}
    prior = min(values, key=values.__getitem__)
    report(f"{sizes}: {values[prior]:.4f} nats in cross-validation with {tuple(prior)}")
    return prior, values[prior]


def cross_validated(sizes: Sizes, prior: Prior, train: list[Tensor], vocabulary: int) -> float:
    total = 0.0
    for fold in range(FOLDS):
        rest = [m for i, m in enumerate(train) if i % FOLDS != fold]
        left_out = train[fold::FOLDS]
        for seed in CHOOSING_SEEDS:
            model = learned(sizes, prior, rest, vocabulary, seed)
            total += nats_per_event(model, left_out) * sum(map(len, left_out))
    return total / (len(CHOOSING_SEEDS) * sum(map(len, train)))


def learned(sizes: Sizes, prior: Prior, melodies: list[Tensor], vocabulary: int, seed: int) -> FactorialHMM:
    counts = torch.bincount(torch.cat(melodies), minlength=vocabulary)
    x, lengths = padded(melodies)
    options = {"prior": prior, "iterations": ITERATIONS, "tolerance": TOLERANCE, "progress": False}
    return fit_em(partial(random_categorical, sizes, counts), x, lengths, seeds=[seed], **options).model


def tested(
    sizes: Sizes, chosen: tuple[Prior, float], train: list[Tensor], test: list[Tensor], vocabulary: int
) -> dict[str, Any]:
    """Nats per test event of each seed."""
    prior, validated = chosen
    nats = [nats_per_event(learned(sizes, prior, train, vocabulary, seed), test) for seed in SEEDS]
    report(f"{sizes}: {', '.join(f'{value:.4f}' for value in nats)} nats on the test melodies")
    return {
        "states": list(sizes),
        "parameters": num_parameters(sizes, vocabulary),
        "prior": list(prior),
        "validation_nats": validated,
        "seeds": list(SEEDS),
        "nats": nats,
        "mean_nats": statistics.mean(nats),
        "mean_bits": bits(statistics.mean(nats)),
    }


def bits(nats: float) -> float:
    return nats / math.log(2)


# ---- toy -----------------------------------------------------------------------------------------------

PROBLEMS = ((3, 2), (3, 3), (5, 2))  # chains, states of each
TRIALS = 15
SEQUENCES, LENGTH, DIMENSIONS = 20, 20, 4
METHODS = {
    "exact": Exact(),
    "structured mean field": StructuredMeanField(),
    "factorised mean field": MeanField(),
}
HMM = "HMM of all joint states"


def toy() -> dict[str, Any]:
    """Test log-likelihood per sequence less that of the model the data come from, for each way to learn."""
    begun = time.perf_counter()
    gaps = {f"{m} chains of {k}": trials(m, k) for m, k in PROBLEMS}
    return {
        "machine": describe(),
        "versions": {"structlv": structlv.__version__, "torch": torch.__version__},
        "sequences": SEQUENCES,
        "length": LENGTH,
        "dimensions": DIMENSIONS,
        "unit": "nats per test sequence, less the true model's",
        "gaps": gaps,
        "means": {p: {name: statistics.mean(v) for name, v in found.items()} for p, found in gaps.items()},
        "seconds": time.perf_counter() - begun,
    }


def trials(m: int, k: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in (*METHODS, HMM)}
    for seed in range(TRIALS):
        truth = known(m, k, seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        train, test = (truth.sample((SEQUENCES,), length=LENGTH, generator=generator) for _ in range(2))
        best = float(truth.log_prob(test).mean())
        start = random_gaussian((k,) * m, train.flatten(0, 1), seed)
        whole = random_gaussian((k**m,), train.flatten(0, 1), seed)
        ways = {**{name: (start, method) for name, method in METHODS.items()}, HMM: (whole, Exact())}
        for name, (begin, method) in ways.items():
            options = {"method": method, "prior": SAFE, "tolerance": TOLERANCE, "progress": False}
            model = fit_em(begin, train, **options).model
            found[name].append(float(model.log_prob(test).mean()) - best)
    for name, values in found.items():
        report(f"{m} chains of {k}, {name}: {statistics.mean(values):.2f} nats per sequence")
    return found


SAFE = Prior(0.01, 0.01, covariance=0.01)  # no probability is 0, no variance vanishes


def known(m: int, k: int, seed: int) -> FactorialHMM:
    """A random model: uniform rows of transitions, normal means, noise of variance 1/4."""
    generator = torch.Generator().manual_seed(seed)
    rand = partial(torch.rand, generator=generator, dtype=torch.float64)
    means = [torch.randn(k, DIMENSIONS, generator=generator, dtype=torch.float64) for _ in range(m)]
    noise = 0.25 * torch.eye(DIMENSIONS, dtype=torch.float64)
    return FactorialHMM(
        [rand(k).log() for _ in range(m)],
        [rand(k, k).log() for _ in range(m)],
        AdditiveGaussian(means, noise),
    )


def draw(document: dict[str, Any], path: Path) -> None:
    """A dot for each trial, a line for each mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(document["gaps"]), sharey=True)
    for ax, (problem, found) in zip(axes, document["gaps"].items(), strict=True):
        for row, values in enumerate(found.values()):
            spread = [row + 0.24 * (i / len(values) - 0.5) for i in range(len(values))]
            ax.scatter(values, spread, s=14, alpha=0.7, color=f"C{row}")
            ax.plot([statistics.mean(values)] * 2, [row - 0.3, row + 0.3], color="0.15")
        ax.axvline(0, color="0.6", linewidth=0.8, linestyle="--")
        ax.set_title(problem.replace(" of ", ", each of ") + " states", fontsize=10)
        ax.set_xlabel("log-likelihood of a test sequence\nless the true model's (nats)", fontsize=9)
        ax.set_yticks(range(len(found)), list(found), fontsize=9)
        ax.tick_params(axis="x", labelsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path)


# ---- both ----------------------------------------------------------------------------------------------


@cache
def _begun() -> float:
    return time.perf_counter()


def report(text: str) -> None:
    print(f"{time.perf_counter() - _begun():6.0f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.factorial_learning", description=__doc__)
    parser.add_argument("name", choices=["chorales", "toy"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    _begun()
    document = chorales() if options.name == "chorales" else toy()
    name = {"chorales": "chorales", "toy": "factorial-toy"}[options.name]
    (options.out / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    if options.name == "toy":
        draw(document, options.out / f"{name}.png")


if __name__ == "__main__":
    main()
