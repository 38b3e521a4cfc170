"""Where the nodes of a tree stand in a picture, in units of the font size (em)."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from structlv.data import Tree

GAP = 0.9  # between neighbours
ROW = 2.4  # from a node to its children
TEXT = 1.2  # the height of a label


class Place(NamedTuple):
    """The centre of a node's label; its parent's number (-1 for the root); its kind."""

    x: float
    y: float
    parent: int
    kind: str  # "phrase", "tag" or "word"


def text_width(text: str) -> float:
    """The width of a text in a sans-serif font, estimated: wide (East Asian) signs 1, others 0.6, marks 0."""
    return sum(
        0.0 if unicodedata.combining(c) else 1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6
        for c in text
    )


def layout(tree: Tree, *, words_in_line: bool = False) -> tuple[list[Place], float, float]:
    """A place for each node in pre-order, and the width and height of the whole.

    A subtree takes the space of its label or of its children, whichever is wider, and a node stands over the
    middle of its outermost children: no two labels touch. With `words_in_line` all words stand at the bottom.
    """
    kids, parents, rows = _families(tree)
    widths, centres, starts = _extents(tree, kids)
    lefts = [0.0] * len(widths)
    for i, below in enumerate(kids):
        at = lefts[i] + starts[i]
        for k in below:
            lefts[k] = at
            at += widths[k] + GAP
    last, phrasal, places = max(rows), tree.phrasal(), []
    for i, n in enumerate(tree.arity):
        kind = "word" if n == 0 else "phrase" if phrasal[i] else "tag"
        row = last if words_in_line and kind == "word" else rows[i]
        places.append(Place(lefts[i] + centres[i], row * ROW + TEXT / 2, parents[i], kind))
    return places, widths[0], last * ROW + TEXT


def _families(tree: Tree) -> tuple[list[list[int]], list[int], list[int]]:
    """Children, parent and depth of each node."""
    kids: list[list[int]] = [[] for _ in tree.arity]
    parents, rows = [-1] * len(kids), [0] * len(kids)
    pending = [-1]
    for i, n in enumerate(tree.arity):
        parent = pending.pop()
        if parent >= 0:
            kids[parent].append(i)
            parents[i], rows[i] = parent, rows[parent] + 1
        pending.extend([i] * n)
    return kids, parents, rows


def _extents(tree: Tree, kids: list[list[int]]) -> tuple[list[float], list[float], list[float]]:
    """The width of each subtree; from its left edge, the centre of its root and where its children start."""
    widths = [text_width(label) for label in tree.labels]
    centres, starts = [w / 2 for w in widths], [0.0] * len(widths)
    for i in range(len(widths) - 1, -1, -1):
        if kids[i]:
            own, inside = widths[i], sum(widths[k] for k in kids[i]) + GAP * (len(kids[i]) - 1)
            widths[i] = max(own, inside)
            starts[i] = (widths[i] - inside) / 2
            first, last = kids[i][0], kids[i][-1]
            middle = (centres[first] + inside - widths[last] + centres[last]) / 2
            centres[i] = min(max(starts[i] + middle, own / 2), widths[i] - own / 2)
    return widths, centres, starts
