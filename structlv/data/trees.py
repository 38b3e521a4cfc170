"""Constituency trees as two arrays in pre-order: nothing here recurses, so no depth overflows a stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """A labelled node over words first..last, both included."""

    first: int
    last: int
    label: str


@dataclass(frozen=True, slots=True)
class Tree:
    """An ordered tree: the label and the number of children of each node, in pre-order.

    A node without children is a leaf and its label a word. A node whose one child is a leaf is a preterminal
    and its label the word's tag. Every other node is a phrase. Where only the tags matter ("delexicalised"),
    they stand as the words too: `tree.with_words(tree.tags)`. Made by `read_trees`, `parse_tree` or
    `Tree.from_spans`. Raises ValueError where the two are not one whole tree.
    """

    labels: tuple[str, ...]
    arity: tuple[int, ...]

    def __post_init__(self) -> None:
        awaited = 1
        for n in self.arity:
            if awaited == 0 or n < 0:
                break
            awaited += n - 1
        else:
            if awaited == 0 and len(self.labels) == len(self.arity):
                return
        found = f"found {len(self.labels)} labels, arity {self.arity[:20]}"
        raise ValueError(f"labels and arity must be one whole tree in pre-order, {found}")

    @property
    def label(self) -> str:
        """The label of the root."""
        return self.labels[0]

    @property
    def children(self) -> tuple[Tree, ...]:
        """The subtrees under the root, as trees of their own."""
        sizes, found, i = self.sizes(), [], 1
        while i < len(self.labels):
            end = i + sizes[i]
            found.append(Tree(self.labels[i:end], self.arity[i:end]))
            i = end
        return tuple(found)

    @property
    def words(self) -> tuple[str, ...]:
        """The labels of the leaves."""
        return tuple(label for label, n in zip(self.labels, self.arity, strict=True) if n == 0)

    @property
    def tags(self) -> tuple[str, ...]:
        """The label of each word's preterminal. Raises ValueError where a word has none."""
        bare = [label for i, label in enumerate(self.labels) if self.arity[i] == 0 and not self._tagged(i)]
        if bare:
            raise ValueError(f"every word must have a preterminal of its own, {bare[0]!r} has none")
        return tuple(self.labels[i - 1] for i, n in enumerate(self.arity) if n == 0)

    def sizes(self) -> list[int]:
        """Number of nodes in the subtree of each node, itself included."""
        sizes, done = [1] * len(self.arity), list[int]()
        for i in range(len(self.arity) - 1, -1, -1):
            for _ in range(self.arity[i]):
                sizes[i] += done.pop()
            done.append(sizes[i])
        return sizes

    def nodes(self) -> list[Span]:
        """All nodes but the leaves, in pre-order."""
        spans = zip(self._spans(), self.labels, self.arity, strict=True)
        return [Span(first, last, label) for (first, last), label, n in spans if n > 0]

    def phrases(self) -> list[Span]:
        """All nodes but leaves and preterminals, in pre-order."""
        spans = zip(self._spans(), self.labels, self.phrasal(), strict=True)
        return [Span(first, last, label) for (first, last), label, phrase in spans if phrase]

    def phrasal(self) -> list[bool]:
        """Whether each node, in pre-order, is a phrase."""
        below = (*self.arity[1:], 0)
        return [n > 1 or (n == 1 and m > 0) for n, m in zip(self.arity, below, strict=True)]

    def depth(self) -> int:
        """Number of nodes on the longest way from the root to a leaf."""
        deepest, levels = 0, [1]
        for n in self.arity:
            level = levels.pop()
            deepest = max(deepest, level)
            levels.extend([level + 1] * n)
        return deepest

    def with_words(self, words: Sequence[str]) -> Tree:
        """The same tree over other words. Raises ValueError unless there are as many."""
        if len(words) != self.arity.count(0):
            raise ValueError(f"expected {self.arity.count(0)} words, found {len(words)}")
        rest = iter(words)
        labels = (label if n else next(rest) for label, n in zip(self.labels, self.arity, strict=True))
        return Tree(tuple(labels), self.arity)

    def without_tags(self, tags: Iterable[str]) -> Tree | None:
        """The tree less the words with these tags and the nodes this empties; None if nothing is left."""
        dropped = set(tags)
        arity, keep, alive = list(self.arity), [True] * len(self.arity), list[bool]()
        for i in range(len(arity) - 1, -1, -1):
            if self.arity[i] == 0:
                keep[i] = not (self._tagged(i) and self.labels[i - 1] in dropped)
            else:
                arity[i] = sum(alive.pop() for _ in range(self.arity[i]))
                keep[i] = arity[i] > 0
            alive.append(keep[i])
        kept = [i for i, k in enumerate(keep) if k]
        return Tree(tuple(self.labels[i] for i in kept), tuple(arity[i] for i in kept)) if kept else None

    @classmethod
    def from_spans(cls, spans: Iterable[tuple[int, int, str]], words: Sequence[str]) -> Tree:
        """The tree over `words` of these nodes (first word, last word, label) in pre-order, as `nodes` gives.

        Of equal spans the earlier is the parent. Raises ValueError where spans cross or are out of order, or
        the first is not the whole sentence.
        """
        building = _Building(words)
        for first, last, label in spans:
            building.open(first, last, label)
        building.fill(len(words))
        return cls(tuple(building.labels), tuple(building.arity))

    def _spans(self) -> list[tuple[int, int]]:
        """First and last word of every node: the words before a node in pre-order lie to its left."""
        before = [0]
        for n in self.arity:
            before.append(before[-1] + (n == 0))
        return [(before[i], before[i + size] - 1) for i, size in enumerate(self.sizes())]

    def _tagged(self, i: int) -> bool:
        """Whether the leaf i is the only child of its parent."""
        return i > 0 and self.arity[i - 1] == 1

    def __str__(self) -> str:
        """Penn brackets on one line, with -LRB- and -RRB- for the brackets inside labels."""
        return "".join(self._pieces())

    def _pieces(self) -> Iterator[str]:
        rest: list[int] = []  # children that each open node still waits for
        for label, n in zip(self.labels, self.arity, strict=True):
            escaped = label.replace("(", "-LRB-").replace(")", "-RRB-")
            yield f"{' ' if rest else ''}{'(' if n else ''}{escaped}"
            rest.append(n)
            while rest and rest[-1] == 0:
                rest.pop()
                if rest:
                    rest[-1] -= 1
                    yield ")" if rest[-1] == 0 else ""


class _Building:
    """A tree that grows in pre-order from spans over given words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.labels: list[str] = []
        self.arity: list[int] = []
        self.next_word = 0
        self.stack: list[tuple[int, int]] = []  # (last word, node) of the open nodes

    def open(self, first: int, last: int, label: str) -> None:
        """A node over words first..last."""
        self.fill(first)
        end = self.stack[-1][0] if self.stack else len(self.words) - 1
        fits = self.next_word == first <= last <= end and (self.stack or last == end)
        if not fits or (self.labels and not self.stack):
            raise ValueError(f"expected nested spans in pre-order, found {(first, last, label)}")
        self._add(label)
        self.stack.append((last, len(self.labels) - 1))

    def fill(self, word: int) -> None:
        """The words before `word` as leaves, and closed what ends there."""
        while self.stack and self.stack[-1][0] < word:
            while self.next_word <= self.stack[-1][0]:
                self._word()
            self.stack.pop()
        while self.stack and self.next_word < word:
            self._word()

    def _word(self) -> None:
        self._add(self.words[self.next_word])
        self.next_word += 1

    def _add(self, label: str) -> None:
        if self.stack:
            self.arity[self.stack[-1][1]] += 1
        self.labels.append(label)
        self.arity.append(0)
