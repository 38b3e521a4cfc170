"""F1 with and without labels, by hand and on the treebanks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from structlv.data import Tree, parse_tree, read_trees
from structlv.metrics import (
    PUNCTUATION,
    labelled_f1,
    left_branching,
    random_tree,
    right_branching,
    unlabelled_f1,
)

GOLD = parse_tree("(TOP (S (NP (D a) (N b)) (VP (V c) (NP (NP (N d)) (PP (P e) (N f)))) (. .)))")


def test_unlabelled_by_hand() -> None:
    """Gold spans that count: 0-1, 2-5, 3-5, 4-5; the NP over d is one word, S and TOP the whole."""
    guess = [(0, 6), (0, 1), (2, 6), (3, 5), (3, 4)]
    score = unlabelled_f1([GOLD], [guess])
    assert score.precision == 2 / 4
    assert score.recall == 2 / 4
    assert score.f1 == score.sentence_f1 == 0.5
    assert (score.exact, score.sentences) == (0.0, 1)
    assert unlabelled_f1([GOLD], [GOLD]) == (1.0, 1.0, 1.0, 1.0, 1.0, 1)
    event = torch.tensor([(*span, 7) for span in guess] + [(-1, -1, -1)])
    assert unlabelled_f1([GOLD], [event.tolist()]) == score


def test_unlabelled_conventions() -> None:
    """A chain is one span; one word is left out; nothing against nothing is 1, something is 0."""
    chain = parse_tree("(S (A (B (N a) (N b))) (N c))")
    assert unlabelled_f1([chain], [[(0, 1), (0, 1)]]).f1 == 1.0
    one, two = parse_tree("(S (N a))"), parse_tree("(S (N a) (N b))")
    flat = parse_tree("(S (N a) (N b) (N c))")
    assert unlabelled_f1([one, two], [[], [(0, 1)]]) == (1.0, 1.0, 1.0, 1.0, 1.0, 1)
    missed = unlabelled_f1([flat, two], [[(0, 1)], []])
    assert missed.sentence_f1 == 0.5
    assert missed.f1 == 0.0
    assert unlabelled_f1([chain, two], [[], []]).sentence_f1 == 0.5


def test_labelled_by_hand() -> None:
    guess = parse_tree("(TOP (S (NP (D a) (N b)) (VP (V c) (NP (N d)) (PP (P e) (N f))) (. .)))")
    # gold S NP VP NP NP PP; guess S NP VP NP PP: all of them right
    score = labelled_f1([GOLD], [guess])
    assert (score.precision, score.recall) == (1.0, 5 / 6)
    assert labelled_f1([GOLD], [guess], ignore_labels=()).recall == 6 / 7
    assert labelled_f1([GOLD], [guess], root=False).recall == 4 / 5
    assert labelled_f1([GOLD], [GOLD.phrases()]).exact == 1.0


def test_repeated_spans_count_as_often_as_they_occur() -> None:
    gold = parse_tree("(S (NP (NP (NP (N a) (N b)))) (V c))")
    guess = parse_tree("(S (NP (NP (N a) (N b))) (V c))")
    assert labelled_f1([gold], [guess]).recall == 3 / 4
    assert labelled_f1([gold], [guess], unaries=False).f1 == 1.0
    guess = parse_tree("(S (VP (NP (N a) (N b))) (V c))")
    assert labelled_f1([gold], [guess], unaries=False).precision == 1 / 2


def test_punctuation_and_equivalent_labels() -> None:
    gold = parse_tree("(S (NP (N a) (, ,) (N b)) (PRN (, ,)) (PRT (R up)) (. .))")
    guess = parse_tree("(S (NP (N a)) (X (, ,) (NP (N b)) (X (, ,) (ADVP (R up)) (. .))))")
    plain = labelled_f1([gold], [guess])
    bare = labelled_f1([gold], [guess], ignore_tags=PUNCTUATION, equivalent={"PRT": "ADVP"})
    assert plain.f1 == pytest.approx(2 / (4 + 6))
    # without: gold S 0-2, NP 0-1, ADVP 2-2; guess S 0-2, NP 0-0, X 1-2, NP 1-1, X 2-2, ADVP 2-2
    assert (bare.precision, bare.recall) == (2 / 6, 2 / 3)


def test_sentences_without_a_parse_are_missed() -> None:
    score = labelled_f1([GOLD, GOLD], [None, GOLD])
    assert (score.precision, score.recall, score.sentence_f1) == (1.0, 0.5, 0.5)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"within 7 words, found \(0, 7\)"):
        unlabelled_f1([GOLD], [[(0, 7)]])
    with pytest.raises(ValueError, match=r"within 7 words, found \(3, 2\)"):
        labelled_f1([GOLD], [[(3, 2, "NP")]])
    with pytest.raises(ValueError, match="one prediction per gold tree, found 0 for 1"):
        labelled_f1([GOLD], [])
    with pytest.raises(ValueError, match="at least one sentence"):
        unlabelled_f1([parse_tree("(N a)")], [[]])


def test_baselines() -> None:
    words = ["a", "b", "c", "d"]
    assert str(left_branching(words)) == "(X (X (X a b) c) d)"
    assert str(right_branching(words, "Y")) == "(Y a (Y b (Y c d)))"
    for make in (left_branching, right_branching, lambda w: random_tree(w, 0)):
        assert make(["a"]) == Tree(("a",), (0,))
        assert len(make(words * 700).phrases()) == 2799
        with pytest.raises(ValueError, match="at least one word"):
            make([])


def test_random_trees_are_uniform_and_repeatable() -> None:
    words = ["a", "b", "c", "d", "e"]
    drawn = [random_tree(words, seed) for seed in range(2800)]
    assert drawn[:9] == [random_tree(words, seed) for seed in range(9)]
    counts = {tree: drawn.count(tree) for tree in set(drawn)}
    assert len(counts) == 14
    chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_square < 34.5  # 13 degrees of freedom, 0.1 %


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("name", "left", "right", "sentence"), [("craft", 0.087, 0.382, 0.4525), ("gum_open", 0.058, 0.425, None)]
)
def test_branching_baselines_of_the_treebanks(
    corpora: Path, name: str, left: float, right: float, sentence: float | None
) -> None:
    stripped = (t.without_tags(PUNCTUATION) for t in read_trees(corpora / name / "test.trees"))
    gold = [tree for tree in stripped if tree is not None]
    scores = [
        unlabelled_f1(gold, [make(tree.words) for tree in gold]) for make in (left_branching, right_branching)
    ]
    assert [score.f1 for score in scores] == pytest.approx([left, right], abs=1e-3)
    assert sentence is None or scores[1].sentence_f1 == pytest.approx(sentence, abs=1e-4)
    assert unlabelled_f1(gold, gold).f1 == 1.0


@pytest.mark.corpora
def test_labelled_f1_of_a_treebank_with_itself(corpora: Path) -> None:
    gold = list(read_trees(corpora / "craft" / "test.trees"))
    for options in ({}, {"unaries": False}, {"root": False}, {"ignore_tags": PUNCTUATION}):
        score = labelled_f1(gold, gold, **options)  # type: ignore[arg-type]
        assert score == (1.0, 1.0, 1.0, 1.0, 1.0, 2756)
