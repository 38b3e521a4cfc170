"""A small training run in float64, in one process, or as a script, `ddp.py FOLDER`, in two.

Writes the gradients of every step to FOLDER/gradients.pt; then a second run, whose second process stalls.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from structlv.data import Batches
from structlv.learning import MarginalLikelihood, fit
from structlv.models import NeuralHMM

TIMEOUT = 20.0  # of both runs: they share the group of processes


class Gradients(pl.Callback):
    """All gradients as one vector, before each step of the optimiser: summed over processes already."""

    def __init__(self) -> None:
        self.rows: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rows.append(torch.cat([p.grad.flatten() for p in pl_module.parameters()]).clone())


class Stall(pl.Callback):
    """The second process stops to answer."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            time.sleep(TIMEOUT + 5)


def train(folder: Path, processes: int, stall: bool = False) -> torch.Tensor:
    """Gradients (steps, parameters)."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (24,), generator=generator).tolist()
    data = Batches([torch.randint(0, 12, (n,), generator=generator) for n in lengths], 8, seed=3)
    torch.manual_seed(1)
    gradients = Gradients()
    fit(
        MarginalLikelihood(NeuralHMM(3, 12, dim=4).double(), lr=0.05),
        data,
        folder=folder,
        epochs=2,
        checkpoint_every=2,
        progress=False,
        callbacks=[gradients, *([Stall()] if stall else [])],
        timeout=TIMEOUT,
        devices=processes,
    )
    return torch.stack(gradients.rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    found = train(place, 2)
    if torch.distributed.get_rank() == 0:
        torch.save(found, place / "gradients.pt")
    train(place / "stalled", 2, stall=True)
