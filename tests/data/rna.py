"""The grammar of Knudsen and Hein (1999) for RNA, estimated from an alignment, as a Grammar.

S -> L S | L,  L -> s | d F d',  F -> d F d' | L S: s a single nucleotide, d and d' those of a pair, whose
distributions are the same in L and F. Here d F d' is d X, and X, one for each d', is F d'.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from structlv.data import Grammar, Rule, Terminal, base_pairs, read_stockholm, ungapped

NUCLEOTIDES = "ACGU"
CANONICAL = {"AU", "UA", "GC", "CG", "GU", "UG"}
LOOP = 3  # a pair encloses at least this many nucleotides
SHAPES = {"S": ("LS", "L"), "L": ("s", "dFd"), "F": ("dFd", "LS")}


class Molecule(NamedTuple):
    """A sequence and its base pairs (i, j), i < j."""

    sequence: str
    pairs: list[tuple[int, int]]


def molecules(path: Path) -> list[Molecule]:
    """Sequences of A, C, G and U alone, with the canonical pairs of the consensus that enclose a loop."""
    (alignment,) = read_stockholm(path)
    consensus, found = base_pairs(alignment.columns["SS_cons"]), []
    for row in alignment.rows:
        sequence, pairs = ungapped(row, consensus)
        kept = [(i, j) for i, j in pairs if sequence[i] + sequence[j] in CANONICAL and j - i > LOOP]
        if set(sequence) <= set(NUCLEOTIDES):
            found.append(Molecule(sequence, kept))
    return found


def split(data: list[Molecule]) -> tuple[list[Molecule], list[Molecule]]:
    """Every fifth for the test, from the first on; the others for training."""
    return [m for i, m in enumerate(data) if i % 5], data[::5]


def estimate(data: list[Molecule]) -> Grammar:
    """Counts plus one, for the shapes of rules, for single nucleotides and for pairs."""
    shapes: Counter[tuple[str, str]] = Counter((parent, s) for parent, both in SHAPES.items() for s in both)
    singles, pairs = Counter(NUCLEOTIDES), Counter(a + b for a in NUCLEOTIDES for b in NUCLEOTIDES)
    for molecule in data:
        shapes.update(_shapes(molecule))
        inside = {i for pair in molecule.pairs for i in pair}
        singles.update(s for i, s in enumerate(molecule.sequence) if i not in inside)
        pairs.update(molecule.sequence[i] + molecule.sequence[j] for i, j in molecule.pairs)
    total = {parent: sum(shapes[parent, s] for s in both) for parent, both in SHAPES.items()}
    return Grammar.from_rules(_rules({k: n / total[k[0]] for k, n in shapes.items()}, singles, pairs), "S")


def pairs_of(grammar: Grammar, event: list[list[int]]) -> set[tuple[int, int]]:
    """The base pairs of an event's rows (first, last, symbol): an X covers F and d', d is before it."""
    names = grammar.symbols
    return {(i - 1, j) for i, j, symbol in event if symbol >= 0 and names[symbol].startswith("X")}


def _shapes(molecule: Molecule) -> Counter[tuple[str, str]]:
    """How often the one derivation of a structure uses each shape."""
    partner = dict(molecule.pairs)
    used: Counter[tuple[str, str]] = Counter()
    pending = [("S", 0, len(molecule.sequence))]
    while pending:
        symbol, i, end = pending.pop()
        after = partner.get(i, i) + 1  # behind the first L
        if symbol == "F" and after == end:
            used["F", "dFd"] += 1
            pending.append(("F", i + 1, end - 1))
            continue
        used[symbol, "LS" if after < end else "L"] += 1
        used["L", "dFd" if i in partner else "s"] += 1
        if i in partner:
            pending.append(("F", i + 1, after - 1))
        if after < end:
            pending.append(("S", after, end))
    return used


def _rules(shape: dict[tuple[str, str], float], singles: Counter[str], pairs: Counter[str]) -> list[Rule]:
    log = math.log
    rules = [
        Rule("S", ("L", "S"), log(shape["S", "LS"])),
        Rule("S", ("L",), log(shape["S", "L"])),
        Rule("F", ("L", "S"), log(shape["F", "LS"])),
    ]
    for s in NUCLEOTIDES:
        rules.append(Rule("L", (Terminal(s),), log(shape["L", "s"] * singles[s] / singles.total())))
        rules.append(Rule(f"X{s}", ("F", Terminal(s))))
    for (a, b), count in pairs.items():
        for parent in "LF":
            weight = log(shape[parent, "dFd"] * count / pairs.total())
            rules.append(Rule(parent, (Terminal(a), f"X{b}"), weight))
    return rules
