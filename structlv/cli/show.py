"""What the demo prints: tables and a coloured sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from structlv.data import Sentence, Vocabulary
from structlv.models import NeuralHMM

if TYPE_CHECKING:
    from structlv.cli.demo import Corpus

COLOURS = (
    "cyan",
    "magenta",
    "green",
    "yellow",
    "blue",
    "red",
    "bright_cyan",
    "bright_magenta",
    "bright_green",
)
RARE = 0.002
SENTENCE_WORDS = range(8, 19)  # the lengths of a sentence that fits on a screen


def corpus(console: Console, source: str, text: Corpus, min_count: int) -> None:
    """Where the text is from and how large it is."""
    tokens = sum(map(len, text.train))
    sizes = f"{len(text.train):,} sentences ({tokens:,} tokens) to train on, {len(text.held_out):,} held out"
    words = f"{len(text.vocabulary):,} words (lower case; seen fewer than {min_count} times: <unk>)"
    console.print(f"[bold]Text[/bold]  {source}", highlight=False)
    console.print(f"      {sizes}; {words}", highlight=False)


def state_labels(model: NeuralHMM, vocabulary: Vocabulary, count: int = 8) -> list[list[str]]:
    """The most typical words of each state, most typical first; without rare ones (under 0.2 %)."""
    words = model.typical_words(count)
    with torch.no_grad():
        likely = model.emission_logits().softmax(-1).gather(-1, words) >= RARE
    likely[:, 0] = True
    return [vocabulary.decode(row[keep]) for row, keep in zip(words, likely, strict=True)]


def states(console: Console, labels: list[list[str]], usage: Tensor, most: int = 40) -> None:
    """The `most` used states with their most typical words."""
    order = usage.argsort(descending=True).tolist()
    share = (usage / usage.sum()).tolist()
    which = "states" if len(order) <= most else f"{most} most used of {len(order)} states"
    table = new_table(f"The {which} and their most typical words", "state", "use", "words", right="state use")
    for state in order[:most]:
        words = Text(" ".join(labels[state]), style=_colour(state))
        table.add_row(str(state), f"{share[state]:.1%}", words)
    print_table(console, table)


def tagged_sentence(console: Console, model: NeuralHMM, text: Corpus, labels: list[list[str]]) -> None:
    """A held-out sentence: each word's state, the state's posterior probability, the gold tag if any."""
    sentence, indices = _pick(text)
    path = model.tag(indices[None])[0].tolist()
    with torch.no_grad():
        marginals = model.posterior(indices[None]).marginals().unary[0]
    columns = ("word", "state", "posterior", "typical words", *(("gold tag",) if sentence.tags else ()))
    table = new_table("A held-out sentence, tagged (Viterbi)", *columns, right="state posterior")
    for i, (word, state) in enumerate(zip(sentence.words, path, strict=True)):
        known = word if word in text.vocabulary else f"{word} (<unk>)"
        row: list[Text | str] = [
            Text(known, style=f"bold {_colour(state)}"),
            str(state),
            f"{marginals[i, state]:.2f}",
        ]
        row += [Text(" ".join(labels[state][:5]), style=_colour(state)), *sentence.tags[i : i + 1]]
        table.add_row(*row)
    print_table(console, table)


def perplexities(console: Console, hmm: float, baselines: dict[str, float], states: int, end: bool) -> None:
    """The model beside the baselines, lowest last."""
    table = new_table("Held-out perplexity", "model", "perplexity", right="perplexity")
    rows = {**baselines, f"neural HMM, {states} states": hmm}
    for name, value in sorted(rows.items(), key=lambda row: -row[1]):
        table.add_row(name, f"{value:,.1f}", style="bold" if name.startswith("neural") else None)
    print_table(console, table)
    scored = (
        "Every word and the end of the sentence are scored" if end else "Words are scored, given the length"
    )
    console.print(f"{scored}; all models see the same tokens and <unk>.", style="dim", highlight=False)


def summary(console: Console, speed: float | None, threads: int, out: Path, picture: Path) -> None:
    """Speed and files."""
    console.print()
    if speed is not None:
        on = "one thread" if threads == 1 else f"{threads} threads"
        console.print(f"Training speed: {speed:,.0f} tokens per second on {on}", highlight=False)
    console.print(f"Model in {out / 'model'}, picture in {picture}", highlight=False)


def new_table(title: str, *columns: str, right: str = "") -> Table:
    table = Table(
        box=None, pad_edge=False, title=title, title_justify="left", title_style="bold", min_width=60
    )
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right.split() else "left"
        table.add_column(name, justify=justify, header_style="dim", no_wrap=True, min_width=1)
    return table


def print_table(console: Console, table: Table) -> None:
    for column in table.columns:
        if column.justify == "right":  # numbers are never cut, words may be
            column.min_width = max(len(str(cell)) for cell in (column.header, *column.cells))
    console.print()
    console.print(table, highlight=False)


def _pick(text: Corpus) -> tuple[Sentence, Tensor]:
    """The first held-out sentence of a readable length with no unknown word, else the first of all."""
    for sentence, indices in zip(text.held_out_sentences, text.held_out, strict=True):
        if len(indices) in SENTENCE_WORDS and bool((indices > 0).all()):
            return sentence, indices
    return text.held_out_sentences[0], text.held_out[0]


def _colour(state: int) -> str:
    return COLOURS[state % len(COLOURS)]
