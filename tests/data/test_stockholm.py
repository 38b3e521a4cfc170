"""Alignments in Stockholm format, and the RNA grammar that is estimated from one."""

from __future__ import annotations

from pathlib import Path

import pytest

from structlv.data import base_pairs, read_stockholm, ungapped
from tests.data import rna
from tests.data.oracle import inside

TEXT = """# STOCKHOLM 1.0
#=GF ID   x
#=GS a/1-4 OS something

a/1-4         AC.
b             .CU
#=GR b SS     ...
#=GC SS_cons  <.<

a/1-4         GU
b             GA
#=GC SS_cons  >>
//
# STOCKHOLM 1.0
c A
//
"""


def written(folder: Path, content: str) -> Path:
    path = folder / "x.sto"
    path.write_text(content)
    return path


def test_blocks_are_joined(tmp_path: Path) -> None:
    first, second = read_stockholm(written(tmp_path, TEXT))
    assert first == (("a/1-4", "b"), ("AC.GU", ".CUGA"), {"SS_cons": "<.<>>"})
    assert second == (("c",), ("A",), {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a ACGU\n", "line 1: expected '# STOCKHOLM 1.0'"),
        ("# STOCKHOLM 1.0\na AC GU\n//", "line 2: expected a name and a row"),
        ("# STOCKHOLM 1.0\na AC\nb A\n//", "line 4: the rows of this alignment differ in length"),
        ("# STOCKHOLM 1.0\na AC\n", "line 2: the alignment is not closed"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_stockholm(written(tmp_path, content)))


def test_base_pairs() -> None:
    assert base_pairs("<<.(A)>[_]>a") == [(0, 10), (1, 6), (3, 5), (7, 9)]
    assert ungapped("A-CG.U", [(0, 5), (1, 3), (2, 3)]) == ("ACGU", [(0, 3), (1, 2)])
    for wrong in ("<", ">", "<)", "<<>"):
        with pytest.raises(ValueError, match=r"not closed|closes nothing"):
            base_pairs(wrong)


def test_the_rna_grammar_by_hand() -> None:
    grammar = rna.estimate([rna.Molecule("GAAAAC", [(0, 5)])])
    weights = dict(zip(map(tuple, grammar.index.tolist()), grammar.scores.exp().tolist(), strict=True))
    number = {name: i for i, name in enumerate(grammar.symbols)}
    # one S at the top, then F -> L S over AAAA: L four times as s, S -> LS twice and L twice, counts plus one
    assert weights[number["S"], number["L"], number["S"]] == pytest.approx(3 / 6)
    assert weights[number["F"], number["L"], number["S"]] == pytest.approx(2 / 3)
    assert weights[number["L"], number["A"], -1] == pytest.approx(5 / 7 * 5 / 8)
    assert weights[number["L"], number["G"], number["XC"]] == pytest.approx(2 / 7 * 2 / 17)
    assert weights[number["F"], number["G"], number["XC"]] == pytest.approx(1 / 3 * 2 / 17)
    rows = [[0, 5, number["L"]], [1, 5, number["XC"]], [-1, -1, -1]]
    assert rna.pairs_of(grammar, rows) == {(0, 5)}


@pytest.mark.corpora
def test_transfer_rna(corpora: Path) -> None:
    """Log-likelihood per nucleotide as computed by a recursion written for this grammar alone."""
    train, test = rna.split(rna.molecules(corpora / "rfam_trna" / "RF00005_tRNA.sto"))
    assert (len(train), len(test)) == (772, 194)
    assert sum(len(molecule.pairs) for molecule in test) == 3919
    grammar = rna.estimate(train)
    some = [molecule.sequence for molecule in test[::20]]
    total = sum(inside(grammar, grammar.unary(sequence)) for sequence in some)
    assert total / sum(map(len, some)) == pytest.approx(-1.4376180, abs=1e-6)
