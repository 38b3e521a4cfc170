"""Maximise the exact log marginal likelihood by gradient."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.objective import SequenceObjective


class Likelihood(Protocol):
    """What the objective asks of a model, which is an nn.Module too."""

    def log_prob(self, x: Tensor, lengths: Tensor) -> Tensor:
        """log p of each sequence (b), in nats."""


class MarginalLikelihood(SequenceObjective):
    """Maximise sum_n log p(x_n), the latent structure summed out exactly.

    Args: `model` with log_prob(tokens (b,n), lengths=(b)) -> (b) in nats; the others as
    `SequenceObjective`. Source: Kim, Wiseman & Rush 2018, section 5.1.
    """

    def __init__(
        self,
        model: Likelihood,
        *,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        schedule: str = "cosine",
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            warmup=warmup,
            schedule=schedule,
            seed=seed,
        )

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.log_prob(batch.tokens, lengths=batch.lengths), {}
