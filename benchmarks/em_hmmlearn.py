"""How long EM takes here and in hmmlearn: ``python -m benchmarks.em_hmmlearn``.

Both make 20 iterations from the same start on the same data, one thread; what they find is compared first.
Seconds are of the processor, the least of several rounds in which the two take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hmmlearn import hmm as theirs

import structlv
from benchmarks.machine import describe
from structlv import sklearn as ours

RESULTS = Path(__file__).with_name("results")
ITERATIONS, ROUNDS = 20, 3
SEQUENCES, LENGTH = 400, 50
SYMBOLS, FEATURES = 100, 4
STATES = (4, 16)
SEED = 0


def rows(rng: np.random.RandomState, *shape: int) -> Any:
    table = rng.gamma(2.0, size=shape)
    return table / table.sum(-1, keepdims=True)


def cases(states: int) -> dict[str, tuple[str, dict[str, Any], dict[str, Any], Any]]:
    """By name the class, its options, what fitting begins with, and data."""
    rng = np.random.RandomState(SEED)
    n = SEQUENCES * LENGTH
    chain = {"startprob_": rows(rng, states), "transmat_": rows(rng, states, states)}
    normal = {**chain, "means_": rng.normal(size=(states, FEATURES))}
    vectors = rng.normal(size=(n, FEATURES))
    full = np.tile(np.eye(FEATURES), (states, 1, 1))
    return {
        "CategoricalHMM": (
            "CategoricalHMM",
            {},
            {**chain, "emissionprob_": rows(rng, states, SYMBOLS)},
            rng.randint(SYMBOLS, size=(n, 1)),
        ),
        "PoissonHMM": (
            "PoissonHMM",
            {},
            {**chain, "lambdas_": rng.gamma(3.0, size=(states, FEATURES))},
            rng.randint(9, size=(n, FEATURES)),
        ),
        "GaussianHMM, diag": (
            "GaussianHMM",
            {"covariance_type": "diag"},
            {**normal, "covars_": np.ones((states, FEATURES))},
            vectors,
        ),
        "GaussianHMM, full": (
            "GaussianHMM",
            {"covariance_type": "full"},
            {**normal, "covars_": full},
            vectors,
        ),
    }


def timed(
    module: Any, name: str, options: dict[str, Any], begin: dict[str, Any], x: Any
) -> tuple[float, float]:
    """Seconds of the processor, and the log-likelihood of the result."""
    states = len(begin["startprob_"])
    model = getattr(module, name)(states, n_iter=ITERATIONS, tol=-np.inf, init_params="", **options)
    for attribute, value in begin.items():
        setattr(model, attribute, value.copy())
    lengths = [LENGTH] * SEQUENCES
    start = time.process_time()
    model.fit(x, lengths)
    return time.process_time() - start, float(model.score(x, lengths))


def measured(states: int) -> dict[str, dict[str, float]]:
    found = {}
    for label, (name, options, begin, x) in cases(states).items():
        times: dict[str, list[float]] = {"structlv": [], "hmmlearn": []}
        for _ in range(ROUNDS):
            scores = []
            for library, module in (("structlv", ours), ("hmmlearn", theirs)):
                seconds, score = timed(module, name, options, begin, x)
                times[library].append(seconds)
                scores.append(score)
            if abs(scores[0] - scores[1]) > 1e-6 * abs(scores[1]):
                raise RuntimeError(f"{label}, {states} states: log-likelihoods differ: {scores}")
        best = {library: min(values) for library, values in times.items()}
        found[label] = {**best, "ratio": best["hmmlearn"] / best["structlv"]}
        print(f"{states} states, {label}: {found[label]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.em_hmmlearn", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    packages = ("torch", "numpy", "hmmlearn", "scikit-learn")
    document = {
        "machine": describe(),
        "versions": {"structlv": structlv.__version__, **{name: version(name) for name in packages}},
        "iterations": ITERATIONS,
        "rounds": ROUNDS,
        "sequences": SEQUENCES,
        "length": LENGTH,
        "symbols": SYMBOLS,
        "features": FEATURES,
        "seed": SEED,
        "unit": "seconds of the processor for all iterations, one thread",
        "states": {str(states): measured(states) for states in STATES},
    }
    (options.out / "em-hmmlearn.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
