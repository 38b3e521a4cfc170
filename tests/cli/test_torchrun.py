"""`torchrun --nproc-per-node 2 -m structlv train`: one run folder, with what one process finds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("pytorch_lightning")

from typer.testing import CliRunner

from structlv.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--states", "3", "--dim", "4", "--epochs", "2", "--batch-size", "8", "--lr", "0.01"]


def numbers(out: Path) -> dict[tuple[str, str], float]:
    lines = (out / "log.csv").read_text().splitlines()[1:]
    return {(step, name): float(value) for step, name, value in (line.split(",") for line in lines)}


def test_two_processes_of_torchrun_leave_one_run_equal_to_that_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process is the first; another start of the interpreter and torchrun's own are spared."""
    words = ("the", "a", "dog", "cat", "sees", "likes")
    text = tmp_path / "toy.txt"
    text.write_text("\n".join(" ".join(words[(i * k + i) % 6] for k in range(2 + i % 4)) for i in range(120)))

    def command(out: Path) -> list[str]:
        return ["train", "hmm", "--data", str(text), "--out", str(out), *SMALL]

    two, one = tmp_path / "two", tmp_path / "one"
    assert CliRunner().invoke(app, command(one)).exit_code == 0
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    shared = torchrun_environment()
    environment = {**os.environ, **shared, "RANK": "1", "LOCAL_RANK": "1", "PYTHONPATH": path}
    environment["OMP_NUM_THREADS"] = "1"
    start = [sys.executable, "-W", "ignore", "-m", "structlv", *command(two)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(start, env=environment, stdout=pipe, stderr=pipe, text=True) as second,
        monkeypatch.context() as patch,
    ):
        for name, value in (*shared.items(), ("RANK", "0"), ("LOCAL_RANK", "0")):
            patch.setenv(name, value)
        try:
            result: Any = CliRunner().invoke(app, command(two))
            output, errors = second.communicate(timeout=60)
        finally:
            second.kill()
    assert result.exit_code == 0, result.output
    assert second.returncode == 0, errors
    assert "Held-out perplexity" in result.output
    assert output == ""
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
    found, expected = numbers(two), numbers(one)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-4)
    nats = [json.loads((out / "result.json").read_text())["nats"] for out in (two, one)]
    assert nats[0] == pytest.approx(nats[1], abs=1e-4)


def torchrun_environment() -> dict[str, str]:
    """What `torchrun --nproc-per-node 2` tells its processes, but their numbers."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
    }
