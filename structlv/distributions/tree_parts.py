"""The parts of trees: one number for each, whatever the numbers are."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TreeParts(NamedTuple):
    """One number for each part of a tree: marginals, max-marginals, counts or scores.

    Attributes:
        root: (*b, NT), the symbol of the whole sentence.
        rules: how often each rule is used: (*b, NT, S, S) for dense rules.
        unary: (*b, n, T), the preterminal of each word.
        spans: (*b, n, n, NT), nonterminal A over the words i..j, i < j; 0 (max-marginals: -inf) elsewhere.
    """

    root: Tensor | None
    rules: Tensor | None
    unary: Tensor | None
    spans: Tensor | None


class BinaryTreeParts(NamedTuple):
    """One number for each part of a binary tree: marginals, max-marginals, counts or scores.

    Attributes:
        spans: (*b, n, n), or (*b, n, n, labels): the constituent of the words i..j, leaves on the diagonal;
            0 (max-marginals: -inf) where i > j and in padding.
    """

    spans: Tensor
