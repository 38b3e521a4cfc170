"""Binary trees that know only the length of a sentence: the least that a grammar must do better than."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

from structlv.data import Tree


def left_branching(words: Sequence[str], label: str = "X") -> Tree:
    """(((a b) c) d). Raises ValueError if there is no word."""
    return _binary([2] * (len(words) - 1) + [0] * len(words), words, label)


def right_branching(words: Sequence[str], label: str = "X") -> Tree:
    """(a (b (c d))). Raises ValueError if there is no word."""
    return _binary([2, 0] * (len(words) - 1) + [0], words, label)


def random_tree(words: Sequence[str], seed: int, label: str = "X") -> Tree:
    """One of the binary trees over the words, each as probable as any other; the same for the same seed.

    Of the orders of n - 1 twos and n zeros, each has exactly one rotation that is a tree in pre-order
    (Dvoretzky and Motzkin 1947, the cycle lemma): a shuffle, rotated, is uniform. Raises ValueError if there
    is no word.
    """
    arity = [2] * (len(words) - 1) + [0] * len(words)
    random.Random(seed).shuffle(arity)
    heights = list(accumulate(n - 1 for n in arity))
    lowest = heights.index(min(heights)) + 1 if heights else 0
    return _binary(arity[lowest:] + arity[:lowest], words, label)


def _binary(arity: list[int], words: Sequence[str], label: str) -> Tree:
    if not words:
        raise ValueError("a tree needs at least one word")
    rest = iter(words)
    return Tree(tuple(label if n else next(rest) for n in arity), tuple(arity))
