"""What the commands that use a saved model share: finding it, and reading sentences for it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from structlv.data import Batches, Sentence, read_sentences, tokenise
from structlv.data.batches import Batch
from structlv.models import Model


def load(folder: Path) -> Any:
    """The model of a run's folder, or of one that is a saved model itself, with its words.

    Raises FileNotFoundError where there is none, ValueError where it has no words.
    """
    place = _place(folder)
    model = Model.load(place)
    if model.vocabulary is None:
        raise ValueError(f"{place}: holds a {type(model).__name__} without words, which reads no text")
    return model


def fingerprint(folder: Path) -> str:
    """A digest of the files of the model that `load` finds there."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(_place(folder).iterdir()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _place(folder: Path) -> Path:
    return folder / "model" if (folder / "model" / "config.json").exists() else folder


def read(file: Path) -> list[Sentence]:
    """Sentences of a file, or of plain text on standard input. Raises as `read_sentences`."""
    if str(file) != "-":
        return read_sentences(file)
    sentences = [Sentence(words) for line in sys.stdin if (words := tokenise(line))]
    if not sentences:
        raise ValueError("standard input: no sentence in it")
    return sentences


@contextmanager
def written(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or the file."""
    if output is None:
        yield sys.stdout
    else:
        with open(output, "w", encoding="utf-8") as stream:
            yield stream


def batches(encoded: Sequence[Tensor], size: int) -> Iterator[tuple[list[int], Batch]]:
    """Padded batches of similar lengths, and the numbers of their sentences."""
    if not encoded:
        return
    collated = Batches(encoded, size, shuffle=False)
    for items in collated.order(0):
        yield items.tolist(), collated.collate(items)


def in_order(size: int, found: Iterable[tuple[list[int], Tensor]]) -> list[Tensor]:
    """The rows of batches as one list in the order of the sentences."""
    rows: list[Tensor] = [torch.empty(0)] * size
    for items, values in found:
        for i, row in zip(items, values, strict=True):
            rows[i] = row
    return rows
