"""Listed rules on real grammars: published counts of trees, a treebank's grammar, a grammar of RNA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from structlv.data import (
    Grammar,
    Tree,
    binarise,
    collapse_unary,
    estimate_grammar,
    expand_unary,
    read_cfg,
    read_trees,
    unbinarise,
)
from structlv.distributions import SparseRules, TreePosterior
from structlv.metrics import labelled_f1
from tests.data import rna
from tests.tolerance import assert_nats

pytestmark = pytest.mark.corpora


def posterior(grammar: Grammar, sentences: list[list[str]]) -> TreePosterior:
    unary, lengths = grammar.batch(sentences)
    rules = SparseRules(grammar.index, grammar.scores)
    return TreePosterior(grammar.root, rules, unary, lengths=lengths)


def test_counts_of_commandtalk(corpora: Path) -> None:
    """Every sentence has as many trees as was published with it, 868 in all; each is found and is another."""
    grammar = Grammar.from_rules(*read_cfg(corpora / "grammars" / "commandtalk.cfg"))
    lines = (corpora / "grammars" / "commandtalk_sentences.txt").read_text("latin-1").splitlines()
    pairs = [line.split(":") for line in lines if ":" in line and not line.startswith("#")]
    counts = [int(count) for count, _ in pairs]
    d = posterior(grammar, [text.split() for _, text in pairs])
    assert (len(counts), sum(counts)) == (162, 868)
    assert d.log_count().exp().round().long().tolist() == counts
    scores, events = d.topk(max(counts) + 1)
    assert (scores > -torch.inf).sum(0).tolist() == counts
    for b, count in enumerate(counts):
        found = events[:count, b]
        assert len(found.unique(dim=0)) == count
    assert_nats(d.max(), torch.where(torch.tensor(counts) > 0, 0.0, -torch.inf).double())


def phrases(trees: TreePosterior, grammar: Grammar, gold: list[Tree]) -> list[Tree | None]:
    found = [grammar.tree(event, tree.words) for event, tree in zip(trees.argmax(), gold, strict=True)]
    return [None if tree is None else expand_unary(unbinarise(tree)) for tree in found]


@pytest.mark.parametrize(
    ("name", "horizontal", "failures", "per_tag", "f1"),
    [
        ("craft", 1, 0, -2.1335, 0.7911),
        ("craft", 2, 1, -2.1218, 0.7813),
        ("gum_open", 1, 1, -2.5634, 0.7976),
        ("gum_open", 2, 1, -2.5623, 0.7849),
    ],
)
def test_a_delexicalised_treebank_grammar(
    corpora: Path, name: str, horizontal: int, failures: int, per_tag: float, f1: float
) -> None:
    """Numbers of an independent implementation. One sentence in six has several best trees, by which F1 can
    move by two points: theirs and ours are different ones.
    """
    train = [tree.children[0] for tree in read_trees(corpora / name / "train.trees")]
    trees = [binarise(collapse_unary(tree), horizontal=horizontal) for tree in train]
    grammar = estimate_grammar(trees, words=False)
    gold = list(read_trees(corpora / name / "test.trees"))[:600]
    gold = [tree for tree in gold if 2 <= len(tree.tags) <= 20]
    d = posterior(grammar, [tree.tags for tree in gold])
    log_z, possible = d.log_partition(), d.log_partition() > -torch.inf
    assert int((~possible).sum()) == failures
    assert d.lengths is not None
    assert round(float(log_z[possible].sum() / d.lengths[possible].sum()), 4) == per_tag
    found = labelled_f1(gold, phrases(d, grammar, gold)).f1
    assert found == pytest.approx(f1, abs=0.006)


def test_structures_of_transfer_rna(corpora: Path) -> None:
    """Knudsen and Hein's grammar: F1 of base pairs. One molecule in six has several best trees."""
    train, test = rna.split(rna.molecules(corpora / "rfam_trna" / "RF00005_tRNA.sto"))
    grammar = rna.estimate(train)
    d = posterior(grammar, [list(molecule.sequence) for molecule in test])
    assert len(test) == 194
    length = sum(len(molecule.sequence) for molecule in test)
    assert float(d.log_partition().sum()) / length == pytest.approx(-1.43464, abs=1e-5)
    best: Tensor = d.argmax()
    found = [rna.pairs_of(grammar, event) for event in best.tolist()]
    known = [set(molecule.pairs) for molecule in test]
    common = sum(len(a & b) for a, b in zip(found, known, strict=True))
    sensitivity, precision = common / sum(map(len, known)), common / sum(map(len, found))
    assert 2 * sensitivity * precision / (sensitivity + precision) == pytest.approx(0.8067, abs=0.006)
