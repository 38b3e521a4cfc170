"""Reader of context-free grammars in NLTK's notation."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator
from pathlib import Path

from structlv.data.grammar import Rule, Terminal

PIECE = re.compile(
    r"""\s*(?: '(?P<single>[^']*)' | "(?P<double>[^"]*)" | (?P<arrow>->|→) | (?P<bar>\|)
    | \[(?P<weight>\d*\.?\d+(?:[eE][+-]?\d+)?)\] | (?P<name>(?:(?!->)[^\s'"|\[\]→])+) )\s*""",
    re.VERBOSE,
)


class _Sign(enum.Enum):
    """What is neither a symbol nor a number."""

    ARROW = "->"
    BAR = "|"


ARROW, BAR = _Sign.ARROW, _Sign.BAR


def read_cfg(path: str | Path) -> tuple[list[Rule], str]:
    """The rules of a file in NLTK's notation (nltk.org, module nltk.grammar), and the start symbol.

    A line reads `A -> B 'word' C | "word" [0.25]`: quoted terminals, alternatives, and for each of them its
    probability where there is one (the rule's score is its logarithm, else 0). A backslash at the end joins
    the next line on; lines that start with # are comments. `%start A` names the start, which else is the
    first rule's parent. `Grammar.from_rules(*read_cfg(path))` gives the arrays.

    Raises OSError, and ValueError that names the line: not UTF-8 (but for comments), no such notation, a rule
    without children, a file without rules.
    """
    rules: list[Rule] = []
    start: str | None = None
    for number, line in _logical_lines(path):
        try:
            if line.startswith("%"):
                start = _directive(line)
            else:
                rules.extend(_rules(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not rules:
        raise ValueError(f"{path}: no rule in it")
    return rules, rules[0].parent if start is None else start


def _logical_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Lines that say something, with continuations joined; comments may be in any encoding."""
    begun, pending = 0, ""
    for number, raw in enumerate(Path(path).read_bytes().splitlines(), start=1):
        stripped = raw.removeprefix(b"\xef\xbb\xbf").strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        try:
            line = stripped.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 text: {error.reason}") from error
        begun, pending = (begun if pending else number), pending + line.removesuffix("\\")
        if not line.endswith("\\"):
            yield begun, pending
            pending = ""
    if pending:
        yield begun, pending


def _directive(line: str) -> str:
    name, *rest = line.split()
    if name != "%start" or len(rest) != 1:
        raise ValueError(f"expected '%start NONTERMINAL', found {line!r}")
    return rest[0]


def _rules(line: str) -> Iterator[Rule]:
    """The rules of one line, an alternative each."""
    pieces = _pieces(line)
    if len(pieces) < 2 or not isinstance(pieces[0], str) or pieces[1] is not ARROW:
        raise ValueError(f"expected 'NONTERMINAL -> ...', found {line!r}")
    children: list[str | Terminal] = []
    score = 0.0
    for piece in [*pieces[2:], BAR]:
        if isinstance(piece, (str, Terminal)):
            children.append(piece)
        elif isinstance(piece, float):
            score = math.log(piece) if piece > 0 else -math.inf
        elif piece is ARROW or not children:
            raise ValueError("a second arrow" if piece is ARROW else "a rule without children")
        else:
            yield Rule(pieces[0], tuple(children), score)
            children, score = [], 0.0


def _pieces(line: str) -> list[str | Terminal | float | _Sign]:
    """Nonterminals as text, terminals, probabilities and signs."""
    found: list[str | Terminal | float | _Sign] = []
    end = 0
    while end < len(line):
        match = PIECE.match(line, end)
        if match is None:
            raise ValueError(f"cannot be read: {line[end:].strip()!r}")
        kind, end = match.lastgroup, match.end()
        text = match[kind] if kind is not None else ""
        if kind == "name":
            found.append(text)
        elif kind in ("single", "double"):
            found.append(Terminal(text))
        elif kind == "weight":
            found.append(float(text))
        else:
            found.append(ARROW if kind == "arrow" else BAR)
    return found
