"""`structlv train`, `tag`, `evaluate`, `sample` and `bench`, on toy texts."""

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("pytorch_lightning")

import torch
from typer.testing import CliRunner

from structlv.cli import bench, sample
from structlv.cli.app import app
from structlv.models import Model, NeuralHMM
from tests.cli.interrupting import interrupted

ROOT = Path(__file__).resolve().parents[2]
NOUNS, VERBS = ("dog", "cat", "bird", "tree"), ("sees", "likes", "hears")
SMALL = ["--states", "4", "--epochs", "2", "--batch-size", "32"]


def sentences(count: int = 200) -> list[list[str]]:
    return [["the", NOUNS[i % 4], VERBS[i % 3], "a", NOUNS[i * i % 4]][: 3 + i % 3] for i in range(count)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "toy.txt"
    path.write_text("\n".join(" ".join(words) for words in sentences()))
    return path


def invoke(*arguments: object, **options: Any) -> Any:
    return CliRunner().invoke(app, [str(x) for x in arguments], **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "toy.txt").write_text("\n".join(" ".join(words) for words in sentences()))
    result = invoke("train", "hmm", "--data", folder / "toy.txt", "--out", folder / "run", *SMALL)
    assert result.exit_code == 0, result.output
    assert "Held-out perplexity" in result.output
    return folder / "run"


def test_a_run_leaves_the_model_and_the_numbers(run: Path) -> None:
    names = ["log.csv", "model", "result.json", "run.json", "states.tsv"]
    assert sorted(p.name for p in run.iterdir()) == names
    assert isinstance(Model.load(run / "model"), NeuralHMM)
    result = json.loads((run / "result.json").read_text())
    assert result["settings"]["states"] == 4
    assert 1 < result["perplexity"] < 10


@pytest.mark.parametrize("method", ["viterbi", "posterior"])
def test_tags_are_those_of_the_model(run: Path, tmp_path: Path, method: str) -> None:
    given = "The dog sees a cat\n\nA unicorn\n"
    result = invoke("tag", run, "-", "--method", method, input=given)
    assert result.exit_code == 0, result.output
    blocks = [[line.split("\t") for line in b.splitlines()] for b in result.stdout.split("\n\n") if b]
    assert [[word for word, _ in b] for b in blocks] == [["the", "dog", "sees", "a", "cat"], ["a", "unicorn"]]
    model = NeuralHMM.load(run / "model")
    assert model.vocabulary is not None
    for block in blocks:
        x = model.vocabulary.encode([word for word, _ in block])
        assert [int(state) for _, state in block] == model.tag(x[None], method=method)[0].tolist()
    (tmp_path / "x.txt").write_text(given)
    assert invoke("tag", run / "model", tmp_path / "x.txt", "--output", tmp_path / "y", "--method", method)
    assert (tmp_path / "y").read_text() == result.stdout


def test_evaluation_is_the_mean_log_probability_and_compares_tags(run: Path, tmp_path: Path) -> None:
    kinds = dict.fromkeys(NOUNS, "NOUN") | dict.fromkeys(VERBS, "VERB")
    rows = [
        "".join(f"{i}\t{w}\t_\t{kinds.get(w, 'DET')}" + "\t_" * 6 + "\n" for i, w in enumerate(words, 1))
        for words in sentences(20)
    ]
    path = tmp_path / "toy.conllu"
    path.write_text("\n".join(rows))
    found = json.loads(invoke("evaluate", run, path, "--json").stdout)
    model = NeuralHMM.load(run / "model")
    assert model.vocabulary is not None
    encoded = [model.vocabulary.encode(words) for words in sentences(20)]
    with torch.no_grad():
        nats = sum(float(model.log_prob(x[None])) for x in encoded)
    symbols = sum(len(x) + 1 for x in encoded)
    assert found["nats_per_symbol"] == pytest.approx(-nats / symbols, rel=1e-5)
    assert found["words"] == symbols - 20
    assert 0.4 < found["many_to_one"] <= 1
    assert 0 <= found["v_measure"] <= 1
    assert "perplexity: " in invoke("evaluate", run, path).output


def test_samples_have_the_words_and_the_lengths_of_the_model(run: Path) -> None:
    arguments = ("sample", run, "-n", 40, "--seed", 1, "--max-length", 8)
    lines = invoke(*arguments).stdout.splitlines()
    assert invoke(*arguments).stdout.splitlines() == lines
    assert len(lines) == 40
    assert {w for line in lines for w in line.split()} <= {"the", "a", *NOUNS, *VERBS, "<unk>"}
    hmm = NeuralHMM.load(run / "model").double().distribution()
    with torch.no_grad():
        law = sample.length_law(hmm, 4)
        v = hmm.emission.shape[-1]
        pairs = torch.cartesian_prod(torch.arange(v), torch.arange(v))
        assert float(law[1]) == pytest.approx(float(hmm.log_prob(pairs).exp().sum()), rel=1e-6)


def test_a_grammar_is_trained_evaluated_sampled_and_parses(tmp_path: Path) -> None:
    phrases = [f"(NP (DT the) (NN {n}))" for n in NOUNS]
    trees = [f"(S {phrases[i % 4]} (VP (V {VERBS[i % 3]}) {phrases[3 * i % 4]}))" for i in range(40)]
    (tmp_path / "x.trees").write_text("\n".join(trees))
    small = ["--nonterminals", 2, "--preterminals", 3, "--dim", 8, "--epochs", 1, "--batch-size", 8]
    out = tmp_path / "out"
    result = invoke("train", "pcfg", "--data", tmp_path / "x.trees", "--out", out, *small)
    assert result.exit_code == 0, result.output
    found = json.loads(invoke("evaluate", out, tmp_path / "x.trees", "--json").stdout)
    assert found["sentences"] == 40
    assert 0 <= found["corpus_f1"] <= 1
    assert len(invoke("sample", out, "-n", 3).stdout.splitlines()) == 3
    assert invoke("parse", out, "-", input="the dog sees the cat\n").stdout.startswith("(")
    refused = invoke("tag", out, "-", input="x\n")
    assert refused.exit_code == 1
    assert "expected an HMM (for trees: structlv parse)" in refused.stderr


def test_a_configuration_names_options_and_the_command_line_wins(text: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f"data = '{text}'\nout = '{tmp_path / 'out'}'\nstates = 3\nbatch-size = 64\nepochs = 9\n"
    )
    result = invoke("train", "hmm", "--config", config, "--epochs", 1)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out" / "result.json").read_text())["settings"]
    assert (settings["states"], settings["batch_size"], settings["epochs"]) == (3, 64, 1)


def test_options_of_training_reach_the_trainer(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    options = ("--clip", 0.001, "--patience", 1, "--precision", "bf16-mixed", "--tensorboard")
    out = tmp_path / "out"
    result = invoke("train", "hmm", "--data", text, "--out", out, *SMALL, "--epochs", 9, "--lr", 5, *options)
    assert result.exit_code == 0, result.output
    settings = json.loads((out / "result.json").read_text())["settings"]
    given = {"clip": 0.001, "patience": 1, "precision": "bf16-mixed", "tensorboard": True}
    assert given.items() <= settings.items()
    held_out = [line for line in (out / "log.csv").read_text().splitlines() if ",val_nats," in line]
    assert 1 < len(held_out) < 9
    assert any((out / "tensorboard").iterdir())


WRONG = {
    "states = 'many'": "states must be a whole number, 1 or more, found 'many'",
    "epochs = 0": "epochs must be a whole number, 1 or more, found 0",
    "held-out = 3": "held_out must be a text, found 3",
    "states = 2.5": "states must be a whole number",
    "lr = -1.0": "lr must be a number, 0 or more, found -1.0",
    "nonterminals = 3": "--nonterminals: no option of hmm, which has batch_size, clip, dim, epochs",
    "clip = -1": "clip must be a number, 0 or more, found -1",
    "precision = 'half'": 'precision must be "32-true" or "bf16-mixed", found',
    "tensorboard = 'yes'": "tensorboard must be false or true, found 'yes'",
    "states = ": "run.toml: not TOML",
}


@pytest.mark.parametrize("content", WRONG)
def test_a_wrong_configuration_is_one_sentence(text: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "run.toml").write_text(content)
    out = tmp_path / "out"
    result = invoke("train", "hmm", "--config", tmp_path / "run.toml", "--data", text, "--out", out)
    assert result.exit_code == 1
    assert WRONG[content] in result.stderr
    assert not out.exists()


def test_what_is_missing_is_named(text: Path, tmp_path: Path, run: Path) -> None:
    assert "--data is missing" in invoke("train", "hmm", "--out", tmp_path / "x").stderr
    assert "--out is missing" in invoke("train", "hmm", "--data", text).stderr
    for command in (("tag", tmp_path, text), ("sample", tmp_path), ("evaluate", tmp_path, text)):
        result = invoke(*command)
        assert result.exit_code == 1
        assert "no saved model there" in result.stderr
    assert "No such file" in invoke("tag", run, tmp_path / "nothing").stderr
    assert "no sentence in it" in invoke("tag", run, "-", input="\n").stderr
    assert invoke("train", "transformer").exit_code == 2


def test_bench_finds_this_machine_right(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("bench", "--quick")
    assert result.exit_code == 0, result.output
    assert "right." in result.output
    monkeypatch.setattr(bench, "errors", lambda: {"log Z of a chain": float("nan")})
    broken = invoke("bench", "--quick")
    assert broken.exit_code == 1
    assert "WRONG: log Z of a chain" in broken.output


# ---- interruptions ---------------------------------------------------------------------------------------

LONG = ["--states", "4", "--dim", "8", "--epochs", "5", "--batch-size", "8"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "toy.txt").write_text("\n".join(" ".join(words) for words in sentences()))
    result = invoke("train", "hmm", "--data", folder / "toy.txt", "--out", folder / "run", *LONG)
    assert result.exit_code == 0, result.output
    return folder / "toy.txt", json.loads((folder / "run" / "result.json").read_text())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])  # SIGINT: test_cli.py
def test_after_a_signal_the_same_command_goes_on_to_the_same_result(
    uninterrupted: tuple[Path, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    text, expected = uninterrupted
    out = tmp_path / "out"
    arguments = ["train", "hmm", "--data", str(text), "--out", str(out), *LONG]
    status, errors = interrupted(arguments, out, name)
    if name == "SIGKILL":
        assert status == -signal.SIGKILL
    else:
        assert status == 130, errors
        assert "the same command goes on from it" in " ".join(errors.split())
    assert not (out / "result.json").exists()
    resumed = invoke(*arguments)
    assert resumed.exit_code == 0, resumed.output
    assert "Going on from the checkpoint" in resumed.output
    found = json.loads((out / "result.json").read_text())
    assert found["nats"] == pytest.approx(expected["nats"], abs=1e-6)
    assert not list(out.glob("*.ckpt*"))


def test_a_full_disk_loses_nothing(
    uninterrupted: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = uninterrupted
    arguments = ["train", "hmm", "--data", text, "--out", tmp_path / "out", *LONG]
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = invoke(*arguments)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["last.ckpt", "log.csv", "run.json"]
    assert invoke(*arguments).exit_code == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["nats"] == pytest.approx(expected["nats"], abs=1e-6)
