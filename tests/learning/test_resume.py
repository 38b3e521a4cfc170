"""Interrupted and resumed training is the uninterrupted one, bit for bit, from every checkpoint."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from tests.learning import toy
from tests.learning.toy import BATCHES, EPOCHS, Losses

STEPS = BATCHES * EPOCHS


class Snapshots(pl.Callback):
    """A checkpoint at the end of every batch, of every validation batch, of validation, of epochs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _save(self, trainer: pl.Trainer, where: str) -> None:
        count = len(list(self.folder.glob("*.ckpt")))
        trainer.save_checkpoint(self.folder / f"{count:03d}-{where}-{trainer.global_step}.ckpt")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "batch")

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "validation-batch")

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "epoch")


class Fail(pl.Callback):
    """Raises before a given step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[torch.Tensor, list[tuple[int, int, float]]]:
    losses = Losses()
    objective = toy.train(tmp_path_factory.mktemp("whole"), losses)
    assert len(losses.rows) == STEPS
    return toy.weights(objective), losses.rows


@pytest.mark.parametrize(
    "options", [{}, {"val_check_interval": 4}], ids=["validation-last", "validation-midway"]
)
def test_from_every_checkpoint(tmp_path: Path, options: dict[str, Any]) -> None:
    losses = Losses()
    whole = toy.weights(toy.train(tmp_path / "whole", Snapshots(tmp_path), losses, **options))
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) > STEPS
    for checkpoint in checkpoints:
        folder = tmp_path / checkpoint.stem
        folder.mkdir()
        shutil.copy(checkpoint, folder / "last.ckpt")
        resumed = Losses()
        found = toy.weights(toy.train(folder, resumed, **options))
        done = int(checkpoint.stem.rpartition("-")[2])
        assert resumed.rows == losses.rows[done:], checkpoint.name
        assert torch.equal(found, whole), checkpoint.name


@pytest.mark.parametrize("step", [1, 2, 5, BATCHES, BATCHES + 1, STEPS - 1])
def test_after_an_exception(tmp_path: Path, uninterrupted: tuple[torch.Tensor, Any], step: int) -> None:
    with pytest.raises(RuntimeError, match="cosmic ray"):
        toy.train(tmp_path, Fail(step, RuntimeError("cosmic ray")))
    losses = Losses()
    found = toy.weights(toy.train(tmp_path, losses))
    assert torch.equal(found, uninterrupted[0])
    assert losses.rows == uninterrupted[1][-len(losses.rows) :]
    assert len(losses.rows) <= STEPS - step + 1  # checkpoints every 2 steps: at most one step is done again


def test_after_control_c(tmp_path: Path, uninterrupted: tuple[torch.Tensor, Any]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, Fail(9, KeyboardInterrupt()))
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(toy.weights(toy.train(tmp_path)), uninterrupted[0])


def test_after_kill_9(tmp_path: Path, uninterrupted: tuple[torch.Tensor, Any]) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).with_name("toy.py")),
        str(tmp_path),
        "--slow",
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "9":  # in the second epoch
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait(20) == -signal.SIGKILL
    losses = Losses()
    found = toy.weights(toy.train(tmp_path, losses))
    assert 0 < len(losses.rows) < STEPS
    torch.testing.assert_close(found, uninterrupted[0], rtol=1e-6, atol=1e-6)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, uninterrupted: tuple[torch.Tensor, Any]) -> None:
    toy.train(tmp_path)
    losses = Losses()
    assert torch.equal(toy.weights(toy.train(tmp_path, losses)), uninterrupted[0])
    assert losses.rows == []


def test_nothing_but_the_checkpoint_and_the_log_is_left(tmp_path: Path) -> None:
    toy.train(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "log.csv"]
    contents = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {"seed": 0, "world_size": 1}.items() <= contents["structlv"].items()
    assert contents["hyper_parameters"]["lr"] == 0.05


@pytest.mark.parametrize("other", [{"seed": 1}, {"batch_size": 3}])
def test_another_seed_or_other_data_is_refused(tmp_path: Path, other: dict[str, int]) -> None:
    with pytest.raises(RuntimeError):
        toy.train(tmp_path, Fail(5, RuntimeError()))
    with pytest.raises(ValueError, match=r"cannot be resumed exactly.*(seed|data)"):
        toy.train(tmp_path, **other)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    toy.train(tmp_path, epochs=1)
    contents = torch.load(tmp_path / "last.ckpt", weights_only=True)
    contents["structlv"]["world_size"] = 2
    torch.save(contents, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"cannot be resumed exactly.*world_size 2 -> 1"):
        toy.train(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "foreign", "truncated"])
def test_a_damaged_checkpoint_is_named_and_kept(tmp_path: Path, content: bytes | None) -> None:
    toy.train(tmp_path, epochs=1)
    path = tmp_path / "last.ckpt"
    damaged = path.read_bytes()[:1000] if content is None else content
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"last\.ckpt: damaged, or not a checkpoint"):
        toy.train(tmp_path)
    assert path.read_bytes() == damaged


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, uninterrupted: tuple[torch.Tensor, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full_at_third_call())
        with pytest.raises(OSError, match="No space left"):
            toy.train(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "log.csv"]
    assert torch.equal(toy.weights(toy.train(tmp_path)), uninterrupted[0])


def _full_at_third_call() -> Any:
    calls = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    return fsync
