"""`structlv tag`: states of words, by an HMM."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from structlv.cli import label
from structlv.cli.options import Sharding
from structlv.cli.saved import batches, in_order, load
from structlv.data.readers import scan_sentences
from structlv.models import NeuralHMM


class Tagger(label.Labeller):
    """A word, a tab and its state a line, an empty line after each sentence.

    Raises ValueError where the folder holds no HMM.
    """

    chunk, suffix, formats = 4096, ".tsv", ("text", "conllu")

    def __init__(self, folder: Path, method: str) -> None:
        self.folder, self.method, self.model = folder, method, load(folder)
        if not isinstance(self.model, NeuralHMM):
            raise ValueError(
                f"{folder}: holds a {type(self.model).__name__}, expected an HMM (for trees: structlv parse)"
            )

    def label(self, lines: label.Lines, format: str, name: str | Path) -> str:
        assert self.model.vocabulary is not None
        sentences = list(scan_sentences(lines, format, name))
        encoded = [self.model.vocabulary.encode(s.words) for s in sentences]
        tags = in_order(
            len(encoded),
            (
                (items, self.model.tag(b.tokens, b.lengths, method=self.method))
                for items, b in batches(encoded, 256)
            ),
        )
        return "".join(
            "".join(f"{word}\t{state}\n" for word, state in zip(s.words, row.tolist(), strict=False)) + "\n"
            for s, row in zip(sentences, tags, strict=True)  # a row is padded with -1
        )


def run(folder: Path, file: Path, method: str, output: Path | None, sharding: Sharding | None = None) -> None:
    """Tag the sentences of a file. Raises OSError, and ValueError where the folder holds no HMM."""
    if not label.run(partial(Tagger, folder.absolute(), method), file, output, sharding):
        name = "standard input" if str(file) == "-" else file
        raise ValueError(f"{name}: no sentence in it")
