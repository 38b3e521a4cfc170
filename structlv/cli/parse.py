"""`structlv parse`: trees of the sentences of a file, as brackets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import track

from structlv.cli.saved import load
from structlv.cli.show_trees import as_tree
from structlv.data import Batches, tokenise
from structlv.models.grammar import GrammarModel

CHUNK = 256  # sentences that are parsed, and written, together


def run(folder: Path, file: Path, method: str, output: Path | None) -> None:
    """Write one tree a line, in the order of the sentences; a line without two words stays empty.

    `-` is the standard input. Raises OSError, and ValueError where the folder holds no grammar with words.
    """
    model = load(folder)
    if not isinstance(model, GrammarModel):
        raise ValueError(
            f"{folder}: holds a {type(model).__name__}, expected a grammar (for tags: structlv tag)"
        )
    source = sys.stdin if str(file) == "-" else open(file, encoding="utf-8-sig")  # noqa: SIM115
    target = sys.stdout if output is None else open(output, "w", encoding="utf-8")  # noqa: SIM115
    try:
        lines = [tuple(w for w in tokenise(line) if any(map(str.isalnum, w))) for line in source]
        chunks = [lines[i : i + CHUNK] for i in range(0, len(lines), CHUNK)]
        shown = track(chunks, "Parsing", disable=output is None, transient=True)
        for chunk in shown:
            target.writelines(f"{tree}\n" for tree in parsed(model, chunk, method))
            target.flush()
    finally:
        for stream in (source, target):
            if stream not in (sys.stdin, sys.stdout):
                stream.close()


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
