"""Maximise a lower bound of the log likelihood: amortised variational inference."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.objective import SequenceObjective
from structlv.learning.schedules import Schedule
from structlv.models import Elbo


class Bounded(Protocol):
    """What the objective asks of a model, which is an nn.Module too."""

    def elbo(self, x: Tensor, lengths: Tensor) -> Elbo:
        """Reconstruction and KL of each sequence, (b) each, in nats."""


class EvidenceLowerBound(SequenceObjective):
    """Maximise sum_n E_q(z|x_n)[log p(x_n | z)] - KL(q(z | x_n) || p(z)), by reparameterised draws.

    Args: `model`, a `Bounded`; `beta`, the weight of the KL in training, a number or a function of the step
    (``structlv.learning.schedules``); `free_bits` lambda in nats, for each dimension (or group) of z: in
    training the KL is then sum_j max(lambda, mean over the process's batch of KL_j); the others as
    `SequenceObjective`, by default lr 1e-3, betas (0.75, 0.999) and a constant rate without warm-up, those of
    Kim, Dyer & Rush (2019, appendix A.2).

    Also logs, in nats per symbol, train_elbo, train_kl and train_reconstruction, of the bound itself, which
    knows neither beta nor free bits nor auxiliary terms; they all are in train_nats. So is the perplexity of
    validation data: an upper bound of the model's. Source: Kingma & Welling 2014; free bits: Kingma et al.
    2016, appendix C.8; Kim, Wiseman & Rush 2018, sections 6.2 and 6.2.2.

    Raises:
        ValueError: free_bits are negative; in training, free bits and a model whose KL does not split.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "lr": 1e-3,
        "betas": (0.75, 0.999),
        "warmup": 0.0,
        "schedule": "constant",
    }

    def __init__(
        self,
        model: Any,
        *,
        beta: float | Schedule = 1.0,
        free_bits: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if free_bits < 0:
            raise ValueError(f"free_bits must be at least 0 nats, found {free_bits}")
        super().__init__(model, seed=seed, **options)
        self.save_hyperparameters({"beta": repr(beta), "free_bits": free_bits})
        self.beta, self.free_bits = beta, free_bits

    def bound(self, batch: Batch) -> Elbo:
        """The bound of each sequence."""
        return self.model.elbo(batch.tokens, lengths=batch.lengths)

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        elbo = self.bound(batch)
        logged = {"kl": elbo.kl, "reconstruction": elbo.reconstruction, "elbo": elbo.bound}
        value = self.maximised(elbo) if self.training else elbo.bound
        return value, {name: nats.sum() for name, nats in logged.items()}

    def maximised(self, elbo: Elbo) -> Tensor:
        """What training maximises in place of the bound, (b): its KL weighted and thresholded."""
        beta = self.beta(self.trainer.global_step) if callable(self.beta) else self.beta
        value = elbo.reconstruction - beta * thresholded(elbo, self.free_bits)
        return value if elbo.auxiliary is None else value + elbo.auxiliary


def thresholded(elbo: Elbo, free_bits: float) -> Tensor:
    """The KL (b), or with free bits its sum_j max(free_bits, mean over the batch of KL_j), (1).

    Raises ValueError where there are free bits and the KL does not split into parts.
    """
    if free_bits == 0:
        return elbo.kl
    if elbo.kl_parts is None:
        raise ValueError(
            "free bits need the KL of each dimension: expected an Elbo with kl_parts, found none "
            "(a prior and a posterior that are products over dimensions have them)"
        )
    return elbo.kl_parts.mean(0, keepdim=True).clamp(min=free_bits).sum(-1)
