"""The command line, in this process and in one of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("pytorch_lightning")

import torch
from typer.testing import CliRunner

import structlv
from structlv.cli.app import app
from structlv.data import Vocabulary
from structlv.models import NeuralHMM
from tests.cli.interrupting import interrupted

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"det": ["the", "a"], "noun": ["dog", "cat", "bird", "tree"], "verb": ["sees", "likes", "hears"]}
SMALL = ["--states", "4", "--epochs", "2", "--batch-size", "32"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """300 sentences of a toy language: determiner noun verb determiner noun."""
    generator = torch.Generator().manual_seed(0)

    def word(kind: str) -> str:
        return WORDS[kind][int(torch.randint(len(WORDS[kind]), (1,), generator=generator))]

    lines = [" ".join(map(word, ("det", "noun", "verb", "det", "noun"))) + " ." for _ in range(300)]
    path = tmp_path / "toy.txt"
    path.write_text("\n".join(lines))
    return path


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def demo(text: Path, out: Path, *more: str) -> Any:
    return invoke("demo", "--data", str(text), "--out", str(out), *SMALL, *more)


def test_info_names_versions_kernels_and_cuda() -> None:
    result = invoke("info")
    assert result.exit_code == 0
    for word in (structlv.__version__, torch.__version__, "kernels", "threads", "CUDA"):
        assert word in result.output


def test_help_lists_the_commands_and_the_options() -> None:
    assert all(word in invoke("--help").output for word in ("demo", "info"))
    assert all(word in invoke("demo", "--help").output for word in ("--data", "--out", "--quick", "--seed"))


def test_demo_trains_reports_and_saves(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = demo(text, out)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == [
        "grammar", "log.csv", "model", "result.json", "run.json", "states.tsv", "transitions.png"
    ]  # fmt: skip
    for words in ("unigram", "bigram", "neural HMM, 4 states", "end of the sentence", "tokens per second"):
        assert words in " ".join(result.output.split())
    perplexity = json.loads((out / "result.json").read_text())["perplexity"]
    assert perplexity["neural HMM"] < perplexity["unigram"]
    model = NeuralHMM.load(out / "model")
    assert isinstance(model.vocabulary, Vocabulary)
    assert "dog" in model.vocabulary
    assert (out / "transitions.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "states.tsv").read_text().splitlines()) == 4


def test_demo_reads_conllu_and_shows_its_tags(text: Path, tmp_path: Path) -> None:
    kinds = {word: kind.upper() for kind, words in WORDS.items() for word in words}
    sentences = [
        "".join(
            f"{i}\t{word}\t_\t{kinds.get(word, 'PUNCT')}\t_\t_\t0\t_\t_\t_\n"
            for i, word in enumerate(line.split(), start=1)
        )
        for line in text.read_text().splitlines()
    ]
    path = tmp_path / "toy.conllu"
    path.write_text("\n".join(sentences))
    result = demo(path, tmp_path / "out", "--epochs", "1")
    assert result.exit_code == 0, result.output
    assert "gold tag" in result.output
    assert "PUNCT" in result.output


def test_the_same_seed_gives_the_same_model(text: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert demo(text, tmp_path / name, "--seed", seed, "--epochs", "1").exit_code == 0
    a, b, c = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "x.txt", "no sentence in it"),
        (b"caf\xe9\n", "x.txt", "not UTF-8"),
        (b"only one line\n", "x.txt", "the text has 1 sentences, expected at least 20"),
        (b"word\n", "x.conllu", "line 1: expected 10 tab-separated columns"),
        (None, "nothing.txt", "No such file"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(
    tmp_path: Path, content: bytes | None, name: str, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = demo(path, tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_wrong_option_is_status_2(text: Path, tmp_path: Path) -> None:
    assert demo(text, tmp_path, "--states", "0").exit_code == 2
    assert invoke("demo", "--format", "xml").exit_code == 2


def test_interrupted_demo_keeps_its_checkpoint_and_goes_on_to_the_same_model(
    text: Path, tmp_path: Path
) -> None:
    arguments = ["demo", "--data", str(text), "--states", "8", "--epochs", "12", "--batch-size", "8"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert invoke(*arguments, "--out", str(whole)).exit_code == 0
    status, errors = interrupted([*arguments, "--out", str(cut)], cut, "SIGINT")
    assert status == 130
    assert "Interrupted. The checkpoint is in" in errors
    assert "Traceback" not in errors
    changed = invoke(*arguments, "--out", str(cut), "--lr", "0.5")
    assert changed.exit_code == 1
    assert "other settings (lr: 0.03 -> 0.5)" in " ".join(changed.stderr.split())
    resumed = invoke(*arguments, "--out", str(cut))
    assert resumed.exit_code == 0
    assert "Going on from the checkpoint" in resumed.output
    weights = [(out / "model" / "model.safetensors").read_bytes() for out in (whole, cut)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("missing", ["typer", "pytorch_lightning"])
def test_a_missing_extra_is_one_sentence_with_the_pip_command(missing: str) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; sys.argv = ['structlv', 'demo', '--quick']; "
    code += "from structlv.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'structlv[" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_structlv_imports_no_extra() -> None:
    code = "import sys, structlv; print([m for m in ('typer', 'rich', 'pytorch_lightning', 'matplotlib', "
    code += "'safetensors') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
