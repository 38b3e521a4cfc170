"""Numbers of a training, step by step: as CSV, and for TensorBoard; resuming leaves those of a whole run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from structlv._extras import require

HEAD = "step,name,value\n"


class StepLog(pl.Callback, ABC):
    """Hands on what an objective logs: train_* of every `every`-th step with the learning rate, val_* of each
    validation. A step's number is that of the steps done. Of several processes the first writes; train_* are
    of all.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every

    @abstractmethod
    def write(self, step: int, values: dict[str, float]) -> None:
        """Keep the values of a step, by name."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            values = self._found(trainer, "train_", mean=True)
            values["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
            self._write(trainer, values)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, self._found(trainer, "val_"))

    def _found(self, trainer: pl.Trainer, prefix: str, *, mean: bool = False) -> dict[str, float]:
        found = {name: v for name, v in trainer.callback_metrics.items() if name.startswith(prefix)}
        if mean and trainer.world_size > 1:  # one exchange for all
            together = torch.stack([v.double() for v in found.values()])
            found = dict(zip(found, trainer.strategy.reduce(together, reduce_op="mean"), strict=True))
        return {name: float(v) for name, v in found.items()}

    def _write(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        if trainer.is_global_zero:
            self.write(trainer.global_step, values)


class CsvLog(StepLog):
    """`path` with a line "step,name,value" for each number, values exact (`float(text)` gives them back).

    A checkpoint remembers how long the file was, and what was written after it is cut off when training goes
    on from there. Without a checkpoint the file starts anew.
    """

    def __init__(self, path: Path, every: int = 10) -> None:
        super().__init__(every)
        self.path, self.size = path, 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = self.path.read_bytes()[: self.size] if self.size and self.path.exists() else b""
            self.path.write_bytes(kept or HEAD.encode())

    def write(self, step: int, values: dict[str, float]) -> None:
        with open(self.path, "a", encoding="ascii", newline="\n") as file:
            file.writelines(f"{step},{name},{value!r}\n" for name, value in values.items())
            self.size = file.tell()

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.size = state_dict["size"]


class TensorBoardLog(StepLog):
    """The same for TensorBoard, in `folder`; what a resumed run writes takes the place of what it repeats.

    Raises MissingExtra without TensorBoard.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        require("tensorboard", "tensorboard")
        super().__init__(every)
        self.folder = folder
        self.writer: Any = None

    def write(self, step: int, values: dict[str, float]) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
