"""Readers of melodies and chorales: shipped tunes, tune files, the UCI collection, music21 and a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from structlv._extras import MissingExtra
from structlv.data import (
    Chorale,
    bach_chorales,
    pitch_name,
    pitch_number,
    read_melodies,
    shipped_tunes,
)
from structlv.models import AdditiveBigram


@pytest.mark.parametrize(("name", "number"), [("C4", 60), ("F#4", 66), ("Bb3", 58), ("B3", 59), ("C-1", 0)])
def test_notes_are_midi_numbers(name: str, number: int) -> None:
    assert pitch_number(name) == number
    assert pitch_name(number) == name


@pytest.mark.parametrize("name", ["H4", "c4", "C", "C##4", "4", ""])
def test_what_is_no_note(name: str) -> None:
    with pytest.raises(ValueError, match="expected a note such as C4"):
        pitch_number(name)


def test_the_shipped_tunes() -> None:
    tunes = shipped_tunes()
    assert len(tunes) == len({tune.title for tune in tunes}) == 24
    assert sum(len(tune.pitches) for tune in tunes) == 1152
    for tune in tunes:
        assert any(char.isdigit() for char in tune.source), f"{tune.title}: when is it from?"
        assert int(tune.pitches.min()) >= 55
        assert int(tune.pitches.max()) <= 79
        assert int(tune.pitches.diff().abs().max()) <= 15, (
            tune.title
        )  # the chorus of Greensleeves; else an octave
    ode = next(tune for tune in tunes if tune.title == "Ode to Joy")
    assert ode.pitches[:8].tolist() == [66, 66, 67, 69, 69, 67, 66, 64]


def test_tune_files(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("# comment\nFirst | here, 1900\nC4 62\n\n\nSecond\n# inside\nE4\nF4 G4")
    first, second = read_melodies(path)
    assert (first.title, first.source, first.pitches.tolist()) == ("First", "here, 1900", [60, 62])
    assert (second.title, second.source, second.pitches.tolist()) == ("Second", "", [64, 65, 67])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no melody in it"),
        (b"# only a comment\n", "no melody in it"),
        (b"Title\n\nC4\n", "line 2: no notes follow the title 'Title'"),
        (b"Title\nC4 D4\nX9\n", "line 3: expected a note such as C4"),
        (b"caf\xe9\nC4\n", "not UTF-8"),
        (b"(1 ((st 8) (pitch 67)))\n(2 ((st 8))\n", "line 2: expected"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_melodies(path)


@pytest.mark.corpora
def test_the_uci_collection_has_the_published_size_and_bigram(corpora: Path) -> None:
    melodies = read_melodies(corpora / "uci_chorales" / "chorales.lisp")
    train, test = ([m.pitches.tolist() for m in part] for part in (melodies[:66], melodies[66:]))
    assert (len(train), len(test), sum(map(len, test))) == (66, 34, 1470)
    vocabulary = sorted({p for melody in train for p in melody})
    assert vocabulary == list(range(60, 80))
    bigram = AdditiveBigram(len(vocabulary), 0.5).fit(train)
    assert sum(map(bigram.log_prob, test)) / 1470 == pytest.approx(-1.9280, abs=5e-5)


def test_a_bigram_is_a_distribution_and_refuses_nonsense() -> None:
    bigram = AdditiveBigram(3, 0.5).fit([[0, 1, 1], [2]])
    every = [bigram.log_prob([a, b]) for a in range(3) for b in range(3)]
    assert float(torch.tensor(every).exp().sum()) == pytest.approx(1)
    assert bigram.log_prob([2]) == pytest.approx(torch.tensor(1.5 / 3.5).log().item())
    with pytest.raises(ValueError, match="constant > 0"):
        AdditiveBigram(3, 0.0)


# ---- music21 -------------------------------------------------------------------------------------------


def note(offset: float, length: float, *pitches: int, tie: str | None = None) -> Any:
    return SimpleNamespace(
        offset=offset,
        quarterLength=length,
        pitches=[SimpleNamespace(midi=p) for p in pitches],
        tie=None if tie is None else SimpleNamespace(type=tie),
    )


def part(*notes: Any) -> Any:
    return SimpleNamespace(flatten=lambda: SimpleNamespace(notes=notes))


HELD = part(note(0, 2, 48))
SCORES = {
    "bach/bwv1": [
        part(note(0, 1, 60, tie="start"), note(1, 0.5, 60, tie="stop"), note(1.5, 0.5, 62)),
        part(note(0, 0.0, 50), note(0, 0.25, 55), note(0.25, 0.25, 57), note(1, 1, 55, 59)),
        HELD,
        HELD,
    ],
    "bach/bwv2": [HELD, HELD, HELD],
}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A music21 of two scores, one with three parts only; the list tells what was parsed."""
    parsed: list[str] = []

    def parse(name: str) -> Any:
        parsed.append(name)
        return SimpleNamespace(parts=SCORES[name])

    music21, corpus = ModuleType("music21"), ModuleType("music21.corpus")
    music21.__version__ = "0"  # type: ignore[attr-defined]
    corpus.parse = parse  # type: ignore[attr-defined]
    corpus.chorales = SimpleNamespace(Iterator=lambda returnType: list(SCORES))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "music21", music21)
    monkeypatch.setitem(sys.modules, "music21.corpus", corpus)
    return parsed


def test_chorales_on_a_grid_of_eighths(stand_in: list[str], tmp_path: Path) -> None:
    (chorale,) = bach_chorales(cache=tmp_path / "x.json")
    assert chorale.title == "bwv1"
    assert chorale.pitches.T.tolist() == [
        [60, 60, 60, 62],  # the tie is one note
        [55, -1, 59, 59],  # the second sixteenth falls between steps, of the chord the highest stays
        [48] * 4,
        [48] * 4,
    ]
    assert chorale.attacks.T[:2].tolist() == [[True, False, False, True], [True, False, True, False]]
    assert chorale.melody().pitches.tolist() == [60, 62]
    assert chorale.melody(1).pitches.tolist() == [55, 59]
    (finer,) = bach_chorales(steps_per_quarter=4, cache=tmp_path / "x.json")
    assert finer.pitches[:3, 1].tolist() == [55, 57, -1]


def test_the_corpus_is_parsed_once(
    stand_in: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = bach_chorales(), bach_chorales()
    assert stand_in == list(SCORES)
    assert torch.equal(first[0].pitches, second[0].pitches)
    (path,) = (tmp_path / "structlv").iterdir()
    path.write_text(path.read_text()[:-9])  # damaged: parsed again, and mended
    assert len(bach_chorales()) == 1
    assert len(stand_in) == 2 * len(SCORES)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "music21": "another"}))
    assert len(bach_chorales()) == 1
    assert len(stand_in) == 3 * len(SCORES)


def test_a_cache_that_cannot_be_written_is_no_error(stand_in: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(bach_chorales(cache=tmp_path / "file" / "x.json")) == 1


def test_without_music21_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(MissingExtra, match=r"structlv\[music\]"):
        bach_chorales()
    with pytest.raises(ValueError, match="at least 1"):
        bach_chorales(steps_per_quarter=0)


def test_the_real_corpus(tmp_path: Path) -> None:
    pytest.importorskip("music21", reason="the extra `music` is not installed")
    chorales = {chorale.title: chorale for chorale in bach_chorales(cache=tmp_path / "x.json")}
    assert len(chorales) > 300
    first = chorales["bwv269"]
    assert isinstance(first, Chorale)
    assert first.melody().pitches[:8].tolist() == [67, 67, 74, 71, 69, 67, 67, 69]
    assert first.pitches.shape[1] == 4
