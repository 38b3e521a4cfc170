"""Sequences of numbers from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from structlv.data.readers import numbered_lines

MISSING = {"", "na", "nan", "null", "?"}


def read_series(
    path: str | Path, *, columns: Sequence[str] | None = None, group: str | None = None
) -> list[Tensor]:
    """The rows of a CSV file with a header, one step a row: sequences (n, d), float64, NaN where missing.

    Sequences end where the value of column `group` changes, else at empty lines. What is missing is empty,
    NA, NaN, null or ?; give `~x.isnan().any(-1)` to `HMM.log_prob` as its mask.

    Args:
        columns: the d columns to read, in this order; None for all but `group`.
        group: the column that tells sequences apart, or None.

    Raises OSError where the file cannot be read; ValueError, which names the line, where it is not UTF-8, a
    column is missing, a row has too many or too few cells, a cell is not a number, or there is no row.
    """
    header: list[str] = []
    sequences: list[list[list[float]]] = []
    last: str | None = None
    fresh = True
    for number, cells in _rows(path):
        if not cells:
            fresh = fresh or group is None
        elif not header:
            header = cells
            chosen = [c for c in header if c != group] if columns is None else list(columns)
            places = [_place(path, header, name) for name in chosen]
            key = None if group is None else _place(path, header, group)
        else:
            if len(cells) != len(header):
                raise ValueError(f"{path}, line {number}: expected {len(header)} cells, found {len(cells)}")
            if key is not None:
                fresh, last = cells[key] != last or not sequences, cells[key]
            if fresh:
                sequences.append([])
            sequences[-1].append([_number(path, number, header[i], cells[i]) for i in places])
            fresh = False
    if not sequences:
        raise ValueError(f"{path}: no row of numbers in it")
    return [torch.tensor(rows, dtype=torch.float64).reshape(len(rows), -1) for rows in sequences]


def _rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in numbered_lines(path):
        yield number, [cell.strip() for cell in next(csv.reader([line]), [])] if line.strip() else []


def _place(path: str | Path, header: list[str], name: str) -> int:
    if name not in header:
        raise ValueError(f"{path}: no column {name!r}; there are {', '.join(header)}")
    return header.index(name)


def _number(path: str | Path, number: int, name: str, cell: str) -> float:
    if cell.lower() in MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{path}, line {number}, column {name}: {cell!r} is not a number") from None
