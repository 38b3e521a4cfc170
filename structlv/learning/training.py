"""Training that can be interrupted anywhere and resumed to the same result, for every objective.

What makes it exact: (1) the data order is a function of (seed, epoch) (`structlv.data.Batches`), and the
place in it is Lightning's own batch counter, asked for when the first batch of an epoch is drawn, never a
second counter that could disagree; (2) random numbers are reseeded before each step from (seed, step); (3) a
checkpoint remembers the number of processes, the seed and a fingerprint of the data, and refuses others; (4)
checkpoints are flushed to disk and renamed into place; (5) hyper-parameters are plain, so a checkpoint loads
with `weights_only=True`.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from pytorch_lightning.strategies import DDPStrategy

from structlv.learning import torchrun
from structlv.learning.checkpoints import refuse_difference, save_atomically
from structlv.learning.early_stopping import StopEarly
from structlv.learning.logs import CsvLog, TensorBoardLog

KEY = "structlv"
LAST = "last.ckpt"
LOG = "log.csv"


class ExactResume(pl.LightningModule):
    """Base of the objectives: a Lightning module that resumes to the result of an uninterrupted run.

    Works with any Trainer (give it `use_distributed_sampler=False`); `fit` below sets one up. The training
    data must be a `structlv.data.Batches`, or any iterable with its `follow` and
    `fingerprint`. Seeds torch's, numpy's and Python's generators of the process at every step.
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._resumed: dict[str, Any] = {}

    def on_train_start(self) -> None:
        """Hand the loader Lightning's counters: they are right after every kind of restart."""
        loader: Any = self.trainer.train_dataloader
        if not hasattr(loader, "follow"):
            raise TypeError(f"training data must be a structlv.data.Batches, found {type(loader).__name__}")
        if self._resumed:
            refuse_difference(self._resumed, {"data": loader.fingerprint()})
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        loader.follow(lambda: (self.trainer.current_epoch, batches.current.ready))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._reseed()

    def on_validation_start(self) -> None:
        self._reseed()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        loader: Any = self.trainer.train_dataloader
        checkpoint[KEY] = {**self._identity(), "data": loader.fingerprint()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint was written under another seed or number of processes."""
        if KEY not in checkpoint:
            raise ValueError("this checkpoint was not written by a structlv objective")
        if self._trainer is not None:  # else only the weights are read, outside of training
            self._resumed = checkpoint[KEY]
            refuse_difference(self._resumed, self._identity())

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "world_size": self.trainer.world_size}

    def _reseed(self) -> None:
        entropy = (self.seed, self.trainer.global_step, self.trainer.global_rank)
        word = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        torch.manual_seed(word & (2**63 - 1))
        np.random.seed(word & 0xFFFFFFFF)  # noqa: NPY002  # the global generator is what others' code draws from
        random.seed(word)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the place, flushes to disk, renames: a kill or a power cut leaves the old checkpoint."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        save_atomically(checkpoint, Path(path))


def fit(
    objective: ExactResume,
    train: Any,
    validation: Any = None,
    *,
    folder: str | Path,
    epochs: int,
    checkpoint_every: int = 100,
    log_every: int | None = 10,
    tensorboard: bool = False,
    patience: int | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    timeout: float = 600.0,
    **trainer: Any,
) -> pl.Trainer:
    """Train `objective` for `epochs` in all, resuming from `folder`/last.ckpt where there is one.

    A checkpoint is written every `checkpoint_every` steps and at the end of each epoch. Every `log_every`
    steps (None: never) what the objective logs goes to `folder`/log.csv, with `tensorboard` to
    `folder`/tensorboard as well. With `patience` training ends after that many epochs without a better
    val_nats, and the objective gets the best weights, even where `epochs` ended it. Further keywords go to
    pl.Trainer (devices, precision, gradient_clip_val, ...). With `devices=2` or more each process takes
    its part of every batch (DDP, over gloo on CPUs), gradients are those of one process, and a process that
    waits for another for more than `timeout` seconds fails; under torchrun `devices` are its processes.
    Returns the trainer. Raises ValueError where the checkpoint is damaged or belongs to another run, or
    `validation` is `train`; MissingExtra without TensorBoard; KeyboardInterrupt on Ctrl-C (the last
    checkpoint stays).
    """
    if validation is train:
        raise ValueError("validation must be another Batches than train, which follows the training")
    last = Path(folder) / LAST
    logs: list[Callback] = [] if log_every is None else [CsvLog(Path(folder) / LOG, log_every)]
    if tensorboard:
        logs.append(TensorBoardLog(Path(folder) / "tensorboard", log_every or 10))
    stop = None if patience is None else StopEarly(patience)
    if stop is not None:
        logs.append(stop)
    options: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        **torchrun.processes(),
        "logger": False,
        "enable_model_summary": False,
        "enable_progress_bar": progress,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "plugins": [AtomicCheckpointIO()],
        "callbacks": [*logs, LastCheckpoint(last, checkpoint_every), *callbacks],
    }
    options |= trainer
    if (options["devices"] != 1 or options["num_nodes"] != 1) and "strategy" not in trainer:
        backend = "gloo" if options["accelerator"] == "cpu" else None
        limit = timedelta(seconds=timeout)  # else a stopped process is waited for for half an hour
        if backend is not None:
            torchrun.join(backend, limit)
        options["strategy"] = DDPStrategy(process_group_backend=backend, timeout=limit)
    if progress and not any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks):
        options["callbacks"].append(RichProgressBar(leave=False))
    run = pl.Trainer(**options)
    resume = _resumable(last, train)
    with _keyboard_interrupt_raises(run), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")  # `validation=None` says so
        run.fit(objective, train, validation, ckpt_path=resume, weights_only=True)
    if stop is not None:
        stop.restore(objective)
    return run


class LastCheckpoint(Checkpoint):
    """Writes one checkpoint over and over: every `every` steps and at the end of each epoch.

    Where validation follows a step it is waited for, since Lightning does not make up for it on resuming.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        validates = trainer.enable_validation and (batch_idx + 1) % (trainer.val_check_batch or 1) == 0
        if not validates:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


@contextmanager
def _keyboard_interrupt_raises(run: pl.Trainer) -> Iterator[None]:
    """Lightning answers Ctrl-C by ignoring SIGINT for good and leaving by SystemExit: undo both."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if run.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)


def _resumable(path: Path, train: Any) -> str | None:
    """The checkpoint to go on from, if there is one that can be read and belongs to this data."""
    if not path.exists():
        return None
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        stored = contents[KEY]
    except Exception as error:  # torch.load raises many kinds for a damaged file
        message = f"{path}: damaged, or not a checkpoint of structlv; remove it to start afresh"
        raise ValueError(message) from error
    if hasattr(train, "fingerprint"):
        refuse_difference(stored, {"data": train.fingerprint()})
    return str(path)
