"""`structlv induce`: learn a grammar from plain text or a treebank, and say how good its trees are."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

import structlv
from structlv._extras import require
from structlv.cli import show_trees
from structlv.cli.processes import only_the_first_goes_on
from structlv.cli.run_folder import close_run, open_run, save_json
from structlv.data import Batches, Tree, Vocabulary, read_sentences, read_trees
from structlv.metrics import (
    PUNCTUATION,
    left_branching,
    perplexity,
    random_tree,
    right_branching,
    unlabelled_f1,
)
from structlv.models import CompoundPCFG, LowRankNeuralPCFG, NeuralPCFG, SimpleNeuralPCFG
from structlv.models.folder import refuse_other_files
from structlv.models.grammar import GrammarModel

HELD_OUT_EVERY = 20
MODELS: dict[str, type[GrammarModel]] = {
    "neural": NeuralPCFG,
    "compound": CompoundPCFG,
    "lowrank": LowRankNeuralPCFG,
    "simple": SimpleNeuralPCFG,
}


@dataclass(frozen=True)
class Settings:
    """What determines a run, beside the text. The defaults are those of Kim, Dyer & Rush (2019)."""

    model: str = "neural"
    nonterminals: int = 30
    preterminals: int = 60
    dim: int = 256
    epochs: int = 10
    batch_size: int = 4
    lr: float = 1e-3
    min_count: int = 2
    max_length: int = 40
    curriculum: tuple[int, int] = (30, 1)
    max_sentences: int | None = None
    method: str = "mbr"
    clip: float = 3.0
    precision: str = "32-true"
    patience: int | None = None
    tensorboard: bool = False
    seed: int = 0
    threads: int = 1

    def replaced(self, **changes: Any) -> Settings:
        """The same with some values changed."""
        return replace(self, **changes)


class Text(NamedTuple):
    """Sentences as words, and their trees where the file has trees: of words that are no punctuation."""

    sentences: list[tuple[str, ...]]
    trees: list[Tree] | None

    def part(self, chosen: list[int]) -> Text:
        trees = None if self.trees is None else [self.trees[i] for i in chosen]
        return Text([self.sentences[i] for i in chosen], trees)


class Corpus(NamedTuple):
    """Word indices to train on, and the held-out part with its words and trees."""

    vocabulary: Vocabulary
    train: list[Tensor]
    held_out: list[Tensor]
    held_out_text: Text


def run(settings: Settings, file: Path, out: Path, console: Console, held_out: Path | None = None) -> None:
    """`learn` from a file, and evaluate on another if there is one."""
    for module in ("pytorch_lightning", "safetensors"):
        require(module, "train")
    learn(read(file), settings, str(file), out, console, None if held_out is None else read(held_out))


def learn(
    text: Text, settings: Settings, source: str, out: Path, console: Console, held_out: Text | None = None
) -> None:
    """Train, report, and save everything into `out`; go on from a checkpoint there."""
    torch.set_num_threads(settings.threads)
    refuse_other_files(out / "model")  # now, not after the training
    corpus = prepare(text, held_out, settings)
    show_trees.corpus(console, source, corpus, settings.min_count)
    batches = training_batches(corpus, settings)
    resuming = open_run(out, {**asdict(settings), "text": batches.fingerprint()})
    words = f"Training a {settings.model} PCFG ..."
    console.print(f"Going on from the checkpoint in {out}." if resuming else words, style="bold")
    model = build(settings, corpus)
    train(model, corpus, batches, settings, out)
    if not only_the_first_goes_on():
        return
    report(model, corpus, settings, out, console)
    close_run(out)


def read(file: Path) -> Text:
    """A treebank in brackets, or plain text, one sentence a line; without punctuation and in lower case.

    Raises OSError, and ValueError where nothing of two words or more is in it.
    """
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        bracketed = stream.read(1 << 16).lstrip().startswith("(")
    if bracketed:
        trees = [t.without_tags(PUNCTUATION) for t in read_trees(file)]
        kept = [t for t in trees if t is not None]
        return _long_enough(file, Text([tuple(w.lower() for w in t.words) for t in kept], kept))
    return _long_enough(file, plain(s.words for s in read_sentences(file, format="text")))


def plain(sentences: Iterable[Sequence[str]]) -> Text:
    """Sentences without their punctuation."""
    return Text([tuple(w for w in words if any(map(str.isalnum, w))) for words in sentences], None)


def _long_enough(file: Path, text: Text) -> Text:
    if max(map(len, text.sentences), default=0) < 2:
        raise ValueError(f"{file}: no sentence of at least two words in it")
    return text


def prepare(text: Text, held_out: Text | None, settings: Settings) -> Corpus:
    """Hold out every 20th sentence unless a held-out text is given; the vocabulary is the training part's.

    Only sentences of 2 to `max_length` words: a grammar whose rules have two children has no tree for one.
    """
    chosen = _of_length(text, settings)[: settings.max_sentences]
    training = chosen
    if held_out is None:
        training = [i for k, i in enumerate(chosen) if k % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
        held_out = text.part(chosen[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    else:
        held_out = held_out.part(_of_length(held_out, settings))
    if not held_out.sentences or not training:
        raise ValueError(
            f"{len(training)} sentences of 2 to {settings.max_length} words to train on and "
            f"{len(held_out.sentences)} held out, expected some of both"
        )
    sentences = [text.sentences[i] for i in training]
    vocabulary = Vocabulary.build(sentences, min_count=settings.min_count)
    train, rest = ([vocabulary.encode(words) for words in part] for part in (sentences, held_out.sentences))
    return Corpus(vocabulary, train, rest, held_out)


def _of_length(text: Text, settings: Settings) -> list[int]:
    return [i for i, words in enumerate(text.sentences) if 2 <= len(words) <= settings.max_length]


def training_batches(corpus: Corpus, settings: Settings) -> Batches:
    first, step = settings.curriculum
    shortest = min(map(len, corpus.train))
    return Batches(
        corpus.train, settings.batch_size, seed=settings.seed, curriculum=(max(first, shortest), step)
    )


def build(settings: Settings, corpus: Corpus) -> GrammarModel:
    """The model, of the sizes asked for; what the settings do not name is as published."""
    torch.manual_seed(settings.seed)
    sizes = {"num_nonterminals": settings.nonterminals, "num_preterminals": settings.preterminals}
    model = MODELS[settings.model](len(corpus.vocabulary), dim=settings.dim, **sizes)  # type: ignore[call-arg]
    model.vocabulary = corpus.vocabulary
    return model


def train(model: GrammarModel, corpus: Corpus, batches: Batches, settings: Settings, out: Path) -> None:
    """Maximise the log marginal likelihood, or for a compound grammar its lower bound."""
    from structlv.cli.callbacks import Progress
    from structlv.learning import fit

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    fit(
        objective(model, settings),
        batches,
        Batches(corpus.held_out, 32, shuffle=False),
        folder=out,
        epochs=settings.epochs,
        checkpoint_every=200,
        callbacks=[Progress()],
        gradient_clip_val=settings.clip,
        precision=settings.precision,
        patience=settings.patience,
        tensorboard=settings.tensorboard,
    )
    model.eval()


def objective(model: GrammarModel, settings: Settings) -> Any:
    """The objective of the model's kind with the published optimiser."""
    from structlv.learning import EvidenceLowerBound, MarginalLikelihood

    kind: Any = EvidenceLowerBound if isinstance(model, CompoundPCFG) else MarginalLikelihood
    return kind(
        model, lr=settings.lr, betas=(0.75, 0.999), warmup=0.0, schedule="constant", seed=settings.seed
    )


class Evaluation(NamedTuple):
    """Perplexity (an upper bound for a compound grammar) and the trees of the held-out part."""

    perplexity: float
    trees: list[Tensor]


@torch.no_grad()
def evaluate(model: GrammarModel, corpus: Corpus, settings: Settings) -> Evaluation:
    """Over the held-out sentences, in their order."""
    torch.manual_seed(settings.seed)
    total, words = 0.0, 0
    trees: list[Tensor] = []
    for batch in _in_order(corpus.held_out, 32):
        value = (
            model.elbo(batch.tokens, batch.lengths).bound
            if isinstance(model, CompoundPCFG)
            else model.log_prob(batch.tokens, batch.lengths)  # type: ignore[operator]
        )
        total += float(value.double().sum())
        words += int(batch.lengths.sum())
        trees += list(model.parse(batch.tokens, batch.lengths, method=settings.method))
    return Evaluation(perplexity(total, words), trees)


def _in_order(sequences: Sequence[Tensor], size: int) -> Iterator[Any]:
    collate = Batches(sequences, size, shuffle=False).collate
    for items in torch.arange(len(sequences)).split(size):
        yield collate(items)


def scores(corpus: Corpus, trees: list[Tensor], seed: int) -> dict[str, dict[str, float]]:
    """Sentence and corpus F1 of the grammar's trees and of the trivial ones; empty without gold trees."""
    gold = corpus.held_out_text.trees
    if gold is None:
        return {}
    words = corpus.held_out_text.sentences
    found: dict[str, Any] = {
        "grammar": [event.tolist() for event in trees],
        "right branching": map(right_branching, words),
        "left branching": map(left_branching, words),
        "random": [random_tree(sentence, seed + i) for i, sentence in enumerate(words)],
    }
    f1 = {name: unlabelled_f1(gold, one) for name, one in found.items()}
    return {name: {"sentence": one.sentence_f1, "corpus": one.f1} for name, one in f1.items()}


def report(model: GrammarModel, corpus: Corpus, settings: Settings, out: Path, console: Console) -> None:
    """Perplexity, F1 beside the baselines, some trees; saves the model, the numbers and the pictures."""
    found = evaluate(model, corpus, settings)
    f1 = scores(corpus, found.trees, settings.seed)
    show_trees.perplexity(console, found.perplexity, isinstance(model, CompoundPCFG))
    if f1:
        show_trees.f1(console, f1)
    pictures = show_trees.trees(console, model, corpus, out)
    model.save(out / "model")
    save_json(
        out / "result.json",
        {
            "perplexity": found.perplexity,
            "f1": f1,
            "settings": asdict(settings),
            "versions": {"structlv": structlv.__version__, "torch": torch.__version__},
            "python": platform.python_version(),
        },
    )
    show_trees.files(console, out, pictures)
