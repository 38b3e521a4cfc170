"""`structlv demo`: train a neural HMM on real text, compare it with n-grams, look at what it learned."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from structlv._extras import require
from structlv.cli import induce, show
from structlv.cli.run_folder import close_run, open_run, save_json
from structlv.data import Batches, Sentence, Vocabulary, demo_corpus, read_sentences
from structlv.data.corpora import DEMO_SOURCE
from structlv.metrics import perplexity
from structlv.models import NeuralHMM, WittenBell
from structlv.models.folder import refuse_other_files

GRAMMAR = induce.Settings(
    nonterminals=15,
    preterminals=30,
    dim=64,
    epochs=4,
    batch_size=32,
    lr=5e-3,
    min_count=3,
    max_length=14,
    max_sentences=3000,
)
HELD_OUT_EVERY = 20  # every 20th sentence is held out, so both parts come from all over the text


@dataclass(frozen=True)
class Settings:
    """What determines a run, beside the text."""

    states: int = 256
    dim: int = 64
    layers: int = 1
    epochs: int = 6
    batch_size: int = 256
    lr: float = 0.03
    weight_decay: float = 0.2
    min_count: int = 3
    max_sentences: int | None = None
    clip: float = 5.0
    precision: str = "32-true"
    patience: int | None = None
    tensorboard: bool = False
    seed: int = 0
    threads: int = (
        1  # with more, a step waits for its slowest thread: on a busy machine that is many times slower
    )

    @classmethod
    def quick(cls) -> Settings:
        """A small model on the first sentences: about 20 seconds on two cores."""
        return cls(states=64, lr=0.02, epochs=4, batch_size=64, max_sentences=8000)

    def replaced(self, **changes: Any) -> Settings:
        """The same with some values changed."""
        return replace(self, **changes)


class Corpus(NamedTuple):
    """Sentences and their word indices, the held-out ones apart."""

    vocabulary: Vocabulary
    train: list[Tensor]
    held_out: list[Tensor]
    held_out_sentences: list[Sentence]


def run(
    settings: Settings, out: Path, console: Console, *, data: Path | None = None, format: str | None = None
) -> None:
    """Train, report, and save everything into `out`; go on from a checkpoint there."""
    for module in ("pytorch_lightning", "safetensors", "matplotlib"):
        require(module, "demo")
    torch.set_num_threads(settings.threads)
    refuse_other_files(out / "model")  # now, not after the training
    sentences = demo_corpus() if data is None else read_sentences(data, format=format)
    corpus = prepare(sentences, settings)
    show.corpus(console, str(data) if data else DEMO_SOURCE, corpus, settings.min_count)
    text = Batches(corpus.train, settings.batch_size).fingerprint()
    resuming = open_run(out, {**asdict(settings), "text": text})
    console.print(
        f"Going on from the checkpoint in {out}." if resuming else "Training a neural HMM ...", style="bold"
    )
    model = build(settings, corpus)
    speed = train(model, corpus, settings, out)
    report(model, corpus, settings, out, console, speed)
    grammar(sentences, settings, out / "grammar", console)
    close_run(out)


def grammar(sentences: Sequence[Sentence], settings: Settings, out: Path, console: Console) -> None:
    """A small PCFG learned from the short sentences of the same text; nothing where there are too few."""
    text = induce.plain(s.words for s in sentences)
    chosen = GRAMMAR.replaced(seed=settings.seed, threads=settings.threads)
    if settings.max_sentences is not None:
        chosen = chosen.replaced(max_sentences=settings.max_sentences // 20, epochs=1)
    short = sum(2 <= len(words) <= chosen.max_length for words in text.sentences)
    if short < HELD_OUT_EVERY:
        return
    console.print("\n[bold]A grammar of its short sentences[/bold]")
    induce.learn(text, chosen, f"{short:,} sentences of 2 to {chosen.max_length} words", out, console)


def prepare(
    sentences: Sequence[Sentence], settings: Settings, held_out: Sequence[Sentence] | None = None
) -> Corpus:
    """Build the vocabulary on the training sentences, encode these and the held-out ones: given, or split
    off.
    """
    training = sentences = list(sentences[: settings.max_sentences])
    if held_out is None:
        held_out = sentences[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        training = [s for i, s in enumerate(sentences) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    if not held_out:
        raise ValueError(f"the text has {len(sentences)} sentences, expected at least {HELD_OUT_EVERY}")
    vocabulary = Vocabulary.build((s.words for s in training), min_count=settings.min_count)
    encode = vocabulary.encode
    return Corpus(
        vocabulary, [encode(s.words) for s in training], [encode(s.words) for s in held_out], list(held_out)
    )


def build(settings: Settings, corpus: Corpus) -> NeuralHMM:
    """The model, its word biases at the unigram."""
    torch.manual_seed(settings.seed)
    model = NeuralHMM(settings.states, len(corpus.vocabulary), dim=settings.dim, layers=settings.layers)
    model.start_from_counts(torch.bincount(torch.cat(corpus.train), minlength=len(corpus.vocabulary)))
    model.vocabulary = corpus.vocabulary
    return model


def train(model: NeuralHMM, corpus: Corpus, settings: Settings, out: Path) -> float | None:
    """Maximise the log marginal likelihood; returns training tokens per second (None: no step left)."""
    from structlv.cli.callbacks import Progress, Throughput
    from structlv.learning import MarginalLikelihood, fit

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    objective = MarginalLikelihood(
        model, lr=settings.lr, weight_decay=settings.weight_decay, seed=settings.seed
    )
    batches = Batches(corpus.train, settings.batch_size, seed=settings.seed)
    held_out = Batches(corpus.held_out, settings.batch_size, shuffle=False)
    throughput = Throughput()
    fit(
        objective,
        batches,
        held_out,
        folder=out,
        epochs=settings.epochs,
        checkpoint_every=50,
        callbacks=[throughput, Progress()],
        gradient_clip_val=settings.clip,
        precision=settings.precision,
        patience=settings.patience,
        tensorboard=settings.tensorboard,
    )
    model.eval()
    return throughput.tokens_per_second


def report(
    model: NeuralHMM, corpus: Corpus, settings: Settings, out: Path, console: Console, speed: float | None
) -> None:
    """Perplexities, states, a tagged sentence, the picture; saves the model."""
    perplexity, usage = evaluate(model, corpus, settings.batch_size)
    train_lists, held_out_lists = ([s.tolist() for s in part] for part in (corpus.train, corpus.held_out))
    baselines = {
        name: WittenBell(order, len(corpus.vocabulary)).fit(train_lists).perplexity(held_out_lists)
        for order, name in ((1, "unigram"), (2, "bigram, Witten-Bell interpolated"))
    }
    labels = show.state_labels(model, corpus.vocabulary)
    show.states(console, labels, usage)
    show.tagged_sentence(console, model, corpus, labels)
    show.perplexities(console, perplexity, baselines, settings.states, model.scores_end)
    model.save(out / "model")
    save_labels(labels, out)
    picture = save_picture(model, labels, usage, out)
    save_json(
        out / "result.json",
        {"perplexity": {"neural HMM": perplexity, **baselines}, "tokens_per_second": speed},
    )
    show.summary(console, speed, settings.threads, out, picture)


def save_labels(labels: list[list[str]], out: Path) -> None:
    """states.tsv: each state and its most typical words."""
    words = "".join(f"{state}\t{' '.join(row)}\n" for state, row in enumerate(labels))
    (out / "states.tsv").write_text(words, encoding="utf-8")


@torch.no_grad()
def evaluate(model: NeuralHMM, corpus: Corpus, batch_size: int) -> tuple[float, Tensor]:
    """Held-out perplexity per word and end of sentence, and tokens that each state explains there (K,)."""
    total, symbols = 0.0, 0
    usage = torch.zeros(model.num_states)
    for batch in Batches(corpus.held_out, batch_size, shuffle=False):
        hmm = model.distribution()
        total += float(hmm.log_prob(batch.tokens, lengths=batch.lengths).double().sum())
        marginals = hmm.posterior(batch.tokens, lengths=batch.lengths).marginals().unary
        usage += marginals.flatten(0, 1).sum(0)
        symbols += int(batch.lengths.sum()) + len(batch.lengths)
    return perplexity(total, symbols), usage


@torch.no_grad()
def save_picture(model: NeuralHMM, labels: list[list[str]], usage: Tensor, out: Path, most: int = 32) -> Path:
    """Heat map of the transitions among the `most` used states, most used first."""
    from structlv.viz import plot_transition

    chosen = usage.argsort(descending=True)[:most]
    scores, stop = model.transition_logits()
    whole = scores if stop is None else torch.cat([scores, stop[:, None]], -1)
    probabilities = whole.softmax(-1)[chosen][:, chosen]
    names = [f"{' '.join(labels[i][:3])}  {i}" for i in chosen.tolist()]
    title = f"Transitions among the {len(names)} most used of {model.num_states} states"
    axes = plot_transition(probabilities, names, title=title)
    path = out / "transitions.png"
    figure = axes.get_figure(root=True)
    assert figure is not None  # a drawn Axes has one
    figure.savefig(path)
    return path
