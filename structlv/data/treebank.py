"""Reading and writing treebanks in Penn brackets, and taking out what is not constituency."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from structlv.data._brackets import Scanner
from structlv.data.readers import numbered_lines
from structlv.data.trees import Tree

TRACE = "-NONE-"


def read_trees(
    path: str | Path, *, root: str | None = None, traces: bool = True, functions: bool = True
) -> Iterator[Tree]:
    """The trees of a file of Penn brackets, one after another: a tree may span lines, a line hold many trees.

    The empty bracket around a tree of the Penn Treebank, `( (S ...) )`, is taken off, or labelled `root`
    where that is given. `traces=False` leaves out empty elements (`-NONE-`) and trees of nothing else,
    `functions=False` what `without_functions` does. Reads as it is iterated over; what it holds is one tree.

    Raises OSError, and ValueError that names the line: not UTF-8, brackets that do not match, a word outside
    of a tree, a node without children or (but for the outermost) without a label.
    """
    for tree in _scan(numbered_lines(path), f"{path}, ", root):
        kept = tree if traces else tree.without_tags({TRACE})
        if kept is not None:
            yield kept if functions else without_functions(kept)


def parse_trees(text: str, *, root: str | None = None) -> list[Tree]:
    """The trees of a text in Penn brackets. Raises ValueError as `read_trees`."""
    return list(_scan(enumerate(text.split("\n"), start=1), "", root))


def parse_tree(text: str) -> Tree:
    """The one tree of a text in Penn brackets. Raises ValueError as `read_trees`, or if there is not one."""
    trees = parse_trees(text)
    if len(trees) != 1:
        raise ValueError(f"expected one tree, found {len(trees)}")
    return trees[0]


def write_trees(path: str | Path, trees: Iterable[Tree]) -> None:
    """Write Penn brackets, a tree a line; `read_trees` gives the same trees back.

    Brackets inside labels become -LRB- and -RRB-. Raises ValueError where a label is empty or has white space
    in it, or a tree is a single word: brackets cannot say that.
    """
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for tree in trees:
            bad = [label for label in tree.labels if not label or re.search(r"[ \t\n\r\f\v]", label)]
            if bad or len(tree.labels) == 1:
                raise ValueError(f"cannot be written in brackets: label {(bad or tree.labels)[0]!r}")
            file.write(f"{tree}\n")


def without_functions(tree: Tree) -> Tree:
    """The tree without function tags and indices on its phrases: NP-SBJ-1 and NP=2 become NP.

    Labels that begin with a hyphen (-NONE-, -LRB-) and tags of words stay as they are.
    """
    labels = zip(tree.labels, tree.phrasal(), strict=True)
    return Tree(tuple(re.split("[-=]", x)[0] or x if phrase else x for x, phrase in labels), tree.arity)


def _scan(lines: Iterable[tuple[int, str]], place: str, root: str | None) -> Iterator[Tree]:
    scanner, number, opened = Scanner(), 0, 1  # opened: the line where the tree that is open began
    for number, line in lines:
        try:
            for labels, arity in scanner.feed(line):
                yield _finished(labels, arity, root)
                opened = number
        except ValueError as error:
            raise ValueError(f"{place}line {number}: {error}") from None
        if not scanner.stack:
            opened = number + 1
    if scanner.stack:
        raise ValueError(f"{place}line {opened}: this tree is still open at the end (line {number})")


def _finished(labels: tuple[str, ...], arity: tuple[int, ...], root: str | None) -> Tree:
    """A tree with the empty outermost bracket removed or labelled."""
    if "" in labels[1:]:
        raise ValueError("a node inside the tree has no label")
    if labels[0] or root is not None:
        return Tree((labels[0] or root or "", *labels[1:]), arity)
    if arity[0] != 1:
        raise ValueError(f"the outermost bracket has no label and {arity[0]} children (give a `root`)")
    return Tree(labels[1:], arity[1:])
