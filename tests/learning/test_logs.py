"""Logs, early stopping, clipping, mixed precision; resuming leaves the log and the weights of a whole run."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from structlv.data import Batches
from structlv.learning import MarginalLikelihood, fit
from structlv.models import CompoundPCFG, NeuralHMM, NeuralPCFG
from tests.learning import toy
from tests.learning.test_resume import Fail
from tests.learning.toy import BATCHES, EPOCHS, Losses

OPTIONS: dict[str, Any] = {"log_every": 2, "patience": 1, "gradient_clip_val": 0.5, "lr": 1.0}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def values(folder: Path, name: str) -> dict[int, float]:
    return {int(row["step"]): float(row["value"]) for row in rows(folder) if row["name"] == name}


def test_the_log_has_what_was_logged(tmp_path: Path) -> None:
    losses = Losses()
    toy.train(tmp_path, losses, log_every=5)
    found = values(tmp_path, "train_nats")
    assert list(found) == [5, 10, 15]
    assert found == {step: loss for _, step, loss in losses.rows if step in found}
    assert list(values(tmp_path, "val_nats")) == [BATCHES * (i + 1) for i in range(EPOCHS)]
    assert set(values(tmp_path, "lr")) == set(found)


class Copies(pl.Callback):
    """The checkpoint and the log as they are before each step, and at last."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder, self.run = folder, run

    def on_train_batch_start(self, *_: Any) -> None:
        if (self.run / "last.ckpt").exists():
            shutil.copytree(self.run, self.folder / f"{len(list(self.folder.iterdir())):03d}")

    def on_fit_end(self, *_: Any) -> None:
        self.on_train_batch_start()


def test_a_run_resumed_anywhere_leaves_the_same_log_and_the_best_weights(tmp_path: Path) -> None:
    """In mixed precision, gradients clipped; validation is in the middle and at the end of each epoch."""
    options = {
        **OPTIONS,
        "precision": "bf16-mixed",
        "val_check_interval": BATCHES // 2,
        "epochs": 9,
        "every": 1,
    }
    losses = Losses()
    (tmp_path / "copies").mkdir()
    copies = Copies(tmp_path / "copies", tmp_path / "whole")
    whole = toy.weights(toy.train(tmp_path / "whole", copies, losses, **options))
    log = (tmp_path / "whole" / "log.csv").read_bytes()
    assert BATCHES < len(losses.rows) < 9 * BATCHES  # stopped early
    folders = sorted((tmp_path / "copies").iterdir())
    assert len(folders) == len(losses.rows)
    for folder in (*folders[::2], folders[-1]):
        with open(folder / "log.csv", "a") as file:
            file.write("99,train_na")  # what a kill leaves
        found = toy.weights(toy.train(folder, **options))
        assert torch.equal(found, whole), folder.name
        assert (folder / "log.csv").read_bytes() == log, folder.name


def test_the_weights_after_early_stopping_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    class Epochs(pl.Callback):
        """The weights at the end of every epoch."""

        found: list[torch.Tensor]

        def __init__(self) -> None:
            self.found = []

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            self.found.append(toy.weights(pl_module).clone())

    epochs = Epochs()
    found = toy.weights(toy.train(tmp_path, epochs, epochs=9, **OPTIONS))
    held_out = list(values(tmp_path, "val_nats").values())
    assert held_out[-1] >= held_out[-2] == min(held_out)
    assert torch.equal(found, epochs.found[-2])
    assert not torch.equal(found, epochs.found[-1])


def test_patience_needs_something_to_watch(tmp_path: Path) -> None:
    objective = MarginalLikelihood(toy.NoisyModel())
    data = Batches(toy.sequences(), 4)
    with pytest.raises(ValueError, match="patience needs validation data"):
        fit(objective, data, folder=tmp_path, epochs=2, patience=1, progress=False)
    with pytest.raises(ValueError, match="validation must be another Batches than train"):
        fit(objective, data, data, folder=tmp_path, epochs=2, progress=False)
    with pytest.raises(ValueError, match="patience must be 1 or more, found 0"):
        fit(objective, data, folder=tmp_path, epochs=2, patience=0, progress=False)


def test_tensorboard_has_the_same_numbers_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(RuntimeError):
        toy.train(tmp_path, Fail(9, RuntimeError()), log_every=1, tensorboard=True)
    toy.train(tmp_path, log_every=1, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("train_nats", "val_nats"):
        found = {e.step: e.value for e in events.Scalars(name)}
        assert found == pytest.approx(values(tmp_path, name), rel=1e-6)


@pytest.mark.parametrize("kind", [NeuralHMM, NeuralPCFG, CompoundPCFG])
def test_in_mixed_precision_log_z_is_not_in_half(kind: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {} if kind is NeuralHMM else {"num_nonterminals": 3, "num_preterminals": 4}
    model = kind(3, 20, dim=8) if kind is NeuralHMM else kind(20, dim=8, **sizes)
    x, lengths = torch.randint(0, 20, (4, 6)), torch.tensor([6, 3, 5, 6])

    def value() -> torch.Tensor:
        torch.manual_seed(1)
        return model.elbo(x, lengths).bound if kind is CompoundPCFG else model.log_prob(x, lengths)

    exact = value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = value()
    assert mixed.dtype == torch.float32
    mixed.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert not torch.equal(mixed, mixed.bfloat16().float())
    torch.testing.assert_close(mixed.detach(), exact.detach(), rtol=0, atol=0.2)  # the networks are in half


def test_training_in_mixed_precision_is_near(tmp_path: Path) -> None:
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        data, held_out = Batches(toy.sequences(), 4), Batches(toy.sequences(), 4, shuffle=False)
        objective = MarginalLikelihood(NeuralHMM(3, 20, dim=8), lr=0.02)
        fit(
            objective,
            data,
            held_out,
            folder=tmp_path / precision,
            epochs=2,
            progress=False,
            precision=precision,
            gradient_clip_val=5.0,
        )
        found[precision] = values(tmp_path / precision, "val_nats")[2 * BATCHES]
        assert all(p.dtype == torch.float32 for p in objective.parameters())
    assert found["bf16-mixed"] != found["32-true"]
    assert found["bf16-mixed"] == pytest.approx(found["32-true"], abs=0.05)
