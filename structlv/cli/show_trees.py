"""What `structlv induce` prints and draws: sizes, scores beside the trivial trees, a few trees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from structlv.cli.show import new_table, print_table
from structlv.data import Tree
from structlv.models.grammar import GrammarModel
from structlv.viz import tree_svg, tree_text

if TYPE_CHECKING:
    from structlv.cli.induce import Corpus

READABLE = range(5, 13)  # words of a tree that fits on a screen
SHOWN = 3


def corpus(console: Console, source: str, text: Corpus, min_count: int) -> None:
    """Where the text is from and how large it is."""
    tokens = sum(map(len, text.train))
    gold = "" if text.held_out_text.trees is None else " with their trees"
    sizes = (
        f"{len(text.train):,} sentences ({tokens:,} words) to train on, {len(text.held_out):,}{gold} held out"
    )
    words = f"{len(text.vocabulary):,} words (lower case; seen fewer than {min_count} times: <unk>)"
    console.print(f"[bold]Text[/bold]  {source}", highlight=False)
    console.print(f"      {sizes}; {words}", highlight=False)


def perplexity(console: Console, value: float, bound: bool) -> None:
    """The held-out perplexity per word."""
    less = "at most " if bound else ""
    console.print(
        f"\n[bold]Held-out perplexity[/bold] {less}{value:,.1f} per word; a tree says where it ends",
        highlight=False,
    )


def f1(console: Console, scores: dict[str, dict[str, float]]) -> None:
    """Unlabelled F1 of the grammar beside left, right and random branching, best last."""
    rows = new_table(
        "Unlabelled F1 of held-out trees", "trees", "sentence", "corpus", right="sentence corpus"
    )
    for name, found in sorted(scores.items(), key=lambda one: one[1]["sentence"]):
        style = "bold" if name == "grammar" else None
        rows.add_row(name, f"{100 * found['sentence']:.1f}", f"{100 * found['corpus']:.1f}", style=style)
    print_table(console, rows)


def trees(console: Console, model: GrammarModel, text: Corpus, out: Path) -> list[Path]:
    """Prints some held-out sentences' best trees; saves pictures of them and of the gold ones, if any."""
    chosen = [i for i, words in enumerate(text.held_out) if len(words) in READABLE][:SHOWN] or [0]
    pictures = []
    for place, i in enumerate(chosen):
        words = text.held_out_text.sentences[i]
        found = as_tree(model.parse(text.held_out[i][None])[0], words)
        console.print(f"\n{tree_text(found)}", highlight=False, markup=False)
        gold = text.held_out_text.trees and text.held_out_text.trees[i]
        for name, tree in (("tree", found), ("gold", gold)):
            if tree:
                pictures.append(out / f"{name}-{place}.svg")
                pictures[-1].write_text(tree_svg(tree), encoding="utf-8")
    return pictures


def as_tree(event: torch.Tensor, words: tuple[str, ...]) -> Tree:
    """An event's tree; nodes are named by their symbols."""
    return Tree.from_spans([(i, j, str(symbol)) for i, j, symbol in event.tolist() if i >= 0], words)


def files(console: Console, out: Path, pictures: list[Path]) -> None:
    """Where everything is."""
    names = ", ".join(path.name for path in pictures)
    console.print(
        f"\nModel in {out / 'model'}, numbers in {out / 'result.json'}, pictures {names}", highlight=False
    )
