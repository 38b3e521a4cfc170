"""Trees with at most two children per node and no unary chains, and exactly back again.

Marks in labels: `S+VP` is a collapsed chain; `NP|<DT-JJ>` stands for some of the children of an NP, `NP^<VP>`
is an NP under a VP. Labels of treebanks have none of them; a tree whose labels do is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from structlv.data.trees import Tree

CHAIN, PART, PARENT = "+", "|<", "^<"


def collapse_unary(tree: Tree, *, root: bool = True) -> Tree:
    """Join each chain of phrases with one child each into one phrase: S over VP becomes S+VP.

    The last of a chain has several children, or one word's preterminal: those stay. With `root=False` the
    root stays out of chains. Inverse: `expand_unary`. Raises ValueError where a phrase's label has a "+".
    """
    phrasal = tree.phrasal()
    _refuse(tree, phrasal, CHAIN)
    labels: list[str] = []
    arity: list[int] = []
    joins = False  # whether the node is the only child of the phrase before
    for i, (label, n) in enumerate(zip(tree.labels, tree.arity, strict=True)):
        if joins and phrasal[i]:
            labels[-1], arity[-1] = f"{labels[-1]}{CHAIN}{label}", n
        else:
            labels.append(label)
            arity.append(n)
        joins = n == 1 and phrasal[i] and (root or i > 0)
    return Tree(tuple(labels), tuple(arity))


def expand_unary(tree: Tree) -> Tree:
    """The inverse of `collapse_unary`."""
    labels: list[str] = []
    arity: list[int] = []
    for label, n, phrase in zip(tree.labels, tree.arity, tree.phrasal(), strict=True):
        chain = label.split(CHAIN) if phrase else [label]
        labels.extend(chain)
        arity.extend([1] * (len(chain) - 1) + [n])
    return Tree(tuple(labels), tuple(arity))


def binarise(
    tree: Tree,
    side: Literal["right", "left"] = "right",
    *,
    horizontal: int | None = None,
    vertical: int = 1,
    memory: Literal["outside", "inside"] = "outside",
) -> Tree:
    """Split nodes of more than two children by intermediate nodes, `NP|<siblings>`, of two children each.

    To the right, an intermediate node stands for all children from some place on (A -> x1 A|<>, A|<> -> x2
    A|<>, ...); to the left, for all up to some place. It remembers `horizontal` siblings (all if None): the
    nearest outside of it, those already generated; or with memory="inside" the nearest that it stands for.
    With `vertical` v each phrase also names its v - 1 nearest ancestors, `NP^<VP-S>`. Inverse: `unbinarise`.

    Source: Johnson (1998) for the parents; Klein and Manning (2003), section 2, for both orders of history.
    Raises ValueError on a label with one of the marks, or values out of range.
    """
    if side not in ("right", "left") or memory not in ("outside", "inside"):
        raise ValueError(
            f"expected side right or left, memory outside or inside, found {side!r} and {memory!r}"
        )
    if vertical < 1 or (horizontal is not None and horizontal < 0):
        raise ValueError(
            f"expected vertical >= 1 and horizontal >= 0, found vertical={vertical}, horizontal={horizontal}"
        )
    phrasal = tree.phrasal()
    _refuse(tree, phrasal, PART, PARENT)
    suffix = _parents(tree, vertical)
    parts: dict[int, list[str]] = {}  # of a node: the intermediate nodes that begin just before it
    for node, kids in _families(tree):
        names = _memories([tree.labels[k] for k in kids], side, horizontal, memory)
        for place, name in names:
            label = f"{tree.labels[node]}{PART}{name}>{suffix[node]}"
            parts.setdefault(kids[place], []).append(label)
    labels: list[str] = []
    arity: list[int] = []
    for i, (label, n) in enumerate(zip(tree.labels, tree.arity, strict=True)):
        before = parts.get(i, [])
        labels.extend([*before, label + suffix[i] if phrasal[i] else label])
        arity.extend([2] * len(before) + [min(n, 2)])
    return Tree(tuple(labels), tuple(arity))


def unbinarise(tree: Tree) -> Tree:
    """The inverse of `binarise`, whatever its options were."""
    arity = list(tree.arity)
    phrasal = tree.phrasal()
    part = [phrase and PART in label for label, phrase in zip(tree.labels, phrasal, strict=True)]
    counts: list[int] = []  # children that each finished subtree stands for
    for i in range(len(arity) - 1, -1, -1):
        arity[i] = sum(counts.pop() for _ in range(tree.arity[i]))
        counts.append(arity[i] if part[i] else 1)
    kept = [i for i, p in enumerate(part) if not p]
    if not kept or kept[0] != 0:
        raise ValueError(f"the root {tree.label!r} stands for some children of another node")
    labels = (tree.labels[i].split(PARENT)[0] if phrasal[i] else tree.labels[i] for i in kept)
    return Tree(tuple(labels), tuple(arity[i] for i in kept))


def _refuse(tree: Tree, phrasal: list[bool], *marks: str) -> None:
    for label, phrase in zip(tree.labels, phrasal, strict=True):
        for mark in marks:
            if phrase and mark in label:
                raise ValueError(f"the label {label!r} has the mark {mark!r} in it already")


def _families(tree: Tree) -> Iterator[tuple[int, list[int]]]:
    """Each node of more than two children with these, as positions."""
    sizes = tree.sizes()
    for i, n in enumerate(tree.arity):
        if n > 2:
            kids = [i + 1]
            while len(kids) < n:
                kids.append(kids[-1] + sizes[kids[-1]])
            yield i, kids


def _memories(
    siblings: list[str], side: str, horizontal: int | None, memory: str
) -> Iterator[tuple[int, str]]:
    """In pre-order each intermediate node: the child that it begins with, and the siblings that it names."""
    n = len(siblings)
    h = n if horizontal is None else horizontal
    blocks = [(i, n) for i in range(1, n - 1)] if side == "right" else [(0, i) for i in range(n - 1, 1, -1)]
    for begin, end in blocks:
        after = (side == "left") == (memory == "outside")  # those remembered follow the edge of the block
        edge = begin if side == "right" else end
        named = siblings[edge : edge + h] if after else siblings[max(0, edge - h) : edge]
        yield begin, "-".join(named)


def _parents(tree: Tree, vertical: int) -> list[str]:
    """The text `^<..>` that names each node's nearest vertical - 1 ancestors, the nearest first."""
    suffix: list[str] = []
    pending: list[tuple[str, ...]] = [()]
    for label, n in zip(tree.labels, tree.arity, strict=True):
        ancestors = pending.pop()
        suffix.append(f"{PARENT}{'-'.join(ancestors)}>" if ancestors else "")
        pending.extend([(label, *ancestors)[: vertical - 1]] * n)
    return suffix
