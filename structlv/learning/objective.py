"""What every objective on whole sequences shares: nats per symbol, validation, the optimiser."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.training import ExactResume

SCHEDULES = ("cosine", "constant")


class SequenceObjective(ExactResume):
    """Maximise a sum over sequences of log p(x), or of a bound of it, with AdamW. Abstract.

    The loss of a batch is minus that sum / (number of symbols), in nats per symbol; the end of a sentence is
    a symbol where the model scores it (`model.scores_end`). A loss that is not finite raises ValueError: the
    gradient of a sentence of probability zero is zero, so training would never mend it.

    Args: `seed`; and as `options`, of which a subclass sets those it does not name here: `lr`; `betas`;
    `weight_decay`; `warmup`, the part of all steps in which the learning rate rises linearly; `schedule`:
    after it the rate falls to zero along a half cosine, or stays "constant". Raises TypeError for another
    option, ValueError for another schedule.
    Logs train_nats, and on validation data val_nats and val_perplexity (weighted by symbols).
    """

    defaults: ClassVar[dict[str, Any]] = {
        "lr": 1e-2,
        "betas": (0.9, 0.99),
        "weight_decay": 0.0,
        "warmup": 0.05,
        "schedule": "cosine",
    }

    def __init__(self, model: Any, *, seed: int = 0, **options: Any) -> None:
        unknown = [name for name in options if name not in SequenceObjective.defaults]
        if unknown:
            raise TypeError(f"expected options among {', '.join(self.defaults)}, found {', '.join(unknown)}")
        chosen = {**SequenceObjective.defaults, **self.defaults, **options}
        if chosen["schedule"] not in SCHEDULES:
            raise ValueError(f"schedule must be one of {SCHEDULES}, found {chosen['schedule']!r}")
        super().__init__(seed=seed)
        self.save_hyperparameters({**chosen, "betas": list(chosen["betas"]), "seed": seed})
        self.model: Any = model
        self._validation = [0.0, 0]

    @abstractmethod
    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is maximised, (b) nats of each sequence; and sums over the batch to be logged by name, which
        are shown per symbol."""

    def symbols(self, lengths: Tensor) -> int:
        """Symbols in sequences of these lengths: tokens, and ends where the model scores them."""
        return int(lengths.sum()) + len(lengths) * bool(getattr(self.model, "scores_end", False))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        value, logged = self.nats(batch)
        symbols = self.symbols(batch.all_lengths)
        # Lightning averages gradients over processes: times their number, each is its part of the whole
        # batch's
        loss = -value.sum() * self.trainer.world_size / symbols
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of step {self.trainer.global_step} is {loss.item()}; a smaller lr may help"
            )
        self.log("train_nats", loss.detach(), prog_bar=True, batch_size=len(batch.lengths))
        for name, total in logged.items():
            self.log(f"train_{name}", total.detach() / symbols, batch_size=len(batch.lengths))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation = [0.0, 0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._validation[0] -= float(self.nats(batch)[0].double().sum())
        self._validation[1] += self.symbols(batch.lengths)

    def on_validation_epoch_end(self) -> None:
        total, symbols = self.trainer.strategy.reduce(
            torch.tensor(self._validation, dtype=torch.float64), reduce_op="sum"
        ).tolist()
        nats = total / max(1.0, symbols)
        self.log("val_nats", nats)
        self.log("val_perplexity", math.exp(min(nats, 700.0)), prog_bar=True)

    def configure_optimizers(self) -> Any:
        h = self.hparams
        optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=h["lr"],
            betas=tuple(h["betas"]),
            weight_decay=h["weight_decay"],
            # on a CPU several times faster for large vocabularies; mixed, Lightning would not clip
            fused="mixed" not in str(self.trainer.precision),
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate(step, steps, h["warmup"], h["schedule"])
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate(step: int, steps: int, warmup: float, schedule: str) -> float:
    """The part of the highest learning rate that step number `step` of `steps` has."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))
