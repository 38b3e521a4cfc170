"""Pictures of trees."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from structlv.data import Tree, parse_tree, read_trees
from structlv.metrics import random_tree, right_branching
from structlv.viz import plot_tree, tree_svg, tree_text
from structlv.viz.layout import GAP, layout, text_width

TREE = parse_tree("(S (NP (DT the) (NN <dog>)) (VP (VBZ barks) (ADVP (RB loudly))) (. .))")
TEXT = """\
S
├─ NP
│  ├─ DT the
│  └─ NN <dog>
├─ VP
│  ├─ VBZ barks
│  └─ ADVP
│     └─ RB loudly
└─ . ."""
NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_text() -> None:
    assert tree_text(TREE) == TEXT
    assert tree_text(Tree(("a",), (0,))) == "a"
    assert tree_text(parse_tree("(A a (B b c))")) == "A\n├─ a\n└─ B\n   ├─ b\n   └─ c"
    lines = tree_text(right_branching(["w"] * 1500)).splitlines()
    assert len(lines) == 2999
    assert sum(line.endswith(" w") for line in lines) == 1500


def test_svg_is_well_formed_and_has_every_label() -> None:
    root = ET.fromstring(tree_svg(TREE)._repr_svg_())
    texts = root.findall(f"{NAMESPACE}text")
    assert [text.text for text in texts] == list(TREE.labels)
    (path,) = root.findall(f"{NAMESPACE}path")
    assert path.attrib["d"].count("M") == len(TREE.labels) - 1
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for text in texts:
        half = text_width(str(text.text)) / 2
        assert left <= float(text.attrib["x"]) - half
        assert float(text.attrib["x"]) + half <= left + width
        assert top <= float(text.attrib["y"]) <= top + height


def test_what_gold_does_not_have_is_red() -> None:
    wrong = parse_tree("(S (NP (DT the) (NN <dog>)) (VP (VP (VBZ barks) (ADVP (RB loudly)))) (. .))")
    reds = [t.text for t in ET.fromstring(tree_svg(wrong, gold=TREE)) if t.attrib.get("fill") == "#c62828"]
    assert reds == ["VP"]
    assert "#c62828" not in tree_svg(TREE, gold=TREE)


@pytest.mark.parametrize("words_in_line", [True, False])
def test_no_two_labels_touch(words_in_line: bool) -> None:
    words = ["a", "considerably-longer-word", "語", "x" * 30, "", "b"] * 8
    trees = [random_tree(words, seed, "A label") for seed in range(5)]
    trees.append(parse_tree("(A-very-wide-label-above-little (B b) (C-wide-too (D d)))"))
    for tree in trees:
        places, width, height = layout(tree, words_in_line=words_in_line)
        halves = [text_width(label) / 2 for label in tree.labels]
        for place, half in zip(places, halves, strict=True):
            assert place.x - half >= -1e-9
            assert place.x + half <= width + 1e-9
            assert 0 < place.y < height
        rows: dict[float, list[tuple[float, float]]] = {}
        for place, half in zip(places, halves, strict=True):
            rows.setdefault(place.y, []).append((place.x - half, place.x + half))
        for row in rows.values():
            assert all(b[0] - a[1] >= GAP - 1e-9 for a, b in pairwise(sorted(row)))
    if words_in_line:
        assert len({p.y for p in places if p.kind == "word"}) == 1


def test_depth_and_length_do_not_matter() -> None:
    deep = parse_tree("(X " * 6000 + "(Y y)" + ")" * 6000)
    assert tree_svg(deep).count("<text") == 6002
    assert tree_svg(right_branching(["word"] * 2000)).count("<text") == 3999
    assert tree_text(parse_tree("(X " * 1500 + "(Y y)" + ")" * 1500)).count("X") == 1500


def test_matplotlib(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    axes = plot_tree(TREE, title="A $title")
    assert [text.get_text() for text in axes.texts] == list(TREE.labels)
    assert axes.get_title() == "A $title"
    axes.figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
    assert plot_tree(TREE, gold=TREE, words_in_line=False, ax=axes) is axes
    assert pyplot.get_fignums() == before
    wide = plot_tree(right_branching(["word"] * 300, "$x_1"), font_size=6).figure
    assert max(wide.get_size_inches()) * wide.dpi <= 30001


@pytest.mark.corpora
def test_trees_of_a_treebank(corpora: Path) -> None:
    for tree in list(read_trees(corpora / "gum_open" / "test.trees"))[:60]:
        assert len(ET.fromstring(tree_svg(tree)).findall(f"{NAMESPACE}text")) == len(tree.labels)
        assert tree_text(tree).count("\n") == sum(n > 0 for n in tree.arity) - 1
