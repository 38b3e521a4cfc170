"""`structlv tag`: states of words, by an HMM."""

from __future__ import annotations

from pathlib import Path

from structlv.cli.saved import batches, in_order, load, read, written
from structlv.models import NeuralHMM


def run(folder: Path, file: Path, method: str, output: Path | None) -> None:
    """Write a word, a tab and its state a line, an empty line after each sentence.

    Raises OSError, and ValueError where the folder holds no HMM.
    """
    model = load(folder)
    if not isinstance(model, NeuralHMM):
        raise ValueError(
            f"{folder}: holds a {type(model).__name__}, expected an HMM (for trees: structlv parse)"
        )
    sentences = read(file)
    assert model.vocabulary is not None
    encoded = [model.vocabulary.encode(s.words) for s in sentences]
    tags = in_order(
        len(encoded),
        ((items, model.tag(b.tokens, b.lengths, method=method)) for items, b in batches(encoded, 256)),
    )
    with written(output) as stream:
        for sentence, row in zip(sentences, tags, strict=True):
            pairs = zip(sentence.words, row.tolist(), strict=False)  # a row is padded with -1
            stream.write("".join(f"{word}\t{state}\n" for word, state in pairs) + "\n")
