"""The tree type and its scanner, compiled and as plain Python."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest

import structlv.data
from structlv.data import Span, Tree, _brackets, parse_tree, parse_trees, read_trees, write_trees
from structlv.data.treebank import without_functions

TEXT = "(S (NP (DT the) (NN dog)) (VP (VBZ barks)) (. .))"


def plain() -> ModuleType:
    """The scanner's source, loaded past its compiled twin."""
    path = Path(structlv.data.__file__).with_name("_brackets.py")
    spec = importlib.util.spec_from_file_location("plain_brackets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["compiled", "plain"])
def scanner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test that reads brackets runs on both forms of the scanner."""
    if request.param == "plain":
        monkeypatch.setattr("structlv.data.treebank.Scanner", plain().Scanner)
    elif not _brackets.__file__.endswith(".so"):
        pytest.skip("structlv.data._brackets was not compiled")
    return str(request.param)


def deep(depth: int) -> str:
    return "(X " * depth + "(Y y)" + ")" * depth


def test_parts_of_a_tree() -> None:
    tree = parse_tree(TEXT)
    assert tree.label == "S"
    assert tree.words == ("the", "dog", "barks", ".")
    assert tree.tags == ("DT", "NN", "VBZ", ".")
    assert tree.phrases() == [(0, 3, "S"), (0, 1, "NP"), (2, 2, "VP")]
    assert tree.nodes()[:3] == [Span(0, 3, "S"), Span(0, 1, "NP"), Span(0, 0, "DT")]
    assert [str(child) for child in tree.children] == [
        "(NP (DT the) (NN dog))",
        "(VP (VBZ barks))",
        "(. .)",
    ]
    assert tree.sizes() == [11, 5, 2, 1, 2, 1, 3, 2, 1, 2, 1]
    assert tree.depth() == 4
    assert str(tree) == TEXT
    assert tree == parse_tree(TEXT)
    assert hash(tree) == hash(parse_tree(TEXT))
    assert pickle.loads(pickle.dumps(tree)) == copy.deepcopy(tree) == tree


@pytest.mark.parametrize(
    ("labels", "arity"),
    [
        ((), ()),
        (("a",), (1,)),
        (("a", "b"), (0, 0)),
        (("a",), (0, 0)),
        (("a", "b"), (-1, 0)),
        (("a", "b"), (0, 1)),
    ],
)
def test_half_a_tree_is_refused(labels: tuple[str, ...], arity: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one whole tree in pre-order"):
        Tree(labels, arity)


def test_words_are_replaced_and_taken_out() -> None:
    tree = parse_tree(TEXT)
    assert str(tree.with_words(tree.tags)) == "(S (NP (DT DT) (NN NN)) (VP (VBZ VBZ)) (. .))"
    assert str(tree.without_tags({"."})) == "(S (NP (DT the) (NN dog)) (VP (VBZ barks)))"
    assert str(tree.without_tags({"VBZ"})) == "(S (NP (DT the) (NN dog)) (. .))"
    assert tree.without_tags(tree.tags) is None
    with pytest.raises(ValueError, match="expected 4 words, found 1"):
        tree.with_words(["x"])
    with pytest.raises(ValueError, match="'the' has none"):
        _ = parse_tree("(S the (NN dog))").tags


def test_spans_make_the_tree_again() -> None:
    for text in (TEXT, "(A (B (C c)))", "(A a)", "(A a (B b c) d)", "(A (B a b) c)"):
        tree = parse_tree(text)
        assert Tree.from_spans(tree.nodes(), tree.words) == tree


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 1, "A")],
        [(0, 3, "A")],
        [(0, 2, "A"), (1, 2, "B"), (0, 0, "C")],
        [(0, 2, "A"), (0, 1, "B"), (1, 2, "C")],
        [(1, 2, "B"), (0, 2, "A")],
        [(0, 2, "A"), (2, 1, "B")],
        [],
    ],
)
def test_spans_that_are_no_tree(spans: list[tuple[int, int, str]]) -> None:
    with pytest.raises(ValueError, match=r"nested spans in pre-order|one whole tree"):
        Tree.from_spans(spans, ["a", "b", "c"])


def test_deep_trees_need_no_stack(scanner: str) -> None:
    text = deep(5 * sys.getrecursionlimit() + 5000)
    tree = parse_tree(text)
    assert str(tree) == text
    assert tree.depth() > 5000
    assert Tree.from_spans(tree.nodes(), tree.words) == tree
    assert pickle.loads(pickle.dumps(tree)) == tree
    assert tree.without_tags({"Y"}) is None


def test_long_sentences(scanner: str) -> None:
    text = "(S " + " ".join(f"(N w{i})" for i in range(3000)) + ")"
    assert parse_tree(text).words[2999] == "w2999"
    assert str(parse_tree(text)) == text


def test_trees_over_lines_and_lines_of_trees(scanner: str) -> None:
    text = "\n(A\t(B\n b) (C c))\r\n\n(D d) ( (E e) )(F f)\n"
    assert [str(tree) for tree in parse_trees(text)] == ["(A (B b) (C c))", "(D d)", "(E e)", "(F f)"]
    assert parse_trees(" \n") == []


def test_only_ascii_space_separates_words(scanner: str) -> None:
    assert parse_tree("(N a\u00a0b\u2009c)").words == ("a\u00a0b\u2009c",)


def test_the_empty_outer_bracket(scanner: str) -> None:
    assert str(parse_tree("((S (N a)))")) == "(S (N a))"
    assert str(parse_tree("((S (N a)))").children[0]) == "(N a)"
    assert [str(t) for t in parse_trees("( (S (N a)) (S (N b)))", root="TOP")] == [
        "(TOP (S (N a)) (S (N b)))"
    ]
    with pytest.raises(ValueError, match="line 1: the outermost bracket has no label and 2 children"):
        parse_tree("( (S (N a)) (S (N b)))")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(S (N a)\n", "line 1: this tree is still open at the end"),
        ("(A a)\n(S\n (N a)\n", "line 2: this tree is still open at the end"),
        ("(A a)\n(B b))", "line 2: a bracket closes that was never opened"),
        ("(A a)\n\nword", "line 3: the word 'word' stands outside of any tree"),
        ("(A (B))", "line 1: the node 'B' has no children"),
        ("(A ())", "line 1: the node '' has no children"),
        ("(A\n((B b)))", "line 2: a node inside the tree has no label"),
    ],
)
def test_errors_name_the_line(text: str, message: str, scanner: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parse_trees(text)
    path = tmp_path / "x.trees"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_trees(path))
    assert str(path) in str(caught.value)


def test_one_tree_means_one() -> None:
    with pytest.raises(ValueError, match="expected one tree, found 2"):
        parse_tree("(A a) (B b)")


def test_reading_streams(tmp_path: Path) -> None:
    path = tmp_path / "x.trees"
    path.write_text("(A a)\n(B b)\n)\n")
    trees = read_trees(path)
    assert str(next(trees)) == "(A a)"
    assert str(next(trees)) == "(B b)"
    with pytest.raises(ValueError, match="line 3"):
        next(trees)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(read_trees(tmp_path / "nothing"))
    path = tmp_path / "x.trees"
    path.write_bytes(b"(A caf\xe9)")
    with pytest.raises(ValueError, match="not UTF-8"):
        next(read_trees(path))


def test_traces_and_function_tags(tmp_path: Path) -> None:
    text = "( (S (NP-SBJ-1 (PRP$ my) (NN-X dog)) (VP (VBZ is) (NP=2 (-NONE- *T*-1)))"
    text += " (-LRB- -LRB-) (ADVP|PRT (RB up))))"
    path = tmp_path / "x.trees"
    path.write_text(text + "\n((S (NP (-NONE- *))))\n")
    assert len(list(read_trees(path))) == 2
    (tree,) = read_trees(path, traces=False, functions=False)
    expected = "(S (NP (PRP$ my) (NN-X dog)) (VP (VBZ is)) (-LRB- -LRB-) (ADVP|PRT (RB up)))"
    assert str(tree) == expected
    assert without_functions(parse_tree("(-X- (A-B (C-D d) (E e)))")).labels[:3] == ("-X-", "A", "C-D")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.trees"
    trees = parse_trees(TEXT + "(A (B (C ü)))")
    write_trees(path, trees)
    assert list(read_trees(path)) == trees
    write_trees(path, [Tree(("N", "(x"), (1, 0))])
    assert path.read_text() == "(N -LRB-x)\n"
    for bad in (Tree(("N", "a b"), (1, 0)), Tree(("", "a"), (1, 0)), Tree(("a",), (0,))):
        with pytest.raises(ValueError, match="cannot be written in brackets"):
            write_trees(path, [bad])


@pytest.mark.corpora
def test_the_scanner_gives_the_same_compiled_and_plain(corpora: Path) -> None:
    if not _brackets.__file__.endswith(".so"):
        pytest.skip("structlv.data._brackets was not compiled")
    compiled, source = _brackets.Scanner(), plain().Scanner()
    for path in sorted(corpora.glob("*/*.trees")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [compiled.feed(line) for line in lines] == [source.feed(line) for line in lines]


@pytest.mark.corpora
@pytest.mark.parametrize(("name", "trees"), [("craft", 11087), ("gum_open", 5785)])
def test_treebanks_are_read_and_written(corpora: Path, name: str, trees: int) -> None:
    total = 0
    for path in sorted((corpora / name).glob("*.trees")):
        found = list(read_trees(path))
        assert "".join(f"{tree}\n" for tree in found) == path.read_text(encoding="utf-8")
        assert all(Tree.from_spans(tree.nodes(), tree.words) == tree for tree in found[:300])
        total += len(found)
    assert total == trees
