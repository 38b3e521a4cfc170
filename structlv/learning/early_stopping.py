"""Stop when the held-out part no longer gets better, and keep the weights that were best on it."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class StopEarly(pl.Callback):
    """Ends a training after `patience` epochs in a row that did not lower val_nats.

    The best weights are part of every checkpoint, so a resumed run stops where a whole one does, with the
    same weights; `restore` puts them into the objective. Raises ValueError where the training has no
    validation data.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience must be 1 or more, found {patience}")
        self.patience = patience
        self.best, self.waited = math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.waited >= self.patience  # the checkpoint may be that of the last epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if "val_nats" not in trainer.callback_metrics:
            raise ValueError("patience needs validation data")
        value = float(trainer.callback_metrics["val_nats"])
        if value < self.best:
            self.best, self.waited = value, 0
            self.weights = {name: v.detach().clone() for name, v in pl_module.state_dict().items()}
        else:
            self.waited += 1
        trainer.should_stop = trainer.should_stop or self.waited >= self.patience

    def restore(self, objective: torch.nn.Module) -> None:
        """Give the objective the best weights, if an epoch has ended."""
        if self.weights:
            objective.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]
        self.weights = state_dict["weights"]
