"""Trees as brackets: strings such as ``(S (N they) (V fish))``, and the trees of nltk.

Both are read and written as a stream of steps (open a constituent, a word, close it), and nothing is
recursive: a tree may be as deep as it likes. A constituent may have any number of children.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from structlv import _extras

_OPEN, _WORD, _CLOSE = range(3)
_Step = tuple[int, Any]  # _OPEN and a symbol or label, _WORD and its place or itself, _CLOSE and nothing
_ESCAPES = (("(", "-LRB-"), (")", "-RRB-"))  # as in the Penn Treebank


def to_brackets(
    event: Tensor, symbols: Sequence[str] | None = None, words: Sequence[str] | None = None
) -> str:
    """A tree as a string, ``(S (N they) (V fish))``; round brackets in words become -LRB- and -RRB-.

    Args:
        event: (m, 3) integer rows (i, j, symbol) in pre-order, padded with -1.
        symbols: their names; None to leave them out: ``(they fish)``.
        words: of the sentence; None for their numbers.

    Returns:
        The string; empty where the event is all -1.

    Raises:
        ValueError: the rows are not those of a tree, or a name is empty or has white space in it, or (of a
        symbol) brackets.
    """
    text, space = [], ""
    for kind, value in _steps_of(event, symbols is not None):
        if kind == _CLOSE:
            text.append(")")
        elif kind == _OPEN:
            text.append(space + "(" + ("" if symbols is None else _atom(symbols[value])))
        else:
            text.append(space + _atom(_escaped(str(value) if words is None else words[value])))
        space = "" if kind == _OPEN and symbols is None else " "
    return "".join(text)


def from_brackets(text: str, symbols: Sequence[str] | None = None) -> tuple[Tensor, list[str]]:
    """The event (m, 3) int64 and the words of a tree in brackets: the inverse of :func:`to_brackets`.

    ``torch.nn.utils.rnn.pad_sequence(events, batch_first=True, padding_value=-1)`` makes a batch of several.
    Brackets without a label around the whole tree, as in the Penn Treebank, are passed over.

    Args:
        text: the tree. ``-LRB-`` and ``-RRB-`` become round brackets in words.
        symbols: names in the order of the symbols; None where brackets have no labels: then all symbols are
            0, and a constituent of one child is that child.

    Raises:
        ValueError: brackets do not match, a symbol is unknown, a word is not alone in its preterminal.
    """
    return _event_of(_steps_in(text, symbols is not None), symbols)


def to_nltk(event: Tensor, symbols: Sequence[str] | None = None, words: Sequence[str] | None = None) -> Any:
    """A tree as an ``nltk.Tree``; arguments as for :func:`to_brackets`. Without symbols, labels are empty.

    Raises:
        MissingExtra: nltk is not installed.
        ValueError: the rows are not those of a tree.
    """
    nltk = _extras.require("nltk", "trees")
    top = nltk.Tree("", [])
    path = [top]
    for kind, value in _steps_of(event, symbols is not None):
        if kind == _CLOSE:
            path.pop()
        elif kind == _WORD:
            path[-1].append(str(value) if words is None else words[value])
        else:
            path[-1].append(nltk.Tree("" if symbols is None else symbols[value], []))
            path.append(path[-1][-1])
    if len(top) != 1:
        raise ValueError("event holds no tree: all of its rows are -1")
    return top[0]


def from_nltk(tree: Any, symbols: Sequence[str] | None = None) -> tuple[Tensor, list[str]]:
    """The event (m, 3) and the words of an ``nltk.Tree`` (anything iterable with a ``label()``).

    Arguments and errors as for :func:`from_brackets`; without ``symbols`` its labels are not looked at.
    """
    return _event_of(_steps_under(tree), symbols)


# ---- events ------------------------------------------------------------------------------------------------


def _steps_of(event: Tensor, labelled: bool) -> Iterator[_Step]:
    """The steps of an event's tree; where not ``labelled``, words have no constituents of their own."""
    if event.dim() != 2 or event.shape[-1] != 3:
        raise ValueError(f"event must have shape (m, 3), one tree, found {tuple(event.shape)}")
    rows = event[event[:, 0] >= 0].tolist()
    path: list[list[int]] = []  # the constituents that are open
    place = 0  # of the next word
    for number, (row, below) in enumerate(zip(rows, [*rows[1:], []], strict=False)):
        inside = row[1] <= path[-1][1] if path else number == 0
        if row[0] != place or row[1] < place or not inside:
            raise ValueError(f"event is not a tree: row {number} is {tuple(row)}")
        path.append(row)
        if labelled or row[0] < row[1]:
            yield _OPEN, row[2]
        if row[0] == row[1] and below[:2] != row[:2]:
            yield _WORD, place
            place += 1
        while path and path[-1][1] < place:
            start, end, _ = path.pop()
            if labelled or start < end:
                yield _CLOSE, None
    if path:
        raise ValueError(f"event is not a tree: it ends before word {place}")


class _Reader:
    """Builds the rows of a tree from steps; ``path`` is the open rows, None for unlabelled brackets."""

    def __init__(self, symbols: Sequence[str] | None) -> None:
        self.numbers = None if symbols is None else {name: number for number, name in enumerate(symbols)}
        if symbols is not None and len(symbols) != len(self.numbers or ()):
            raise ValueError("symbols must have names of their own: one occurs twice")
        self.rows: list[list[int]] = []
        self.words: list[str] = []
        self.path: list[list[int] | None] = []

    def open(self, label: str) -> None:
        self._expect_one_tree(label)
        if self.numbers is not None and label == "" and not self.path:
            self.path.append(None)
            return
        if self.numbers is not None and self._in_last_row() and self.rows[-1][0] < len(self.words):
            raise ValueError(f"a word must be alone in its preterminal, found {label!r} after it")
        self.rows.append([len(self.words), -1, self._symbol(label)])
        self.path.append(self.rows[-1])

    def word(self, word: str) -> None:
        here = len(self.words)
        if self.numbers is None:
            self._expect_one_tree(word)
            self.rows.append([here, here, 0])
        elif not self._in_last_row() or self.rows[-1][0] != here:
            raise ValueError(f"a word must be alone in its preterminal, found {word!r}")
        self.words.append(word)

    def close(self) -> None:
        row = self.path.pop() if self.path else [len(self.words)]
        if row is not None:
            if row[0] == len(self.words):
                raise ValueError(f"brackets hold nothing, or close nothing, after {len(self.words)} words")
            row[1] = len(self.words) - 1

    def event(self) -> Tensor:
        if self.path:
            raise ValueError(f"brackets do not match: {len(self.path)} are still open at the end")
        rows = self.rows
        if self.numbers is None:
            rows = [row for row, below in zip(rows, [*rows[1:], []], strict=False) if row[:2] != below[:2]]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), 3)

    def _in_last_row(self) -> bool:
        return bool(self.path) and bool(self.rows) and self.path[-1] is self.rows[-1]

    def _expect_one_tree(self, found: str) -> None:
        if self.rows and (not self.path or self.path[-1] is None):
            raise ValueError(f"expected one tree, found {found!r} after it")

    def _symbol(self, label: str) -> int:
        if self.numbers is None:
            return 0
        if label not in self.numbers:
            raise ValueError(f"unknown symbol {label!r} at word {len(self.words)}")
        return self.numbers[label]


def _event_of(steps: Iterable[_Step], symbols: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    reader = _Reader(symbols)
    for kind, value in steps:
        if kind == _OPEN:
            reader.open(value)
        elif kind == _WORD:
            reader.word(value)
        else:
            reader.close()
    return reader.event(), reader.words


# ---- strings, nltk -----------------------------------------------------------------------------------------


def _steps_in(text: str, labelled: bool) -> Iterator[_Step]:
    """The steps of brackets; a label is what follows an opening one."""
    tokens = re.findall(r"[()]|[^\s()]+", text)
    after_open = False
    for token, below in zip(tokens, [*tokens[1:], ")"], strict=False):
        if token == "(":
            yield _OPEN, below if labelled and below not in "()" else ""
        elif token == ")":
            yield _CLOSE, None
        elif not (labelled and after_open):
            yield _WORD, _unescaped(token)
        after_open = token == "("


def _steps_under(tree: Any) -> Iterator[_Step]:
    """The steps of nested objects with a ``label()``; everything else is a word."""
    path: list[Iterator[Any]] = [iter([tree])]
    while path:
        for node in path[-1]:
            if hasattr(node, "label"):
                yield _OPEN, node.label()
                path.append(iter(node))
                break
            yield _WORD, str(node)
        else:
            path.pop()
            if path:
                yield _CLOSE, None


def _escaped(word: str) -> str:
    for character, escape in _ESCAPES:
        word = word.replace(character, escape)
    return word


def _unescaped(word: str) -> str:
    for character, escape in _ESCAPES:
        word = word.replace(escape, character)
    return word


def _atom(name: str) -> str:
    if not re.fullmatch(r"[^\s()]+", name):
        raise ValueError(f"brackets cannot hold an empty name, white space or brackets, found {name!r}")
    return name
