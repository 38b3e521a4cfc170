"""Two processes: the gradients of one, a refusal to go on with another number, and no endless waiting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.learning import ddp
from tests.tolerance import assert_probabilities

ROOT = Path(__file__).resolve().parents[2]


def two_processes(folder: Path) -> subprocess.CompletedProcess[str]:
    """`ddp.py`, whose second process Lightning starts."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(Path(__file__).with_name("ddp.py")), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("two")
    return folder, two_processes(folder)


@pytest.fixture
def two(run: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    assert (run[0] / "gradients.pt").exists(), run[1].stderr
    return run[0]


def test_the_gradients_are_those_of_one_process(two: Path, tmp_path: Path) -> None:
    found = torch.load(two / "gradients.pt", weights_only=True)
    expected = ddp.train(tmp_path, 1)
    assert found.shape == expected.shape
    assert found.dtype == torch.float64
    assert float(expected.abs().max()) > 1e-3
    assert_probabilities(found, expected)


def test_one_process_does_not_go_on_from_the_checkpoint_of_two(two: Path) -> None:
    assert torch.load(two / "last.ckpt", weights_only=True)["structlv"]["world_size"] == 2
    with pytest.raises(ValueError, match=r"cannot be resumed exactly.*world_size 2 -> 1"):
        ddp.train(two, 1)


def test_a_process_that_stops_to_answer_is_not_waited_for(
    two: Path, run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    assert run[1].returncode != 0
    assert "timed out" in run[1].stderr.lower(), run[1].stderr
