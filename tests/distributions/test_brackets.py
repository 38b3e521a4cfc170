"""Trees as strings and as trees of nltk."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

from structlv.distributions import (
    BinaryTree,
    TreePosterior,
    from_brackets,
    from_nltk,
    to_brackets,
    to_nltk,
)

SYMBOLS = ["S", "NP", "VP", "D", "N", "V"]
TEXT = "(S (NP (D the) (N dog)) (VP (V sees) (NP (D a) (N cat))))"
WORDS = ["the", "dog", "sees", "a", "cat"]
ROWS = [
    [0, 4, 0],
    [0, 1, 1],
    [0, 0, 3],
    [1, 1, 4],
    [2, 4, 2],
    [2, 2, 5],
    [3, 4, 1],
    [3, 3, 3],
    [4, 4, 4],
]


class Tree(list):  # type: ignore[type-arg]
    """What nltk.Tree is: a list with a label."""

    def __init__(self, label: str, children: list[Any]) -> None:
        super().__init__(children)
        self._label = label

    def label(self) -> str:
        return self._label


@pytest.fixture
def nltk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for nltk, which need not be installed."""
    module = types.ModuleType("nltk")
    module.Tree = Tree  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nltk", module)
    return module


def test_there_and_back() -> None:
    event, words = from_brackets(TEXT, SYMBOLS)
    assert event.tolist() == ROWS
    assert event.dtype == torch.int64
    assert words == WORDS
    assert to_brackets(event, SYMBOLS, words) == TEXT
    assert to_brackets(event, SYMBOLS).startswith("(S (NP (D 0) (N 1)) (VP (V 2)")


def test_without_symbols() -> None:
    event, _ = from_brackets(TEXT, SYMBOLS)
    text = to_brackets(event, None, WORDS)
    assert text == "((the dog) (sees (a cat)))"
    plain, words = from_brackets(text)
    assert plain.tolist() == [[i, j, 0] for i, j, _ in ROWS]
    assert words == WORDS
    assert from_brackets("(((the) dog) ((sees) (a cat)))")[0].tolist() == plain.tolist()
    assert from_brackets("one")[0].tolist() == [[0, 0, 0]]
    assert to_brackets(torch.tensor([[0, 0, 0]]), None, ["one"]) == "one"


def test_padding_and_nothing() -> None:
    event, _ = from_brackets(TEXT, SYMBOLS)
    padded = torch.cat([event, torch.full((4, 3), -1)])
    assert to_brackets(padded, SYMBOLS, WORDS) == TEXT
    assert to_brackets(torch.full((3, 3), -1), SYMBOLS) == ""
    assert from_brackets("", SYMBOLS)[0].shape == (0, 3)
    assert from_brackets("")[1] == []


def test_treebank_brackets() -> None:
    text = "( (S (NP (D the)\n  (N -LRB-x-RRB-)) (VP (V runs) (NP (D a) (N b)))) )"
    event, words = from_brackets(text, SYMBOLS)
    assert words[1] == "(x)"
    assert event[0].tolist() == [0, 4, 0]
    again = to_brackets(event, SYMBOLS, words)
    assert from_brackets(again, SYMBOLS)[1] == words
    assert "(N -LRB-x-RRB-)" in again


def test_constituents_of_any_number_of_children() -> None:
    text = "(S (NP (N a)) (VP (V b) (NP (N c)) (D d)))"
    event, words = from_brackets(text, SYMBOLS)
    assert event.tolist()[:3] == [[0, 3, 0], [0, 0, 1], [0, 0, 4]]
    assert to_brackets(event, SYMBOLS, words) == text
    assert to_brackets(event, None, words) == "(a (b c d))"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(S (N a) (V b)", "1 are still open"),
        ("(S (N a)))", "close nothing"),
        (")", "close nothing"),
        ("(S (N a b))", "alone in its preterminal, found 'b'"),
        ("(S (N a) b)", "alone in its preterminal, found 'b'"),
        ("(S (N a (V b)))", "alone in its preterminal, found 'V'"),
        ("(S (X a) (N b))", "unknown symbol 'X' at word 0"),
        ("(N a) (N b)", "one tree, found 'N'"),
        ("((N a) (N b))", "one tree, found 'N'"),
        ("(S ())", "unknown symbol ''"),
        ("(S (N))", "hold nothing"),
        ("a", "alone in its preterminal"),
    ],
)
def test_wrong_brackets(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_brackets(text, SYMBOLS)


@pytest.mark.parametrize(
    ("text", "message"), [("(a b", "still open"), ("a b", "one tree"), ("(a ())", "hold no")]
)
def test_wrong_brackets_without_symbols(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_brackets(text)


def test_wrong_events_and_names() -> None:
    event, _ = from_brackets(TEXT, SYMBOLS)
    for row, column, value in ((1, 1, 5), (2, 0, 1), (4, 0, 3), (0, 1, 5)):
        bad = event.clone()
        bad[row, column] = value
        with pytest.raises(ValueError, match="event is not a tree"):
            to_brackets(bad, SYMBOLS)
    with pytest.raises(ValueError, match="ends before word 4"):
        to_brackets(event[:-1], SYMBOLS)
    with pytest.raises(ValueError, match="one tree"):
        to_brackets(event.expand(2, 9, 3), SYMBOLS)
    for words in (["", *WORDS[1:]], ["a b", *WORDS[1:]]):
        with pytest.raises(ValueError, match="empty name, white space"):
            to_brackets(event, SYMBOLS, words)
    with pytest.raises(ValueError, match="occurs twice"):
        from_brackets(TEXT, [*SYMBOLS, "S"])


def test_what_is_read_is_an_event_of_the_distribution() -> None:
    event, _ = from_brackets(TEXT, SYMBOLS)
    d = TreePosterior(torch.zeros(3), torch.zeros(3, 6, 6), torch.zeros(5, 3))
    assert d.log_prob(event).isfinite()
    binary, _ = from_brackets("((a b) c)")
    assert BinaryTree(torch.zeros(3, 3)).log_prob(binary).isfinite()
    for sampled in d.sample((20,)):
        assert torch.equal(from_brackets(to_brackets(sampled, SYMBOLS), SYMBOLS)[0], sampled)
    ragged = torch.nn.utils.rnn.pad_sequence([event, event[6:] - 3], batch_first=True, padding_value=-1)
    assert ragged.shape == (2, 9, 3)


def test_trees_of_nltk(nltk: Any) -> None:
    event, words = from_brackets(TEXT, SYMBOLS)
    tree = to_nltk(event, SYMBOLS, words)
    assert isinstance(tree, Tree)
    assert tree.label() == "S"
    assert tree[1][1][1] == ["cat"]
    again, same = from_nltk(tree, SYMBOLS)
    assert torch.equal(again, event)
    assert same == words
    plain = to_nltk(event)
    assert plain == [["0", "1"], ["2", ["3", "4"]]]
    assert from_nltk(tree)[0].tolist() == from_nltk(plain)[0].tolist() == [[i, j, 0] for i, j, _ in ROWS]
    with pytest.raises(ValueError, match="no tree"):
        to_nltk(torch.full((3, 3), -1))


def test_nltk_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ImportError, match=r"pip install 'structlv\[trees\]'"):
        to_nltk(torch.tensor(ROWS), SYMBOLS)


def test_trees_of_nltk_itself() -> None:
    nltk = pytest.importorskip("nltk")
    tree = nltk.Tree.fromstring(TEXT)
    event, words = from_nltk(tree, SYMBOLS)
    assert event.tolist() == ROWS
    assert to_nltk(event, SYMBOLS, words) == tree


@pytest.mark.parametrize("left", [False, True])
def test_trees_as_deep_as_they_are_long(left: bool, nltk: Any) -> None:
    n = 5000
    if left:
        rows = [[0, n - 1 - i, 0] for i in range(n - 1)] + [[i, i, 3] for i in range(n)]
    else:
        rows = [row for i in range(n - 1) for row in ([i, n - 1, 0], [i, i, 3])] + [[n - 1, n - 1, 3]]
    event = torch.tensor(rows)
    text = to_brackets(event, SYMBOLS)
    assert torch.equal(from_brackets(text, SYMBOLS)[0], event)
    assert torch.equal(from_nltk(to_nltk(event, SYMBOLS), SYMBOLS)[0], event)
    plain = to_brackets(event)
    assert to_brackets(from_brackets(plain)[0]) == plain
