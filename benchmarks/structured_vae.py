"""Structured VAEs by several estimators of gradients: ``python -m benchmarks.structured_vae`` (ten minutes).

Questions to the Air Travel Information Service (UD ATIS): `ChainVAE` on all of them, `TreeVAE` on those of up
to ten words; beside each a neural HMM of 16 states, trained on its exact likelihood. The curves are the
evidence lower bound of held-out sentences, from hard samples whatever the training relaxes. In training the
KL counts little at first (a linear warm-up). All models condition on the length; the trees' decoder alone
sees the words before. Kim, Wiseman & Rush 2018, sections 6.2.2 and 6.4.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

import structlv
from benchmarks.machine import describe
from structlv import GumbelCRF, StochasticSoftmax, StraightThroughMarginals
from structlv.data import Batches, Vocabulary
from structlv.learning import EvidenceLowerBound, MarginalLikelihood, SequenceObjective, fit
from structlv.learning.estimators import VIMCO, Estimator, Relaxed, ScoreFunction, UnorderedSet
from structlv.learning.schedules import Linear
from structlv.models import ChainVAE, NeuralHMM, StructuredVAE, TreeVAE

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).with_name("results")
SEEDS = (0, 1)
EPOCHS = {"chain": 5, "tree": 8}
MOST_WORDS = {"chain": 100, "tree": 10}
SENTENCES: int | None = None  # of each part; None for all
LR, BATCH, DIM = 5e-3, 32, 64
WARM_UP = 300  # steps
STATES, LABELS, WORD_DROPOUT = 16, 8, 0.3
SAMPLES = 32  # of the importance-weighted bound

ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "score function, leave-one-out, 4 samples": lambda: ScoreFunction(4),
    "unordered set of 4": lambda: UnorderedSet(4),
    "stochastic softmax, temperature 1/2": lambda: Relaxed(StochasticSoftmax(), temperature=0.5),
    "Gumbel-CRF, hard, temperature 1/2": lambda: Relaxed(GumbelCRF(hard=True), temperature=0.5),
    "straight-through marginals": lambda: Relaxed(StraightThroughMarginals()),
}
HMM = "neural HMM, exact likelihood"
NAMES = ("train", "dev", "test")


Parts = dict[str, list[Tensor]]


# ---- data ----------------------------------------------------------------------------------------------


def read(kind: str) -> tuple[Vocabulary, Parts]:
    texts = {name: list(_sentences(DATA / "ud_atis" / f"{name}.tsv", MOST_WORDS[kind])) for name in NAMES}
    texts = {name: text[:SENTENCES] for name, text in texts.items()}
    vocabulary = Vocabulary.build(texts["train"])
    return vocabulary, {name: list(map(vocabulary.encode, text)) for name, text in texts.items()}


def _sentences(path: Path, most: int) -> Iterator[list[str]]:
    """The first column of a table whose sentences end with an empty line; of 2 to ``most`` words."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        words = [line.split("\t")[0].lower() for line in block.splitlines()]
        if 2 <= len(words) <= most:
            yield words


def count(part: list[Tensor]) -> int:
    return sum(map(len, part))


# ---- training ------------------------------------------------------------------------------------------


class Curve(pl.Callback):
    """After each epoch: steps, seconds of training, and held-out nats per word."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self.seconds = self.begun = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.begun = time.process_time()

    def on_validation_start(self, *_: Any) -> None:
        self.seconds += time.process_time() - self.begun

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        nats = float(trainer.callback_metrics["val_nats"])
        self.points.append([trainer.global_step, round(self.seconds, 2), round(nats, 4)])


def trained(objective: SequenceObjective, parts: Parts, epochs: int) -> list[list[float]]:
    curve = Curve()
    held_out = Batches(parts["dev"], 64, shuffle=False)
    with tempfile.TemporaryDirectory() as folder:
        options = {"folder": folder, "epochs": epochs, "progress": False, "checkpoint_every": 10**6}
        fit(objective, Batches(parts["train"], BATCH), held_out, callbacks=[curve], **options)
    objective.model.eval()
    return curve.points


def runs(kind: str, seed: int) -> dict[str, Any]:
    """Every estimator, on chains or on trees; and the HMM."""
    vocabulary, parts = read(kind)
    found = {}
    for name, estimator in ESTIMATORS.items():
        torch.manual_seed(seed)
        model = made(kind, len(vocabulary)).use(estimator())
        beta = Linear(WARM_UP - 1, start=1 / WARM_UP)
        objective = EvidenceLowerBound(model, beta=beta, lr=LR, betas=(0.9, 0.99), seed=seed)
        points = trained(objective, parts, EPOCHS[kind])
        found[name] = {"seed": seed, "curve": points, "test": tested(model, parts["test"])}
        report(kind, name, seed, points)
    torch.manual_seed(seed)
    hmm = NeuralHMM(STATES, len(vocabulary), dim=DIM, stop=False)
    points = trained(MarginalLikelihood(hmm, seed=seed), parts, EPOCHS[kind])
    with torch.no_grad():
        exact = sum(float(hmm.log_prob(x)) for x in parts["test"]) / count(parts["test"])
    found[HMM] = {"seed": seed, "curve": points, "test": {"log_prob": round(exact, 4)}}
    report(kind, HMM, seed, points)
    return found


def made(kind: str, vocabulary: int) -> StructuredVAE:
    if kind == "chain":
        return ChainVAE(vocabulary, num_states=STATES, dim=DIM)
    return TreeVAE(vocabulary, num_labels=LABELS, dim=DIM, word_dropout=WORD_DROPOUT)


@torch.no_grad()
def tested(model: StructuredVAE, part: list[Tensor]) -> dict[str, float]:
    """Nats per word of the test sentences: both bounds, and the KL."""
    sums = [0.0, 0.0, 0.0]
    torch.manual_seed(0)
    for batch in Batches(part, 64, shuffle=False):
        elbo = model.elbo(batch.tokens, batch.lengths)
        importance = model.importance_bound(batch.tokens, batch.lengths, VIMCO(SAMPLES))
        sums = [a + float(b.sum()) for a, b in zip(sums, (elbo.bound, elbo.kl, importance), strict=True)]
    names = ("bound", "kl", f"importance_bound_{SAMPLES}")
    return {name: round(value / count(part), 4) for name, value in zip(names, sums, strict=True)}


# ---- results -------------------------------------------------------------------------------------------


def experiment() -> Iterator[dict[str, Any]]:
    """The document, whole after each seed."""
    begun = time.perf_counter()
    found: dict[str, dict[str, list[Any]]] = {
        kind: {name: [] for name in (*ESTIMATORS, HMM)} for kind in EPOCHS
    }
    for seed in SEEDS:
        for kind in EPOCHS:
            for name, run in runs(kind, seed).items():
                found[kind][name].append(run)
        yield {
            "unit": "nats per word, given the length; curves: steps, seconds of training, minus the bound",
            "batch": BATCH,
            "learning_rate": LR,
            "warm_up": WARM_UP,
            "machine": describe(),
            "versions": {
                "structlv": structlv.__version__,
                "torch": torch.__version__,
                "pytorch-lightning": pl.__version__,
            },
            **{kind: {**sizes(kind), "runs": found[kind]} for kind in EPOCHS},
            "seconds": round(time.perf_counter() - begun, 1),
        }


def sizes(kind: str) -> dict[str, Any]:
    vocabulary, parts = read(kind)
    of_parts = {name: {"sentences": len(part), "words": count(part)} for name, part in parts.items()}
    return {"vocabulary": len(vocabulary), "parts": of_parts}


def draw(document: dict[str, Any], path: Path) -> None:
    """Held-out bound against seconds of training: the mean over seeds, and each seed thinly."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(EPOCHS), squeeze=False)[0]
    titles = {"chain": "chains of 16 states", "tree": "trees of 8 labels, sentences of up to 10 words"}
    for ax, kind in zip(axes, EPOCHS, strict=True):
        last = []
        for i, (name, found) in enumerate(document[kind]["runs"].items()):
            style = {"color": "0.3", "linestyle": "--"} if name == HMM else {"color": f"C{i}"}
            curves = [[point[1:] for point in run["curve"]] for run in found]
            for curve in curves:
                ax.plot(*zip(*curve, strict=True), alpha=0.35, linewidth=0.7, **style)
            mean = [
                [statistics.mean(x) for x in zip(*points, strict=True)]
                for points in zip(*curves, strict=True)
            ]
            ax.plot(*zip(*mean, strict=True), label=name, linewidth=1.8, **style)
            last += [point[1] for point in mean[len(mean) // 3 :]]
        ax.set_ylim(min(last) - 0.05, max(last) + 0.05)
        ax.set_title(titles[kind], fontsize=10)
        ax.set_xlabel("seconds of training, one core", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("held-out nats per word: minus the bound,\nfrom hard samples", fontsize=9)
    axes[0].legend(fontsize=7.5)
    figure.savefig(path)


@cache
def _begun() -> float:
    return time.perf_counter()


def report(kind: str, name: str, seed: int, points: list[list[float]]) -> None:
    text = f"{kind}, {name}, seed {seed}: {points[-1][2]:.3f} nats per word after {points[-1][1]:.0f} s"
    print(f"{time.perf_counter() - _begun():6.0f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structured_vae", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    _begun()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for document in experiment():
        (options.out / "structured-vae.json").write_text(json.dumps(document, indent=2) + "\n")
        draw(document, options.out / "structured-vae.png")


if __name__ == "__main__":
    main()
