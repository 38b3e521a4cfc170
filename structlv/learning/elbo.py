"""Maximise a lower bound of the log likelihood: amortised variational inference."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.objective import SequenceObjective
from structlv.models import Elbo


class Bounded(Protocol):
    """What the objective asks of a model, which is an nn.Module too."""

    def elbo(self, x: Tensor, lengths: Tensor) -> Elbo:
        """Reconstruction and KL of each sequence, (b) each, in nats."""


class EvidenceLowerBound(SequenceObjective):
    """Maximise sum_n E_q(z|x_n)[log p(x_n | z)] - KL(q(z | x_n) || p(z)), by reparameterised draws.

    Args: `model`, a `Bounded`; the others as `SequenceObjective`, by default lr 1e-3, betas (0.75, 0.999) and
    a constant rate without warm-up, those of Kim, Dyer & Rush (2019, appendix A.2). Also logs train_kl (nats
    per symbol); the perplexity of validation data is an upper bound. Source: Kingma & Welling 2014; Kim,
    Wiseman & Rush 2018, section 6.2.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "lr": 1e-3,
        "betas": (0.75, 0.999),
        "warmup": 0.0,
        "schedule": "constant",
    }

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        elbo = self.model.elbo(batch.tokens, lengths=batch.lengths)
        return elbo.bound, {"kl": elbo.kl.sum()}
