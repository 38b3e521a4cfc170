"""Binarisation and collapsed chains, and back."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from structlv.data import Tree, binarise, collapse_unary, expand_unary, parse_tree, read_trees, unbinarise

FLAT = "(S (NP (A a) (B b) (C c) (D d)) (E e))"
CHAIN = "(TOP (S (VP (V go) (NP (QP (N x))))))"
OPTIONS: list[dict[str, Any]] = [
    {"side": side, "horizontal": h, "vertical": v, "memory": memory}
    for side, h, v, memory in product(("right", "left"), (None, 0, 1, 2), (1, 2, 3), ("outside", "inside"))
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "(S (NP (A a) (NP|<A> (B b) (NP|<A-B> (C c) (D d)))) (E e))"),
        ({"horizontal": 1}, "(S (NP (A a) (NP|<A> (B b) (NP|<B> (C c) (D d)))) (E e))"),
        ({"horizontal": 0}, "(S (NP (A a) (NP|<> (B b) (NP|<> (C c) (D d)))) (E e))"),
        ({"memory": "inside"}, "(S (NP (A a) (NP|<B-C-D> (B b) (NP|<C-D> (C c) (D d)))) (E e))"),
        ({"side": "left"}, "(S (NP (NP|<D> (NP|<C-D> (A a) (B b)) (C c)) (D d)) (E e))"),
        ({"side": "left", "horizontal": 1}, "(S (NP (NP|<D> (NP|<C> (A a) (B b)) (C c)) (D d)) (E e))"),
        (
            {"side": "left", "horizontal": 1, "memory": "inside"},
            "(S (NP (NP|<C> (NP|<B> (A a) (B b)) (C c)) (D d)) (E e))",
        ),
        (
            {"horizontal": 1, "vertical": 2},
            "(S (NP^<S> (A a) (NP|<A>^<S> (B b) (NP|<B>^<S> (C c) (D d)))) (E e))",
        ),
    ],
)
def test_binarise(options: dict[str, Any], expected: str) -> None:
    tree = parse_tree(FLAT)
    assert str(binarise(tree, **options)) == expected
    assert unbinarise(parse_tree(expected)) == tree


def test_chains_of_unary_rules() -> None:
    tree = parse_tree(CHAIN)
    assert str(collapse_unary(tree)) == "(TOP+S+VP (V go) (NP+QP (N x)))"
    assert str(collapse_unary(tree, root=False)) == "(TOP (S+VP (V go) (NP+QP (N x))))"
    for root in (True, False):
        assert expand_unary(collapse_unary(tree, root=root)) == tree
    parents = "(TOP (S^<TOP> (VP^<S-TOP> (V go) (NP^<VP-S> (QP^<NP-VP> (N x))))))"
    assert str(binarise(tree, vertical=3)) == parents


@pytest.mark.parametrize("text", ["(N a)", "(A (N a))", "(A (B (N a)))", "(A a b c)", "(A a (B b) c d)"])
def test_small_and_mixed_trees(text: str) -> None:
    tree = parse_tree(text)
    for options in OPTIONS:
        assert unbinarise(binarise(tree, **options)) == tree
        both = binarise(collapse_unary(tree), **options)
        assert max(both.arity) <= 2
        assert expand_unary(unbinarise(both)) == tree


def test_words_and_tags_may_look_like_marks() -> None:
    tree = parse_tree("(S (X+|< a+b) (Y^< c|<) (Z d^<))")
    assert expand_unary(unbinarise(binarise(collapse_unary(tree)))) == tree


def test_depth_and_length_do_not_matter() -> None:
    deep = parse_tree("(X " * 6000 + "(Y y) (Z z) (Z z)" + ")" * 6000)
    wide = Tree(("S", *("N", "w") * 4000), (4000, *(1, 0) * 4000))
    for tree in (deep, wide):
        changed = binarise(collapse_unary(tree), "left", horizontal=1)
        assert changed.depth() > 3 or tree is deep
        assert expand_unary(unbinarise(changed)) == tree


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'A\+B' has the mark '\+'"):
        collapse_unary(parse_tree("(A+B (C (D d)))"))
    for label in ("A|<x>", "A^<x>"):
        with pytest.raises(ValueError, match="has the mark"):
            binarise(parse_tree(f"({label} (C c) (D d))"))
    with pytest.raises(ValueError, match="stands for some children of another node"):
        unbinarise(parse_tree("(A|<x> (C c) (D d))"))
    bad: list[dict[str, Any]] = [{"side": "up"}, {"memory": "all"}, {"vertical": 0}, {"horizontal": -1}]
    for options in bad:
        with pytest.raises(ValueError, match="expected"):
            binarise(parse_tree(FLAT), **options)


@pytest.mark.corpora
@pytest.mark.parametrize("name", ["craft", "gum_open"])
def test_every_tree_of_the_treebanks_comes_back(corpora: Path, name: str) -> None:
    for path in sorted((corpora / name).glob("*.trees")):
        for number, tree in enumerate(read_trees(path)):
            options = OPTIONS[number % len(OPTIONS)]
            collapsed = collapse_unary(tree, root=number % 2 == 0)
            both = binarise(collapsed, **options)
            assert max(both.arity) <= 2
            assert expand_unary(collapsed) == tree
            assert unbinarise(both) == collapsed
            assert unbinarise(expand_unary(collapse_unary(binarise(tree, **options)))) == tree
