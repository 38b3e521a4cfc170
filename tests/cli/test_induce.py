"""`structlv induce` and `structlv parse`, on toy treebanks."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("pytorch_lightning")

from typer.testing import CliRunner

from structlv.cli.app import app
from structlv.data import parse_tree
from structlv.models import CompoundPCFG, Model, NeuralPCFG

SMALL = ["--nonterminals", "2", "--preterminals", "3", "--dim", "8", "--epochs", "2", "--batch-size", "8"]
NOUNS, VERBS = ("dog", "cat", "bird", "tree"), ("sees", "likes")


def trees() -> list[str]:
    """Sentences such as (S (NP (DT the) (NN dog)) (VP (V sees) (NP (DT a) (NN cat))) (. .))."""
    phrases = [f"(NP (DT {d}) (NN {n}))" for d in ("the", "a") for n in NOUNS]
    pairs = [(phrases[i % 8], VERBS[i % 2], phrases[(3 * i + 1) % 8]) for i in range(60)]
    return [f"(TOP (S {a} (VP (V {v}) {b}) (. .)))" for a, v, b in pairs]


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    path = tmp_path / "toy.trees"
    path.write_text("\n".join(trees()))
    return path


def invoke(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, list(arguments), **options)


def test_induce_trains_reports_and_saves_and_parse_parses(treebank: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("induce", str(treebank), "--out", str(out), *SMALL)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "result.json").read_text())
    assert set(found["f1"]) == {"grammar", "right branching", "left branching", "random"}
    # of the spans that count, gold has NP, VP and NP; the right-branching tree VP, NP and a wrong one
    assert found["f1"]["right branching"]["corpus"] == pytest.approx(2 / 3)
    assert found["perplexity"] > 1
    assert found["settings"]["nonterminals"] == 2
    assert "Unlabelled F1" in result.output
    assert not (out / "last.ckpt").exists()
    assert (out / "tree-0.svg").read_text().startswith("<svg")
    assert isinstance(Model.load(out / "model"), NeuralPCFG)
    text = "The dog sees a bird.\n\nhello\nA cat likes the unicorn\n"
    parsed = invoke("parse", str(out / "model"), "-", input=text)
    assert parsed.exit_code == 0, parsed.output
    lines = parsed.stdout.splitlines()
    assert [line and parse_tree(line).words for line in lines] == [
        ("the", "dog", "sees", "a", "bird"), "", "", ("a", "cat", "likes", "the", "unicorn")
    ]  # fmt: skip
    file = tmp_path / "parsed.txt"
    (tmp_path / "text.txt").write_text(text)
    assert (
        invoke("parse", str(out / "model"), str(tmp_path / "text.txt"), "--output", str(file)).exit_code == 0
    )
    assert file.read_text() == parsed.stdout


def test_plain_text_and_a_held_out_file_with_a_compound_grammar(treebank: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "toy.txt", tmp_path / "out"
    text.write_text("\n".join(" ".join(parse_tree(t).words) for t in trees()))
    arguments = ["--out", str(out), "--model", "compound", "--max-sentences", "20", *SMALL]
    result = invoke("induce", str(text), "--held-out", str(treebank), *arguments)
    assert result.exit_code == 0, result.output
    assert "at most" in result.output
    assert json.loads((out / "result.json").read_text())["f1"]
    assert isinstance(Model.load(out / "model"), CompoundPCFG)
    again = invoke("induce", str(text), "--out", str(out), *SMALL, "--epochs", "1")
    assert again.exit_code == 0, again.output
    assert json.loads((out / "result.json").read_text())["f1"] == {}


def test_an_interrupted_run_goes_on_to_the_same_result(
    treebank: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from structlv.cli import induce

    whole = tmp_path / "whole"
    assert invoke("induce", str(treebank), "--out", str(whole), *SMALL).exit_code == 0

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    cut = tmp_path / "cut"
    report = induce.report
    monkeypatch.setattr(induce, "report", interrupted)
    stopped = invoke("induce", str(treebank), "--out", str(cut), *SMALL)
    assert stopped.exit_code == 130
    assert "goes on from it" in stopped.stderr
    other = invoke("induce", str(treebank), "--out", str(cut), *SMALL, "--seed", "3")
    assert other.exit_code == 1
    assert "other settings" in other.stderr
    monkeypatch.setattr(induce, "report", report)
    result = invoke("induce", str(treebank), "--out", str(cut), *SMALL)
    assert result.exit_code == 0
    assert "Going on from the checkpoint" in result.output
    assert (whole / "result.json").read_text() == (cut / "result.json").read_text()


def test_what_a_user_can_mend_is_one_sentence(treebank: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("hello\nworld\n")
    for arguments, words in (
        (["induce", str(tmp_path / "none.txt")], "No such file"),
        (["induce", str(short)], "no sentence of at least two words"),
        (["induce", str(treebank), "--max-sentences", "5"], "and 0 held out"),
        (["parse", str(tmp_path), str(short)], "no saved model there"),
    ):
        result = invoke(*arguments, *(["--out", str(tmp_path / "x")] if arguments[0] == "induce" else []))
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert words in result.stderr.replace("\n", " ")
