"""Maximise the exact log marginal likelihood by gradient."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.training import ExactResume


class Likelihood(Protocol):
    """What the objective asks of a model, which is an nn.Module too."""

    def log_prob(self, x: Tensor, lengths: Tensor) -> Tensor:
        """log p of each sequence (b), in nats."""


class MarginalLikelihood(ExactResume):
    """Maximise sum_n log p(x_n), the latent structure summed out exactly, with AdamW.

    The loss of a batch is -sum_n log p(x_n) / (number of symbols), in nats per symbol; the end of a sentence
    is a symbol where the model scores it (`model.scores_end`). The learning rate rises linearly over the
    first `warmup` of the steps and falls to zero along a half cosine. A sentence of probability zero raises
    ValueError: its gradient is zero, so training would never mend it.

    Args: `model` with log_prob(tokens (b,n), lengths=(b)) -> (b) in nats. Logs train_nats, and on validation
    data val_nats and val_perplexity (weighted by symbols). Source: Kim, Wiseman & Rush 2018, section 5.1.
    """

    def __init__(
        self,
        model: Likelihood,
        *,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.save_hyperparameters(
            {"lr": lr, "betas": list(betas), "weight_decay": weight_decay, "warmup": warmup, "seed": seed}
        )
        self.model: Any = model
        self._validation = [0.0, 0]

    def symbols(self, lengths: Tensor) -> int:
        """Symbols in sequences of these lengths: tokens, and ends where the model scores them."""
        return int(lengths.sum()) + len(lengths) * bool(getattr(self.model, "scores_end", False))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        log_prob = self.model.log_prob(batch.tokens, lengths=batch.lengths)
        # Lightning averages gradients over processes: times their number, each is its part of the whole
        # batch's
        loss = -log_prob.sum() * self.trainer.world_size / self.symbols(batch.all_lengths)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of step {self.trainer.global_step} is {loss.item()}; a smaller lr may help"
            )
        self.log("train_nats", loss.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation = [0.0, 0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        log_prob = self.model.log_prob(batch.tokens, lengths=batch.lengths)
        self._validation[0] -= float(log_prob.double().sum())
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
            fused=True,  # on a CPU several times faster for large vocabularies
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: _warmup_cosine(step, steps, h["warmup"])
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _warmup_cosine(step: int, steps: int, warmup: float) -> float:
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))
