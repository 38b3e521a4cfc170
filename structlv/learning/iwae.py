"""Maximise the importance-weighted bound: importance-weighted autoencoders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.elbo import EvidenceLowerBound
from structlv.learning.importance import importance_bound
from structlv.learning.objective import SequenceObjective


class IWAE(SequenceObjective):
    """Maximise sum_n log 1/K sum_k p(x_n, z_k) / q(z_k | x_n): the log of the mean weight of each item.

    Args: `model`, a ``LatentVariableModel``; `num_samples` K; `gradient`: "doubly" reparameterised, "plain",
    or "vimco" for discrete z, see ``importance_bound``; the others as `EvidenceLowerBound`, with its
    defaults. Validation reports the same bound. Cost: K times that of the ELBO. Source: Burda et al. 2016;
    Kim, Wiseman & Rush 2018, section 6.3.2.
    """

    defaults = EvidenceLowerBound.defaults

    def __init__(
        self, model: Any, *, num_samples: int = 8, gradient: str = "doubly", seed: int = 0, **options: Any
    ) -> None:
        super().__init__(model, seed=seed, **options)
        self.save_hyperparameters({"num_samples": num_samples, "gradient": gradient})
        self.num_samples, self.gradient = num_samples, gradient

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return importance_bound(
            self.model, batch.tokens, batch.lengths, num_samples=self.num_samples, gradient=self.gradient
        ), {}
