"""Readers: plain text (one sentence a line) and CoNLL-U, both to lists of `Sentence`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CONLLU_SUFFIXES = {".conllu", ".conll"}
CONLLU_COLUMNS = 10

# In this order: a placeholder such as <unk>; a number; a word with inner apostrophes or hyphens; one sign.
TOKEN = re.compile(r"<[A-Za-z]+>|\d+(?:[.,]\d+)+|\w+(?:['’\-]\w+)*|[^\w\s]")


class Sentence(NamedTuple):
    """Words, and their part-of-speech tags where the file has them (else an empty tuple)."""

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()


def tokenise(line: str, *, lower: bool = True) -> tuple[str, ...]:
    """Split a line into words (don't, first-born), numbers (3.5, 1,000), and any other sign by itself."""
    return tuple(TOKEN.findall(line.lower() if lower else line))


def read_sentences(path: str | Path, *, format: str | None = None, lower: bool = True) -> list[Sentence]:
    """Sentences of a file: CoNLL-U if `format` or the suffix (.conllu, .conll) says so, else plain text.

    Empty sentences are left out. Raises OSError where the file cannot be read, ValueError where it is not
    UTF-8, not of the format, or holds no sentence.
    """
    chosen = text_format(path, format)
    sentences = list(scan_sentences(numbered_lines(path), chosen, path, lower=lower))
    if not sentences:
        raise ValueError(f"{path}: no sentence in it (read as {chosen})")
    return sentences


def text_format(path: str | Path, format: str | None = None) -> str:
    """`format`, or what the suffix says: "conllu" or "text". Raises ValueError for another."""
    chosen = format or ("conllu" if Path(path).suffix.lower() in CONLLU_SUFFIXES else "text")
    if chosen not in ("text", "conllu"):
        raise ValueError(f"format must be 'text' or 'conllu', found {format!r}")
    return chosen


def read_text(path: str | Path, *, lower: bool = True) -> list[Sentence]:
    """One sentence a line, tokenised by `tokenise`; empty lines are skipped. Raises as `read_sentences`."""
    return list(scan_sentences(numbered_lines(path), "text", path, lower=lower))


def read_conllu(path: str | Path, *, lower: bool = True) -> list[Sentence]:
    """FORM and UPOS of a CoNLL-U file (universaldependencies.org/format): blank lines end sentences.

    Comments, multiword ranges (1-2) and empty nodes (1.1) are skipped: their words stand on lines of their
    own. Raises as `read_sentences`, naming the line.
    """
    return list(scan_sentences(numbered_lines(path), "conllu", path, lower=lower))


def scan_sentences(
    lines: Iterable[tuple[int, str]], format: str, name: str | Path, *, lower: bool = True
) -> Iterator[Sentence]:
    """Sentences of numbered lines, one after the other, as `read_text` and `read_conllu` find them in a file.

    `name` is what errors call the text.
    """
    if format == "text":
        words = (tokenise(line, lower=lower) for _, line in lines)
        yield from (Sentence(w) for w in words if w)
        return
    rows: list[tuple[str, str]] = []
    for number, line in lines:
        if not line.strip():
            yield from _closed(rows)
        elif not line.startswith("#"):
            rows.extend(_row(name, number, line, lower))
    yield from _closed(rows)


def _closed(rows: list[tuple[str, str]]) -> Iterator[Sentence]:
    """The sentence of these rows, if there are some, which are forgotten."""
    if rows:
        words, tags = zip(*rows, strict=True)
        yield Sentence(words, tags if any(t != "_" for t in tags) else ())
        rows.clear()


def _row(path: str | Path, number: int, line: str, lower: bool) -> list[tuple[str, str]]:
    columns = line.split("\t")
    if len(columns) != CONLLU_COLUMNS:
        found = f"expected {CONLLU_COLUMNS} tab-separated columns (CoNLL-U), found {len(columns)}"
        raise ValueError(f"{path}, line {number}: {found}")
    index, form, upos = columns[0], columns[1], columns[3]
    if not index.isdigit():
        if not re.fullmatch(r"\d+[-.]\d+", index):
            raise ValueError(f"{path}, line {number}: {index!r} is not a CoNLL-U word index")
        return []
    return [(form.lower() if lower else form, upos)]


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; \\n, \\r\\n and \\r all end one. A byte-order mark is dropped."""
    with open(path, encoding="utf-8-sig") as file:
        yield from number_lines(file, path)


def number_lines(stream: Iterable[str], name: str | Path, first: int = 1) -> Iterator[tuple[int, str]]:
    """The lines of an open text without their ends, numbered from `first`.

    Raises ValueError, which calls the text by its `name`, where it is not UTF-8.
    """
    number = first - 1
    try:
        for number, line in enumerate(stream, start=first):
            yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 text (near line {number + 1}): {error.reason}") from error
