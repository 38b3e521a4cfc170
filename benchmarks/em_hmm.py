"""What EM finds on real data: ``python -m benchmarks.em_hmm tags`` (or ``earthquakes``).

``tags``: parts of speech without supervision. HMMs of as many states as there are tags are learned by EM
from the words of UD EWT (17 tags) and UD ATIS (13), neural HMMs of as many states by gradient from the same;
states are read as tags. Words in lower case, those seen once are one word, the end of a sentence is not
scored, EM makes 100 iterations, states are decoded by their posterior on the training sentences themselves.
``earthquakes``: Poisson HMMs of the yearly numbers of large earthquakes, the best of 30 starts.
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
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import structlv
from benchmarks.machine import describe
from structlv import HMM
from structlv.data import Batches, Vocabulary
from structlv.learning import MarginalLikelihood, fit, fit_em, hmm_of_counts, hmm_of_symbols, padded
from structlv.metrics import many_to_one, v_measure
from structlv.models import NeuralHMM

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).with_name("results")
SEEDS = (0, 1, 2)
ITERATIONS = 100
CORPORA = {"ud_atis": 13, "ud_ewt": 17}
NEURAL = {"ud_atis": 20, "ud_ewt": 8}  # epochs: fewer than such a model needs to converge
BATCH = 64  # sentences
STARTS = 30
EARTHQUAKES = {2: -341.8787, 3: -328.5275}  # nats, of an independent implementation


class Corpus(NamedTuple):
    """Sentences as word indices, and the tag of every word, one sentence after the other."""

    vocabulary: Vocabulary
    sentences: list[Tensor]
    tags: list[str]


def read(name: str) -> Corpus:
    """The training part: FORM and UPOS, blank lines between sentences."""
    words: list[list[str]] = [[]]
    tags = []
    for line in (DATA / name / "train.tsv").read_text(encoding="utf-8").splitlines():
        if line:
            form, upos, *_ = line.split("\t")
            words[-1].append(form.lower())
            tags.append(upos)
        elif words[-1]:
            words.append([])
    sentences = [sentence for sentence in words if sentence]
    vocabulary = Vocabulary.build(sentences)
    return Corpus(vocabulary, [vocabulary.encode(s) for s in sentences], tags)


# ---- tags ----------------------------------------------------------------------------------------------


def tags() -> dict[str, Any]:
    return {
        **about(),
        "iterations": ITERATIONS,
        "neural_epochs": NEURAL,
        "corpora": {name: compared(name, states) for name, states in CORPORA.items()},
    }


def compared(name: str, states: int) -> dict[str, Any]:
    corpus = read(name)
    words, types = len(corpus.tags), len(corpus.vocabulary)
    report(f"{name}: {len(corpus.sentences)} sentences, {words} words, {types} types")
    ways = {
        "EM": partial(em, corpus, near_frequencies(corpus, states)),
        "EM, flat start": partial(em, corpus, partial(flat, states, types)),
        "neural HMM": partial(gradient, corpus, states, NEURAL[name]),
    }
    runs = {
        way: [scored(f"{name}, {way}, seed {seed}", corpus, partial(learn, seed)) for seed in SEEDS]
        for way, learn in ways.items()
    }
    return {
        "sentences": len(corpus.sentences),
        "words": words,
        "types": types,
        "states": states,
        "seeds": list(SEEDS),
        "runs": runs,
        "means": {
            way: {key: statistics.mean(one[key] for one in each) for key in each[0]}
            for way, each in runs.items()
        },
    }


def near_frequencies(corpus: Corpus, states: int) -> Callable[[int], HMM]:
    """Starts near the frequencies of words: normal noise on their logarithms."""
    counts = torch.bincount(torch.cat(corpus.sentences), minlength=len(corpus.vocabulary))
    return partial(hmm_of_symbols, states, counts)


def flat(states: int, types: int, seed: int) -> HMM:
    """Starts that know nothing: every row of probabilities is uniform on its simplex."""
    generator = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator).log()

    return HMM(rows(states), rows(states, states), rows(states, types))


def em(corpus: Corpus, start: Callable[[int], HMM], seed: int) -> HMM:
    x, lengths = padded(corpus.sentences)
    options: dict[str, Any] = {"iterations": ITERATIONS, "tolerance": 0.0, "progress": False}
    return fit_em(start, x, lengths, seeds=[seed], **options).model


def gradient(corpus: Corpus, states: int, epochs: int, seed: int) -> HMM:
    torch.manual_seed(seed)
    model = NeuralHMM(states, len(corpus.vocabulary), stop=False)
    model.start_from_counts(torch.bincount(torch.cat(corpus.sentences), minlength=len(corpus.vocabulary)))
    with tempfile.TemporaryDirectory() as folder:
        fit(
            MarginalLikelihood(model, seed=seed),
            Batches(corpus.sentences, BATCH, seed=seed),
            folder=folder,
            epochs=epochs,
            progress=False,
        )
    with torch.no_grad():
        return model.distribution().detach()


@torch.no_grad()
def scored(name: str, corpus: Corpus, learn: Any) -> dict[str, float]:
    """How states agree with tags, nats per word, and the seconds that learning took."""
    begun = time.perf_counter()
    model = learn()
    seconds = time.perf_counter() - begun
    found: list[int] = []
    total = 0.0
    for some in range(0, len(corpus.sentences), 512):
        sentences = corpus.sentences[some : some + 512]
        x, lengths = padded(sentences)
        posterior = model.posterior(x, lengths)
        total += float(posterior.log_partition().double().sum())
        states = posterior.posterior_decode()
        found += states[states >= 0].tolist()
    result = {
        "many_to_one": many_to_one(found, corpus.tags),
        "v_measure": v_measure(found, corpus.tags),
        "nats_per_word": total / len(corpus.tags),
        "seconds": seconds,
    }
    report(f"{name}: {', '.join(f'{key} {value:.3f}' for key, value in result.items())}")
    return result


# ---- earthquakes ---------------------------------------------------------------------------------------


def earthquakes() -> dict[str, Any]:
    counts = torch.tensor([count for _, count in yearly()])
    found = {str(k): best_poisson(k, counts) for k in EARTHQUAKES}
    return {**about(), "years": len(counts), "starts": STARTS, "reference": EARTHQUAKES, "states": found}


def yearly() -> list[tuple[int, int]]:
    """Years and counts."""
    rows = (DATA / "timeseries" / "earthquakes.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [(int(year), int(count)) for year, count in (row.split(",") for row in rows)]


def best_poisson(states: int, counts: Tensor) -> dict[str, Any]:
    start = partial(hmm_of_counts, states, counts)
    options: dict[str, Any] = {"iterations": 2000, "tolerance": 1e-10, "progress": False}
    result = fit_em(start, counts, seeds=range(STARTS), **options)
    report(f"{states} states: {result.log_likelihood:.4f} nats")
    return {
        "log_likelihood": result.log_likelihood,
        "rates": sorted(result.model.emission.rate.tolist()),
        "seed": result.seed,
        "iterations": len(result.history) - 1,
    }


# ---- both ----------------------------------------------------------------------------------------------


def about() -> dict[str, Any]:
    versions = {"structlv": structlv.__version__, "torch": torch.__version__}
    return {"machine": describe(), "versions": versions}


@cache
def _begun() -> float:
    return time.perf_counter()


def report(text: str) -> None:
    print(f"{time.perf_counter() - _begun():6.0f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.em_hmm", description=__doc__)
    parser.add_argument("name", choices=["tags", "earthquakes"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    _begun()
    document = tags() if options.name == "tags" else earthquakes()
    document["seconds"] = time.perf_counter() - _begun()
    (options.out / f"em-{options.name}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
