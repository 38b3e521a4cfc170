"""A callback that measures training tokens per second."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


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
        self._tokens += int(batch.lengths.sum())
