"""Does z say anything? ``python -m benchmarks.text_vae``: text VAEs on the E2E restaurant descriptions.

A text VAE trained on the plain ELBO, one with KL annealing and free bits, and an RNN language model of the
same decoder; a trigram model beside them. Learned from the corpus's 4,672 training texts but for 472 that
choose the epoch (they are of the same restaurants and thus easier than test texts); tested on every fourth of
the 4,693 test texts. All numbers are nats, the end of the text is scored. After Bowman et al., "Generating
sentences from a continuous space", 2016, section 4; Kim, Wiseman & Rush 2018, sections 6.2.2, 6.2.3, 6.3.2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

import structlv
from benchmarks.machine import describe
from structlv.data import Batches, Vocabulary
from structlv.data.readers import numbered_lines, tokenise
from structlv.learning import (
    EvidenceLowerBound,
    MarginalLikelihood,
    evaluate,
    fit,
    importance_bound,
    interpolate,
    prior_samples,
)
from structlv.learning.schedules import Linear
from structlv.models import RNNLM, TextVAE, WittenBell

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).with_name("results")

SEED, HELD_OUT, BATCH = 0, 472, 32
SIZES: dict[str, int] = {"word_dim": 64, "dim": 128}
LATENT: dict[str, int] = {"latent": 16, "encoder_dim": 64}
OPTIONS: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.99), "schedule": "cosine"}
ANNEALED_EPOCHS, FREE_BITS = 5, 0.25  # nats for each of the 16 dimensions: at least 4 in all
SAMPLES, WATCHED, EVERY = 100, 200, 4
NOISE_SAMPLES, NOISE_RUNS, NOISE_ITEMS = (1, 4, 16, 64), 50, 8

PLAIN, ANNEALED = "text VAE, plain ELBO", "text VAE, annealing and free bits"


class Corpus:
    """Encoded texts: to learn from, to choose the epoch by, to test on."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        learn, test = (read(folder / name)[:limit] for name in ("train.tsv", "test.tsv"))
        self.vocabulary = Vocabulary.build(learn)
        order = torch.randperm(len(learn), generator=torch.Generator().manual_seed(SEED)).tolist()
        held_out = min(HELD_OUT, len(learn) // 4)
        encoded = [self.vocabulary.encode(learn[i]) for i in order]
        self.everything = encoded
        self.train, self.validation = encoded[held_out:], encoded[:held_out]
        self.test = [self.vocabulary.encode(text) for text in test]
        self.tested = self.test[::EVERY]


def read(path: Path) -> list[tuple[str, ...]]:
    return [tokenise(line.split("\t")[1]) for _, line in numbered_lines(path)]


def batches(texts: list[Tensor], size: int = 64) -> Batches:
    return Batches(texts, size, shuffle=False)


class Best(pl.Callback):
    """What the validation texts say after each epoch; the weights of the best one."""

    def __init__(self, name: str, watched: list[Tensor], symbols: float) -> None:
        self.name, self.watched, self.symbols = name, watched, symbols
        self.curve: list[dict[str, Any]] = []
        self.best, self.weights = float("inf"), {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        nats = float(trainer.callback_metrics["val_nats"]) * self.symbols
        row: dict[str, Any] = {"nats": nats}
        if isinstance(pl_module.model, TextVAE):
            found = evaluate(pl_module.model, batches(self.watched, 50), num_samples=1)
            row |= {
                "kl": found.kl,
                "mutual_information": found.mutual_information.value,
                "active_units": found.active_units,
            }
        self.curve.append(row)
        report(f"{self.name}, epoch {len(self.curve)}: " + ", ".join(f"{k} {v:.2f}" for k, v in row.items()))
        if nats < self.best:
            self.best = nats
            self.weights = {k: v.clone() for k, v in pl_module.model.state_dict().items()}


def learned(name: str, objective: Any, corpus: Corpus, epochs: int) -> dict[str, Any]:
    """Train; leave the model with its best epoch's weights."""
    begun = time.perf_counter()
    symbols = sum(len(t) + 1 for t in corpus.validation) / len(corpus.validation)
    best = Best(name, corpus.validation[:WATCHED], symbols)
    with tempfile.TemporaryDirectory() as folder:
        data = Batches(corpus.train, BATCH, seed=SEED), batches(corpus.validation)
        options = {
            "gradient_clip_val": 5.0,
            "checkpoint_every": 10**6,
            "progress": False,
            "callbacks": [best],
        }
        fit(objective, *data, folder=folder, epochs=epochs, **options)
    objective.model.load_state_dict(best.weights)
    objective.model.eval()
    return {"seconds": time.perf_counter() - begun, "curve": best.curve}


def language_model(corpus: Corpus, epochs: int) -> dict[str, Any]:
    torch.manual_seed(SEED)
    model = RNNLM(len(corpus.vocabulary), **SIZES)
    training = learned("RNNLM", MarginalLikelihood(model, seed=SEED, **OPTIONS), corpus, epochs)
    with torch.no_grad():
        tested, all_of_it = (nats_per_text(model, texts) for texts in (corpus.tested, corpus.test))
    return {"test_nats": tested, "whole_test_nats": all_of_it, **training}


def nats_per_text(model: RNNLM, texts: list[Tensor]) -> float:
    return -sum(float(model.log_prob(b.tokens, b.lengths).sum()) for b in batches(texts)) / len(texts)


def text_vae(name: str, corpus: Corpus, epochs: int, **kind: Any) -> tuple[TextVAE, dict[str, Any]]:
    torch.manual_seed(SEED)
    model = TextVAE(len(corpus.vocabulary), **SIZES, **LATENT)
    objective = EvidenceLowerBound(model, seed=SEED, **OPTIONS, **kind)
    training = learned(name, objective, corpus, epochs)
    torch.manual_seed(SEED)
    found = evaluate(model, batches(corpus.tested, 50), num_samples=SAMPLES)
    numbers = asdict(found) | {
        "mutual_information": found.mutual_information._asdict(),
        "swapped": {**found.swapped._asdict(), "gap": found.swapped.gap},
        "test_nats": -found.log_likelihood,
    }
    report(f"{name}: {-found.log_likelihood:.2f} nats per test text, {found.active_units} active units")
    return model, {**numbers, "texts": shown(model, corpus), **training}


@torch.no_grad()
def shown(model: TextVAE, corpus: Corpus) -> dict[str, list[str]]:
    """Draws of the prior, and the most probable words on a line between the posterior means of two texts."""
    torch.manual_seed(SEED)
    drawn = prior_samples(model, 4, max_length=60)
    ends = torch.cat([model.encode(corpus.tested[i].unsqueeze(0)).mean for i in (0, -1)])
    line = interpolate(ends[0], ends[1], 5)
    between = model.generate(line, max_length=60, greedy=True)

    def words(x: Tensor, lengths: Tensor) -> list[str]:
        return [" ".join(corpus.vocabulary.decode(row[:n])) for row, n in zip(x, lengths, strict=True)]

    return {"drawn": words(*drawn), "interpolated": words(*between)}


def signal_to_noise(model: TextVAE, corpus: Corpus, runs: int) -> dict[str, list[float]]:
    """|mean| / standard deviation of the encoder's gradient over runs, a mean over the head's parameters."""
    x, lengths, _ = batches(corpus.tested, NOISE_ITEMS).collate(torch.arange(NOISE_ITEMS))
    found: dict[str, list[float]] = {"plain": [], "doubly": []}
    for kind, values in found.items():
        for samples in NOISE_SAMPLES:
            slopes = []
            for _ in range(runs):
                bound = importance_bound(model, x, lengths, num_samples=samples, gradient=kind).mean()
                slopes.append(torch.autograd.grad(bound, model.gaussian.head.weight)[0].flatten())
            table = torch.stack(slopes)
            values.append(float((table.mean(0).abs() / table.std(0).clamp(min=1e-30)).mean()))
            report(f"gradient of {samples} samples, {kind}: signal to noise {values[-1]:.3f}")
    return found


def run(epochs: int, limit: int | None = None, runs: int = NOISE_RUNS) -> dict[str, Any]:
    begun = time.perf_counter()
    corpus = Corpus(DATA / "e2e", limit)
    trigram = WittenBell(3, len(corpus.vocabulary)).fit(t.tolist() for t in corpus.everything)

    def of_trigram(texts: list[Tensor]) -> float:
        return -sum(trigram.log_prob(t.tolist()) for t in texts) / len(texts)

    models: dict[str, Any] = {
        "trigram": {"test_nats": of_trigram(corpus.tested), "whole_test_nats": of_trigram(corpus.test)},
        "RNN language model": language_model(corpus, epochs),
    }
    _, models[PLAIN] = text_vae(PLAIN, corpus, epochs)
    steps = len(Batches(corpus.train, BATCH)) * ANNEALED_EPOCHS
    kind = {"beta": Linear(steps), "free_bits": FREE_BITS}
    vae, models[ANNEALED] = text_vae(ANNEALED, corpus, epochs, **kind)
    return {
        "machine": describe(),
        "versions": {"structlv": structlv.__version__, "torch": torch.__version__},
        "data": {
            "train": len(corpus.train),
            "validation": len(corpus.validation),
            "test": len(corpus.tested),
            "whole_test": len(corpus.test),
            "vocabulary": len(corpus.vocabulary),
        },
        "settings": {
            **SIZES,
            **LATENT,
            **OPTIONS,
            "epochs": epochs,
            "batch": BATCH,
            "seed": SEED,
            "free_bits": FREE_BITS,
            "annealed_epochs": ANNEALED_EPOCHS,
            "importance_samples": SAMPLES,
        },
        "models": models,
        "signal_to_noise": {"samples": NOISE_SAMPLES, "runs": runs, **signal_to_noise(vae, corpus, runs)},
        "seconds": time.perf_counter() - begun,
    }


def draw(document: dict[str, Any], path: Path) -> None:
    """Validation curves, what z tells, and the gradient's signal over its noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 3.4), dpi=130, layout="constrained")
    fit_axis, use_axis, swap_axis, noise_axis = figure.subplots(1, 4)
    models = document["models"]
    for i, (name, found) in enumerate(models.items()):
        curve = found.get("curve")
        if curve:
            epochs = range(1, len(curve) + 1)
            label = "RNN language model" if i == 1 else name.removeprefix("text VAE, ") + " (bound)"
            fit_axis.plot(epochs, [row["nats"] for row in curve], color=f"C{i}", label=label)
        if curve and "kl" in curve[0]:
            use_axis.plot(epochs, [row["kl"] for row in curve], color=f"C{i}", label="KL")
            rows = [row["mutual_information"] for row in curve]
            use_axis.plot(epochs, rows, color=f"C{i}", linestyle="--", label="mutual information")
    fit_axis.set(xlabel="epoch", ylabel="nats per validation text")
    fit_axis.legend(fontsize=7)
    use_axis.set(xlabel="epoch", ylabel="nats per validation text")
    use_axis.set_title("KL (solid), mutual information (dashed)", fontsize=8)
    for i, name in ((2, PLAIN), (3, ANNEALED)):
        swapped = models[name]["swapped"]
        losses = [-swapped["own"], -swapped["swapped"]]
        swap_axis.plot([0, 1], losses, color=f"C{i}", marker="o", label=name.removeprefix("text VAE, "))
    swap_axis.set_xticks([0, 1], ["its own z", "another text's z"])
    swap_axis.set(xlim=(-0.3, 1.3), ylabel="reconstruction loss, nats per test text")
    swap_axis.legend(fontsize=7)
    noise = document["signal_to_noise"]
    for kind, marker in (("plain", "o"), ("doubly", "s")):
        label = "doubly reparameterised" if kind == "doubly" else "reparameterised"
        noise_axis.semilogx(noise["samples"], noise[kind], marker=marker, label=label)
    noise_axis.set_xticks(noise["samples"], [str(k) for k in noise["samples"]])
    noise_axis.minorticks_off()
    noise_axis.set_ylim(bottom=0)
    noise_axis.set(xlabel="samples K", ylabel="signal / noise of the encoder's gradient")
    noise_axis.legend(fontsize=7)
    for axis in (fit_axis, use_axis, swap_axis, noise_axis):
        axis.tick_params(labelsize=8)
    figure.savefig(path)


BEGUN = time.perf_counter()


def report(text: str) -> None:
    print(f"{time.perf_counter() - BEGUN:6.0f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_vae", description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--limit", type=int, help="read only so many texts of each file")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    document = run(options.epochs, options.limit, NOISE_RUNS if options.limit is None else 3)
    (options.out / "text-vae.json").write_text(json.dumps(document, indent=2) + "\n")
    draw(document, options.out / "text-vae.png")


if __name__ == "__main__":
    main()
