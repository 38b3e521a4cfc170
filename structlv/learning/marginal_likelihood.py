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

    Args: `model`, a `Likelihood`; the others as `SequenceObjective`, with its defaults. Source: Kim, Wiseman
    & Rush 2018, section 5.1.
    """

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.log_prob(batch.tokens, lengths=batch.lengths), {}
