"""`structlv demo factorial`, on the shipped tunes and on files, with and without a music21."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("matplotlib")

from rich.console import Console
from typer.testing import CliRunner

from structlv._extras import MissingExtra
from structlv.cli import factorial, show_factorial
from structlv.cli.app import app
from structlv.data import Chorale, Melody

SHORT = ["--iterations", "4", "--starts", "1", "--states", "2,3"]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["demo", "factorial", *arguments])


@pytest.fixture(autouse=True)
def without_music21(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed, whatever there is."""
    require = factorial.require

    def pretend(module: str, extra: str) -> Any:
        if module.startswith("music21"):
            raise MissingExtra("hidden")
        return require(module, extra)

    monkeypatch.setattr(factorial, "require", pretend)


def test_it_learns_the_shipped_tunes_and_reports(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("--out", str(out), "--quick", "--states", "4,4", "--iterations", "40")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for words in (
        "public-domain tunes",
        "20 melodies",
        "bigram, add 1/2",
        "factorial HMM: 4 × 4 states",
        "HMM, as many joint states: 16 states",
        "notes per state",
    ):
        assert words in text
    assert sorted(p.name for p in out.iterdir()) == ["piano-roll.png", "result.json"]
    assert (out / "piano-roll.png").read_bytes().startswith(b"\x89PNG")
    found = {
        score["name"].split(":")[0]: score
        for score in json.loads((out / "result.json").read_text())["scores"]
    }
    uniform = torch.tensor(20.0).log2().item()
    assert all(0 < score["bits"] < uniform for score in found.values())
    assert found["factorial HMM"]["bits"] < found["bigram, add 1/2"]["bits"]
    assert found["factorial HMM"]["nats"] == pytest.approx(found["factorial HMM"]["bits"] * 0.6931472)
    parameters = {name: score["parameters"] for name, score in found.items()}
    assert abs(parameters["HMM, as many parameters"] - parameters["factorial HMM"]) < 20


def test_it_reads_a_file_and_the_seed_decides(tmp_path: Path) -> None:
    tunes = tmp_path / "tunes.txt"
    tunes.write_text("".join(f"Tune {i}\n" + "C4 D4 E4 F4 E4 D4 " * (i % 3 + 1) + "\n\n" for i in range(10)))
    bits = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        out = tmp_path / name
        result = invoke("--data", str(tunes), "--out", str(out), "--seed", seed, *SHORT)
        assert result.exit_code == 0, result.output
        bits.append(json.loads((out / "result.json").read_text())["scores"])
    assert bits[0] == bits[1] != bits[2]


def test_interrupted_it_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from structlv.learning.em import factorial as em

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert invoke("--out", str(whole), *SHORT).exit_code == 0
    step, calls = em.m_step, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the second of the three models
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(em, "m_step", interrupted)
    first = invoke("--out", str(cut), *SHORT)
    assert first.exit_code == 130
    assert "goes on from it" in " ".join(first.stderr.split())
    changed = invoke("--out", str(cut), *SHORT, "--iterations", "5")
    assert changed.exit_code == 1
    assert "iterations 4 -> 5" in " ".join(changed.stderr.split())
    assert invoke("--out", str(cut), *SHORT).exit_code == 0
    assert calls < 6 + 3 * 4  # the first model was not learned again
    scores = [json.loads((out / "result.json").read_text())["scores"] for out in (whole, cut)]
    assert scores[0] == scores[1]
    assert not list(cut.glob("*.ckpt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A\nC4\n", "1 melodies, expected at least 5"),
        ("A\nX\n", "line 2: expected a note"),
        ("", "no melody"),
    ],
)
def test_bad_files_are_one_sentence_and_status_1(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(content)
    result = invoke("--data", str(path), "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_options(tmp_path: Path) -> None:
    assert invoke("--states", "4,x").exit_code == 1
    assert "numbers such as 4,4,4" in invoke("--states", "0").stderr
    assert invoke("--iterations", "0").exit_code == 2
    before = CliRunner().invoke(app, ["demo", "--seed", "3", "factorial"])
    assert before.exit_code == 2
    assert "--seed must follow" in " ".join(before.stderr.replace("│", " ").split())
    assert "factorial" in CliRunner().invoke(app, ["demo", "--help"]).output


def test_with_music21_the_highest_voice_is_learned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notes = torch.tensor([[60, 48], [60, 48], [62, -1], [64, 50]])
    attacks = torch.tensor([[True, True], [False, False], [True, False], [True, True]])
    monkeypatch.setattr(factorial, "require", lambda module, extra: None)
    monkeypatch.setattr(
        factorial, "bach_chorales", lambda: [Chorale(f"bwv{i}", notes, attacks) for i in range(5)]
    )
    source, pieces = factorial.load(None, Console(quiet=True))
    assert "music21" in source
    music = factorial.prepare(source, pieces, factorial.Settings())
    assert music.pitches == (60, 62, 64)
    assert [x.tolist() for x in music.held_out] == [[0, 1, 2]]
    show_factorial.picture(pieces[0], torch.tensor([[0, 1, 1], [1, 0, 1]]), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_readable_piece_is_drawn() -> None:
    from structlv.learning import random_categorical

    pieces = [Melody(str(n), "", torch.zeros(n, dtype=torch.long)) for n in (5, 30, 200)]
    music = factorial.Music("", (60,), [], [p.pitches for p in pieces], list(pieces))
    piece, states = factorial.decode(random_categorical((2, 2), torch.ones(1), 0), music)
    assert piece.title == "30"
    assert states.shape == (2, 30)
