"""Reader of alignments in Stockholm format, and of the base pairs in their structure lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from structlv.data.readers import numbered_lines

GAPS = frozenset("-._~")
OPENING, CLOSING = "<([{", ">)]}"


class Alignment(NamedTuple):
    """Names and rows (all of one length) of the sequences, and per-column annotation such as SS_cons."""

    names: tuple[str, ...]
    rows: tuple[str, ...]
    columns: dict[str, str]


def read_stockholm(path: str | Path) -> Iterator[Alignment]:
    """The alignments of a file in Stockholm format 1.0 (Rfam, Pfam), one after another.

    Rows that go on in later blocks are joined. Of the annotation, that of columns (#=GC) is kept. Raises
    OSError, and ValueError that names the line: not UTF-8, no such format, rows of different lengths.
    """
    rows: dict[str, list[str]] = {}
    columns: dict[str, list[str]] = {}
    number, inside = 0, False
    for number, line in numbered_lines(path):
        fields = line.split()
        if line.startswith("# STOCKHOLM"):
            inside = True
        elif not fields:
            continue
        elif not inside:
            raise ValueError(f"{path}, line {number}: expected '# STOCKHOLM 1.0', found {line!r}")
        elif fields == ["//"]:
            yield _alignment(rows, columns, f"{path}, line {number}")
            rows, columns, inside = {}, {}, False
        elif fields[0] == "#=GC" and len(fields) == 3:
            columns.setdefault(fields[1], []).append(fields[2])
        elif not line.startswith("#"):
            if len(fields) != 2:
                raise ValueError(f"{path}, line {number}: expected a name and a row, found {line!r}")
            rows.setdefault(fields[0], []).append(fields[1])
    if inside:
        raise ValueError(f"{path}, line {number}: the alignment is not closed by '//'")


def base_pairs(structure: str) -> list[tuple[int, int]]:
    """The pairs (i, j) of places, i < j, that brackets <> () [] {} in a structure line join, by i.

    Every other sign, letters of pseudoknots included, is unpaired. Raises ValueError where they do not match.
    """
    pairs: list[tuple[int, int]] = []
    stack: list[int] = []
    for j, sign in enumerate(structure):
        if sign in OPENING:
            stack.append(j)
        elif sign in CLOSING:
            if not stack or OPENING.index(structure[stack[-1]]) != CLOSING.index(sign):
                raise ValueError(f"the {sign!r} at place {j} closes nothing")
            pairs.append((stack.pop(), j))
    if stack:
        raise ValueError(f"the {structure[stack[-1]]!r} at place {stack[-1]} is not closed")
    return sorted(pairs)


def ungapped(row: str, pairs: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """The sequence of an aligned row, and those pairs of columns of which it has both, as its own places."""
    places = [i for i, sign in enumerate(row) if sign not in GAPS]
    number = {column: i for i, column in enumerate(places)}
    both = [(number[i], number[j]) for i, j in pairs if i in number and j in number]
    return "".join(row[i] for i in places), both


def _alignment(rows: dict[str, list[str]], columns: dict[str, list[str]], place: str) -> Alignment:
    joined, notes = ({k: "".join(v) for k, v in part.items()} for part in (rows, columns))
    if len({len(row) for row in (*joined.values(), *notes.values())}) > 1:
        raise ValueError(f"{place}: the rows of this alignment differ in length")
    return Alignment(tuple(joined), tuple(joined.values()), notes)
