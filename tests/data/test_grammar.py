"""Grammars from rules, from NLTK's files and from treebanks."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch

from structlv.data import (
    Grammar,
    Rule,
    Terminal,
    Tree,
    binarise,
    collapse_unary,
    estimate_grammar,
    parse_tree,
    read_cfg,
    read_trees,
    unbinarise,
)
from tests.data.oracle import inside

CFG = """# a comment, its bytes whatever they are: caf\xe9
%start S

S -> NP VP [0.75] | S "and" S [0.25]
NP -> 'NP' | "dogs"   'and' "cats" \\
    | NP
VP->'run'
VP -> "don't" VP-x/y
"""
TREES = [parse_tree(t) for t in ("(S (NP (N a)) (V b))", "(S (NP (N a) (N c)) (V d))", "(S (V b) (V b))")]


def rows(grammar: Grammar) -> dict[tuple[str, ...], float]:
    """The rules by names, with their weights as probabilities."""
    symbols = grammar.symbols
    pairs = zip(grammar.index.tolist(), grammar.scores.exp().tolist(), strict=True)
    return {tuple(symbols[s] for s in rule if s >= 0): round(weight, 6) for rule, weight in pairs}


def written(folder: Path, content: str, encoding: str = "latin-1") -> Path:
    path = folder / "x.cfg"
    path.write_bytes(content.encode(encoding))
    return path


def test_nltk_notation(tmp_path: Path) -> None:
    rules, start = read_cfg(written(tmp_path, CFG))
    assert start == "S"
    assert rules == [
        Rule("S", ("NP", "VP"), math.log(0.75)),
        Rule("S", ("S", Terminal("and"), "S"), math.log(0.25)),
        Rule("NP", (Terminal("NP"),)),
        Rule("NP", (Terminal("dogs"), Terminal("and"), Terminal("cats"))),
        Rule("NP", ("NP",)),
        Rule("VP", (Terminal("run"),)),
        Rule("VP", (Terminal("don't"), "VP-x/y")),
    ]


def test_the_first_parent_is_the_start(tmp_path: Path) -> None:
    assert read_cfg(written(tmp_path, "A → B\nB -> 'ü'", "utf-8"))[1] == "A"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rule in it"),
        ("\n%start\nA -> B", "line 2: expected '%start NONTERMINAL'"),
        ("%weight A\n", "line 1: expected '%start NONTERMINAL'"),
        ("A -> B\nA B", "line 2: expected 'NONTERMINAL -> ...'"),
        ("'a' -> B", "line 1: expected 'NONTERMINAL -> ...'"),
        ("A ->", "line 1: a rule without children"),
        ("A -> B |", "line 1: a rule without children"),
        ("A -> B -> C", "line 1: a second arrow"),
        ("# x\n\nA -> 'b", 'line 3: cannot be read: "\'b"'),
        ("A -> B [x]", r"line 1: cannot be read: '\[x\]'"),
        ("A -> '\xe9'", "line 1: not UTF-8"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_cfg(path)
    assert str(path) in str(caught.value)


def test_arrays_of_rules() -> None:
    rules = [
        Rule("S", ("A", "B"), -1.0),
        Rule("S", ("A", "B", Terminal("x")), -2.0),
        Rule("B", ("A", "B", Terminal("x")), -3.0),
        Rule("B", ("A", "B", Terminal("x"), "A"), -4.0),
        Rule("A", (Terminal("A"),)),
        Rule("B", (Terminal("x"),), math.log(0.25)),
        Rule("B", (Terminal("x"),), math.log(0.5)),
    ]
    grammar = Grammar.from_rules(rules, "S")
    assert grammar.nonterminals == ("A", "B", "S", "|<A B 'x'>", "|<A B>")
    assert grammar.preterminals == ("A", "x")
    assert grammar.index.dtype == torch.int64
    assert grammar.index.tolist() == sorted(grammar.index.tolist())
    assert rows(grammar) == {
        ("A", "A"): 1.0,
        ("B", "x"): 0.75,
        ("B", "|<A B>", "x"): round(math.exp(-3), 6),
        ("B", "|<A B 'x'>", "A"): round(math.exp(-4), 6),
        ("S", "A", "B"): round(math.exp(-1), 6),
        ("S", "|<A B>", "x"): round(math.exp(-2), 6),
        ("|<A B 'x'>", "|<A B>", "x"): 1.0,
        ("|<A B>", "A", "B"): 1.0,
    }
    assert grammar.root.tolist() == [-math.inf, -math.inf, 0.0, -math.inf, -math.inf]
    assert grammar.unary(["x", "unheard"]).tolist() == [[-math.inf, 0.0], [-math.inf, -math.inf]]
    assert inside(grammar, grammar.unary(["A", "x"])) == pytest.approx(-1 + math.log(0.75))
    assert inside(grammar, grammar.unary(["A", "x", "x"])) == pytest.approx(-2 + math.log(0.75))


def test_events_become_trees() -> None:
    grammar = Grammar.from_rules([Rule("S", ("A", "A", Terminal("x"))), Rule("A", (Terminal("A"),))], "S")
    number = {name: i for i, name in enumerate(grammar.nonterminals)}
    nt = len(grammar.nonterminals)
    event = torch.tensor(
        [
            (0, 2, number["S"]),
            (0, 1, number["|<A A>"]),
            (0, 0, number["A"]),
            (0, 0, nt),
            (1, 1, number["A"]),
            (1, 1, nt),
            (2, 2, nt + 1),
            (-1, -1, -1),
        ]
    )
    tree = grammar.tree(event)
    assert tree is not None
    assert str(unbinarise(tree)) == "(S (A A) (A A) x)"
    assert str(grammar.tree(event, ["a", "b", "c"])) == "(S (|<A A> (A (A a)) (A (A b))) (x c))"
    assert grammar.tree(torch.full((3, 3), -1)) is None


def test_relative_frequencies() -> None:
    grammar = estimate_grammar(TREES)
    assert grammar.nonterminals == ("NP", "S")
    assert grammar.preterminals == ("N", "V")
    third = round(1 / 3, 6)
    assert rows(grammar) == {
        ("NP", "N"): 0.5,
        ("NP", "N", "N"): 0.5,
        ("S", "NP", "V"): round(2 / 3, 6),
        ("S", "V", "V"): third,
    }
    assert grammar.root.exp().tolist() == [0.0, 1.0]
    assert grammar.vocabulary is not None
    assert grammar.vocabulary.words == ("<unk>", "b", "a", "c", "d")
    unary = grammar.unary(["a", "b", "never"]).exp()
    torch.testing.assert_close(unary, torch.tensor([[2 / 3, 0], [0, 3 / 4], [0, 0]], dtype=torch.float64))
    expected = 2 / 3 * 1 / 2 * 2 / 3 * 3 / 4
    assert inside(grammar, grammar.unary(["a", "b"])) == pytest.approx(math.log(expected))


def test_rare_words_and_smoothing() -> None:
    grammar = estimate_grammar(TREES, min_count=2, add=0.5)
    assert grammar.vocabulary is not None
    assert grammar.vocabulary.words == ("<unk>", "b", "a")
    expected = torch.tensor([[1.5, 1.5], [0.5, 3.5], [2.5, 0.5]], dtype=torch.float64)
    assert grammar.emission is not None
    torch.testing.assert_close(grammar.emission.exp(), expected / expected.sum(0))
    unary, lengths = grammar.to(torch.float32).batch([["a", "new", "b"], ["b"]])
    assert unary.shape == (2, 3, 2)
    assert unary.dtype == torch.float32
    assert lengths.tolist() == [3, 1]
    torch.testing.assert_close(unary[0, 1].double(), grammar.emission[0], atol=1e-6, rtol=1e-6)


def test_tags_as_words() -> None:
    grammar = estimate_grammar(TREES, words=False)
    assert grammar.emission is None
    assert grammar.unary(["V", "N"]).tolist() == [[-math.inf, 0.0], [0.0, -math.inf]]


def test_trees_that_do_not_fit() -> None:
    for text, message in (
        ("(S (A a) (B b) (C c))", "'S' has 3 children, 2 at most fit"),
        ("(N a)", r"must have a phrase above its words, found \(N a\)"),
        ("(S a (B b))", "'a' has none"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate_grammar([parse_tree(text)])
    with pytest.raises(ValueError, match="at least one tree"):
        estimate_grammar([])
    with pytest.raises(ValueError, match="the rule of 'S' has no children"):
        Grammar.from_rules([Rule("S", ())], "S")
    with pytest.raises(ValueError, match="the start symbol 'T' has no rule"):
        Grammar.from_rules([Rule("S", ("S",))], "T")


@pytest.mark.corpora
def test_the_commandtalk_grammar(corpora: Path) -> None:
    """28,851 rules: read in time, and sentences have as many trees as was published with them."""
    folder = corpora / "grammars"
    begin = time.process_time()
    rules, start = read_cfg(folder / "commandtalk.cfg")
    grammar = Grammar.from_rules(rules, start)
    assert time.process_time() - begin < 2.0
    assert len(rules) == 28851
    lengths = [len(children) for _, children, _ in rules]
    assert [lengths.count(1), sum(n > 2 for n in lengths)] == [13223, 6769]
    assert sum(len(c) == 1 and isinstance(c[0], str) for _, c, _ in rules) == 5003
    assert len(grammar.nonterminals) == 7644
    lines = (folder / "commandtalk_sentences.txt").read_text(encoding="latin-1").splitlines()
    pairs = [line.split(" : ") for line in lines if " : " in line and not line.startswith("#")]
    assert len(pairs) == 162
    assert sum(int(count) for count, _ in pairs) == 868
    for count, sentence in [pair for pair in pairs if len(pair[1].split()) < 9][::3]:
        total = math.exp(inside(grammar, grammar.unary(sentence.split())))
        assert total == pytest.approx(int(count)), sentence


def treebank(path: Path, horizontal: int) -> list[Tree]:
    """Trees without TOP, chains collapsed, binarised to the right with `horizontal` siblings generated."""
    trees = (tree.children[0] for tree in read_trees(path))
    return [binarise(collapse_unary(tree), horizontal=horizontal) for tree in trees]


@pytest.mark.corpora
def test_a_delexicalised_treebank_grammar(corpora: Path) -> None:
    """Log-likelihood per tag of an independent implementation."""
    grammar = estimate_grammar(treebank(corpora / "craft" / "train.trees", 1), words=False)
    gold = [tree.tags for tree in list(read_trees(corpora / "craft" / "test.trees"))[:600]]
    test = [tags for tags in gold if 2 <= len(tags) <= 20]
    total = sum(inside(grammar, grammar.unary(tags)) for tags in test)
    assert len(test) == 451
    assert round(total / sum(map(len, test)), 4) == -2.1335
