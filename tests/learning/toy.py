"""A small training run for the tests of resuming; also a script: `python toy.py FOLDER [--slow]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from structlv.data import Batches
from structlv.learning import MarginalLikelihood, fit

EPOCHS, SEED, MODEL_SEED = 3, 3, 1
BATCHES = 6  # in an epoch: 22 sequences, 4 at a time


class NoisyModel(nn.Module):
    """Words independent given dropout: what is learned depends on the random state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(MODEL_SEED)
        self.embedding, self.dropout, self.out = nn.Embedding(20, 8), nn.Dropout(0.3), nn.Linear(8, 20)

    def log_prob(self, x: Tensor, lengths: Tensor) -> Tensor:
        scores = self.out(self.dropout(self.embedding(x))).log_softmax(-1)
        mask = torch.arange(x.shape[1]) < lengths[:, None]
        return (scores.gather(-1, x[..., None])[..., 0] * mask).sum(-1)


class Losses(pl.Callback):
    """The (epoch, step, loss) of every training step."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, float]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.rows.append((trainer.current_epoch, trainer.global_step, float(outputs["loss"])))


class Slow(pl.Callback):
    """Time enough for a test to kill the process; tells the step on standard output."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        print(trainer.global_step, flush=True)
        time.sleep(0.2)


def sequences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (22,), generator=generator).tolist()
    return [torch.randint(0, 20, (n,), generator=generator) for n in lengths]


def train(
    folder: Path,
    *callbacks: pl.Callback,
    seed: int = 0,
    batch_size: int = 4,
    every: int = 2,
    lr: float = 0.05,
    **trainer: Any,
) -> MarginalLikelihood:
    """The same run each time, from the checkpoint in `folder` if there is one."""
    objective = MarginalLikelihood(NoisyModel(), lr=lr, seed=seed)
    train_data = Batches(sequences(), batch_size, seed=SEED)
    validation = Batches(sequences()[:9], 4, shuffle=False)
    options = {"epochs": EPOCHS, "checkpoint_every": every, "progress": False, "callbacks": callbacks}
    fit(objective, train_data, validation, folder=folder, **{**options, **trainer})
    return objective


def weights(objective: MarginalLikelihood) -> Tensor:
    return torch.cat([p.detach().flatten() for p in objective.parameters()])


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), *([Slow()] if "--slow" in sys.argv else []))
