"""`structlv tag` and `parse` in shards: the output without shards, whatever is killed in between."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("safetensors")

import torch
from typer.testing import CliRunner

from structlv.cli import shards, workers
from structlv.cli.app import app
from structlv.cli.parse import Parser
from structlv.cli.tag import Tagger
from structlv.data import Vocabulary
from structlv.models import NeuralHMM, NeuralPCFG

WORDS = ("the", "a", "dog", "cat", "sees", "likes")


def invoke(*arguments: object, **options: Any) -> Any:
    return CliRunner().invoke(app, [str(x) for x in arguments], **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of both kinds, in the folders hmm and grammar."""
    folder = tmp_path_factory.mktemp("models")
    vocabulary = Vocabulary.build([WORDS], min_count=1)
    torch.manual_seed(0)
    for name, model in (
        ("hmm", NeuralHMM(3, len(vocabulary), dim=4)),
        ("grammar", NeuralPCFG(len(vocabulary), num_nonterminals=2, num_preterminals=2, dim=4)),
    ):
        model.vocabulary = vocabulary
        model.save(folder / name)
    return folder


def lines(count: int) -> list[str]:
    """Sentences of 0 to 4 words, hardly two alike."""
    return [" ".join(WORDS[(i // 7**k + k) % 6] for k in range(i % 5)) for i in range(count)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """600 lines: three chunks of a parser, the last a part."""
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines(600)).encode())
    return path


def joined(folder: Path) -> str:
    found = json.loads((folder / "manifest.json").read_text())
    assert found["complete"]
    names = sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    assert found["shards"] == names
    return "".join((folder / name).read_text() for name in names)


def test_shards_are_the_output_without_shards(models: Path, text: Path, tmp_path: Path) -> None:
    whole = invoke("parse", models / "grammar", text)
    assert len(whole.stdout.splitlines()) == 600
    result = invoke("parse", models / "grammar", text, "--shards", tmp_path / "s", "--shard-size", 1)
    assert result.exit_code == 0, result.output
    assert joined(tmp_path / "s") == whole.stdout
    assert len(list((tmp_path / "s").iterdir())) == 4  # sizes are whole chunks


def test_conllu_is_cut_between_sentences(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tagger, "chunk", 2)
    blocks = [
        "# a comment\n" + "".join(f"{i}\t{w}" + "\t_" * 8 + "\n" for i, w in enumerate(s.split(), 1))
        for s in lines(15)
        if s
    ]
    (tmp_path / "x.conllu").write_text("\n".join(blocks))
    whole = invoke("tag", models / "hmm", tmp_path / "x.conllu")
    assert whole.stdout.count("\n\n") == 12
    result = invoke(
        "tag", models / "hmm", tmp_path / "x.conllu", "--shards", tmp_path / "s", "--shard-size", 3
    )
    assert result.exit_code == 0, result.output
    assert joined(tmp_path / "s") == whole.stdout
    assert len(list((tmp_path / "s").iterdir())) == 4  # of 4 sentences each
    (tmp_path / "x.conllu").write_text("\n".join(blocks) + "\nbroken\n")
    for more in ((), ("--shards", tmp_path / "t", "--shard-size", 3)):
        failed = invoke("tag", models / "hmm", tmp_path / "x.conllu", *more)
        assert failed.exit_code == 1
        assert (
            f"line {2 + ''.join(blocks).count(chr(10)) + len(blocks) - 1}: expected 10 tab" in failed.stderr
        )


def test_an_interrupted_run_makes_what_is_missing(
    models: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("parse", models / "grammar", text, "--shards", tmp_path / "s", "--shard-size", 256)
    write, calls = shards.write_atomically, []

    def stopped(path: Path, content: str) -> None:
        calls.append(path.name)
        if len(calls) == 2:
            (path.parent / f".{path.name}.1.tmp").write_text("half")  # what kill -9 leaves
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(shards, "write_atomically", stopped)
    result = invoke(*command)
    assert result.exit_code == 130
    assert "finished shards are in" in result.stderr
    assert not json.loads((tmp_path / "s" / "manifest.json").read_text())["complete"]
    assert invoke(*command).exit_code == 0
    assert calls[1] == calls[2]
    assert len(set(calls)) == 3  # and the first was not made again
    assert joined(tmp_path / "s") == invoke("parse", models / "grammar", text).stdout
    assert invoke(*command).exit_code == 0
    assert len(calls) == 4


def test_another_text_or_model_is_refused(models: Path, text: Path, tmp_path: Path) -> None:
    command = ("parse", models / "grammar", text, "--shards", tmp_path / "s", "--shard-size", 256)
    assert invoke(*command).exit_code == 0
    content = text.read_bytes()
    for other in (content.replace(b"cat", b"dog", 1), content[:3000]):
        text.write_bytes(other)
        result = invoke(*command)
        assert result.exit_code == 1
        assert "the text is not what it was when shard-000" in " ".join(result.stderr.split())
    assert "method: viterbi -> mbr" in invoke(*command, "--method", "mbr").stderr
    assert "sentences: 256 -> 512" in invoke(*command, "--shard-size", 257).stderr
    assert "holds other files" in invoke(*command, "--shards", tmp_path).stderr
    assert "reads a file" in invoke(*command[:2], "-", *command[3:]).stderr
    assert "name a folder for them with --shards" in invoke(*command[:3], "--workers", 2).stderr


def test_a_killed_worker_is_replaced(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # one process at a time will do: each takes seconds to start
    monkeypatch.setattr(shards, "in_processes", lambda make, todo, _: workers.in_processes(make, todo, 1))
    text, folder = tmp_path / "text.txt", tmp_path / "s"
    text.write_text("\n".join(lines(12 * Parser.chunk)))
    killed = []

    def kill() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not list(folder.glob("shard-*")):
            time.sleep(0.002)
        for process in multiprocessing.active_children()[:1]:
            process.kill()
            killed.append(len(list(folder.glob("shard-*"))))

    killer = threading.Thread(target=kill)
    killer.start()
    result = invoke("parse", models / "grammar", text, "--shards", folder, "--shard-size", 1, "--workers", 2)
    killer.join()
    assert result.exit_code == 0, result.output
    assert killed
    assert killed[0] < 12, "all was done before"
    assert joined(folder) == invoke("parse", models / "grammar", text).stdout
