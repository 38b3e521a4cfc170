"""Every tree of one sentence, and its score, by indexing alone."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from structlv.distributions import BinaryTree, SparseRules, TreePosterior
from structlv.reference.enumerate import derivations, sparse_items

Rows = tuple[tuple[int, int], ...]


def skeletons(i: int, j: int) -> list[Rows]:
    """The spans of all binary trees over the words i..j, each in pre-order; the lowest split first."""
    if i == j:
        return [((i, j),)]
    return [
        ((i, j), *left, *right)
        for k in range(i, j)
        for left in skeletons(i, k)
        for right in skeletons(k + 1, j)
    ]


def every_tree(length: int, rows: int, inner: range, leaves: range) -> Tensor:
    """All trees over ``length`` words, (count, rows, 3), padded with -1."""
    events = []
    for spans in skeletons(0, length - 1):
        for symbols in itertools.product(*[inner if i < j else leaves for i, j in spans]):
            tree = [(i, j, symbol) for (i, j), symbol in zip(spans, symbols, strict=True)]
            events.append(tree + [(-1, -1, -1)] * (rows - len(tree)))
    return torch.tensor(events).reshape(len(events), rows, 3)


def no_tree(rows: int) -> Tensor:
    """What stands for the trees of a sentence that has none: an event of score -inf."""
    return torch.full((1, rows, 3), -1)


def length_of(d: Any) -> int:
    n = (d.event_shape[0] + 1) // 2
    return n if d.lengths is None else int(d.lengths)


def tree_structures(d: TreePosterior) -> Tensor:
    inner = range(d.root.shape[-1])
    leaves = range(len(inner), len(inner) + d.unary.shape[-1])
    rows = d.event_shape[0]
    return every_tree(length_of(d), rows, inner, leaves) if length_of(d) > 1 else no_tree(rows)


def tree_scores(d: Any, events: Tensor) -> Tensor:
    """Of a grammar with dense rules, row by row."""
    if length_of(d) < 2:
        return torch.full((len(events),), -torch.inf, dtype=torch.float64)
    totals = []
    inner = d.root.shape[-1]
    for event in events.tolist():
        tree = {(i, j): symbol for i, j, symbol in event if i >= 0}
        total = d.root[event[0][2]].double()
        for at, (i, j, symbol) in enumerate(event):
            if i < 0:
                continue
            if i == j:
                total = total + d.unary[i, symbol - inner].double()
                continue
            k = event[at + 1][1]
            total = total + d.rules[symbol, event[at + 1][2], tree[k + 1, j]].double()
            if d.spans is not None:
                total = total + d.spans[i, j, symbol if d.spans.shape[-1] > 1 else 0].double()
        totals.append(total)
    return torch.stack(totals)


def lowrank_scores(d: Any, events: Tensor) -> Tensor:
    """Of a grammar of low rank: the rules are written out, term by term."""
    terms = d.left.double().unsqueeze(-1) + d.right.double().unsqueeze(-2)
    if d.head is not None:
        total = (d.head.double()[..., None, None] + terms).exp().sum(-3)
        terms = torch.where(total > 0, torch.where(total > 0, total, 1.0).log(), -torch.inf)
    rest = {name: getattr(d, name) for name in ("root", "unary", "spans", "lengths", "event_shape")}
    return tree_scores(SimpleNamespace(rules=terms, **rest), events)


def binary_structures(d: BinaryTree) -> Tensor:
    length, rows, labels = length_of(d), d.event_shape[0], range(d.num_labels)
    return every_tree(length, rows, labels, labels) if length else no_tree(rows)


def binary_scores(d: BinaryTree, events: Tensor) -> Tensor:
    """A sum over rows; the empty tree has score 0."""
    scores = d.span_scores if d.span_scores.dim() == 3 else d.span_scores.unsqueeze(-1)
    totals = []
    for event in events.tolist():
        rows = [scores[i, j, label].double() for i, j, label in event if i >= 0]
        totals.append(torch.stack(rows).sum() if rows else torch.zeros((), dtype=torch.float64))
    return torch.stack(totals)


# Rules over three nonterminals and two preterminals, chains of three unary rules among them.
RULES = [
    [0, 1, 2],
    [0, 3, 1],
    [1, 3, 4],
    [0, 1, -1],
    [1, 2, -1],
    [2, 4, -1],
    [2, 3, 3],
    [1, 0, 4],
    [0, 4, -1],
]
# More unary rules than binary ones; one word has many trees.
UNARY_RULES = [
    [0, 1, -1],
    [0, 2, -1],
    [0, 3, -1],
    [1, 2, -1],
    [1, 3, -1],
    [2, 4, -1],
    [2, 3, -1],
    [0, 1, 2],
]
BINARY_RULES = [[0, 2, 1], [0, 1, 2], [0, 0, 1], [0, 2, 2]]


def sparse_trees(rules: list[list[int]]) -> Any:
    """A builder of trees of these rules, from the scores alone."""

    def build(scores: Tensor, **options: Any) -> TreePosterior:
        return TreePosterior(rules=SparseRules(torch.tensor(rules), scores), **options)

    return build


def sparse_structures(d: Any) -> Tensor:
    """All trees of the listed rules, padded with -1."""
    inner, (rows, _) = d.num_nonterminals, d.event_shape
    length = d.unary.shape[-2] if d.lengths is None else int(d.lengths)
    tops = range(inner if length else 0)
    trees = [tree for a in tops for tree in derivations(d.index.tolist(), inner, 0, length - 1, a)]
    if not trees:
        return no_tree(rows)
    return torch.tensor([tree + [(-1, -1, -1)] * (rows - len(tree)) for tree, _ in trees])


def sparse_scores(d: Any, events: Tensor) -> Tensor:
    """In the order of ``sparse_structures``."""
    [(trees, scores)] = sparse_items(d.root, d.index, d.scores, d.unary, d.spans, d.lengths)
    return scores if trees else torch.full((len(events),), -torch.inf, dtype=torch.float64)
