"""`structlv parse`: trees of the sentences of a file, as brackets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from structlv.cli import label
from structlv.cli.options import Sharding
from structlv.cli.saved import load
from structlv.cli.show_trees import as_tree
from structlv.data import Batches, tokenise
from structlv.models.grammar import GrammarModel


class Parser(label.Labeller):
    """One tree a line, in the order of the sentences; a line without two words stays empty.

    Raises ValueError where the folder holds no grammar with words.
    """

    chunk, suffix = 256, ".trees"

    def __init__(self, folder: Path, method: str) -> None:
        self.folder, self.method, self.model = folder, method, load(folder)
        if not isinstance(self.model, GrammarModel):
            raise ValueError(
                f"{folder}: holds a {type(self.model).__name__}, expected a grammar (for tags: structlv tag)"
            )

    def label(self, lines: label.Lines, format: str, name: str | Path) -> str:
        sentences = [tuple(w for w in tokenise(line) if any(map(str.isalnum, w))) for _, line in lines]
        return "".join(f"{tree}\n" for tree in parsed(self.model, sentences, self.method))


def run(folder: Path, file: Path, method: str, output: Path | None, sharding: Sharding | None = None) -> None:
    """Parse the sentences of a file. Raises OSError, and ValueError where the folder holds no grammar."""
    label.run(partial(Parser, folder.absolute(), method), file, output, sharding)


def parsed(model: GrammarModel, sentences: list[tuple[str, ...]], method: str) -> Iterator[str]:
    """Brackets of each sentence, in order; similar lengths are parsed together."""
    assert model.vocabulary is not None
    order = sorted(
        (i for i, words in enumerate(sentences) if len(words) > 1), key=lambda i: len(sentences[i])
    )
    found = [""] * len(sentences)
    for items in torch.tensor(order, dtype=torch.int64).split(32) if order else ():
        encoded = [model.vocabulary.encode(sentences[i]) for i in items.tolist()]
        batch = Batches(encoded, len(encoded), shuffle=False).collate(torch.arange(len(encoded)))
        events = model.parse(batch.tokens, batch.lengths, method=method)
        for i, event in zip(items.tolist(), events, strict=True):
            found[i] = str(as_tree(event, sentences[i]))
    yield from found
