"""What the demo adds to Lightning: a progress bar in plain words, and training tokens per second."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme


class Throughput(pl.Callback):
    """Training tokens over the time spent in training steps; validation and start-up do not count."""

    def __init__(self) -> None:
        self._tokens, self._seconds, self._begun = 0, 0.0, 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """None before the first step."""
        return self._tokens / self._seconds if self._seconds else None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seconds += time.perf_counter() - self._begun
        self._tokens += int(batch.all_lengths.sum())  # of all processes


class Progress(RichProgressBar):
    """Lightning's bar with epochs counted from 1 and the two numbers that matter, named in words."""

    def __init__(self) -> None:
        super().__init__(leave=False, theme=RichProgressBarTheme(metrics_format=".1f"))

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Perplexities of the current batch and, after the first epoch, of the held-out part."""
        found: dict[str, Any] = dict(super().get_metrics(*args))
        shown = {}
        if "train_nats" in found:
            shown["batch perplexity"] = math.exp(min(float(found["train_nats"]), 700.0))
        if "val_perplexity" in found:
            shown["held-out"] = found["val_perplexity"]
        return shown
