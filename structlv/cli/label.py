"""What `structlv tag` and `structlv parse` share: sentences in, labels out, a part of the text at a time."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import ClassVar

from structlv.cli.options import Sharding
from structlv.cli.saved import written
from structlv.cli.shards import Job, run_shards
from structlv.data.readers import number_lines, numbered_lines, text_format

Lines = Iterable[tuple[int, str]]


class Labeller(ABC):
    """A model that labels sentences: made anew in each process, where it labels `chunk` sentences at a time.

    A chunk is the same whether a text is labelled whole or in shards, so that the result is the same too.
    """

    chunk: ClassVar[int]
    suffix: ClassVar[str]
    formats: ClassVar[tuple[str, ...]] = ("text",)
    folder: Path
    method: str

    @abstractmethod
    def label(self, lines: Lines, format: str, name: str | Path) -> str:
        """What is written for the sentences of these numbered lines; `name` is what errors call the text."""

    def labelled(self, lines: Lines, format: str, name: str | Path) -> Iterator[str]:
        """The same for a text of any size, chunk by chunk."""
        for part in chunks(lines, self.chunk, format):
            yield self.label(part, format, name)


def chunks(lines: Lines, size: int, format: str) -> Iterator[list[tuple[int, str]]]:
    """The lines of `size` sentences at a time; a sentence ends with its line, in CoNLL-U with a blank one."""
    found: list[tuple[int, str]] = []
    count = 0
    for number, line in lines:
        found.append((number, line))
        count += format == "text" or not line.strip()
        if count == size:
            yield found
            found, count = [], 0
    if found:
        yield found


def run(make: Callable[[], Labeller], file: Path, output: Path | None, sharding: Sharding | None) -> bool:
    """Write the labels of a file (`-`: of standard input), or make shards of them; whether there are some.

    Raises OSError and ValueError.
    """
    labeller = make()
    stdin = str(file) == "-"
    format = text_format(file) if len(labeller.formats) > 1 and not stdin else "text"
    if sharding is not None:
        if stdin or output is not None:
            raise ValueError("--shards reads a file, and writes into its folder: not -, and no --output")
        sharding = sharding._replace(folder=sharding.folder.absolute())  # workers may be elsewhere
        return run_shards(Job(make, file.absolute(), format), labeller, sharding)
    name = "standard input" if stdin else file
    texts = labeller.labelled(number_lines(sys.stdin, name) if stdin else numbered_lines(file), format, name)
    first = next(texts, "")  # before the output is opened: what cannot be read leaves no empty file
    some = bool(first)
    with written(output) as stream:
        for text in chain([first], texts):
            some = some or bool(text)
            stream.write(text)
            stream.flush()
    return some
