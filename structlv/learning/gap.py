"""The inference gap: how far an inference network is from the posterior, and why."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv.learning.evaluate import importance_log_likelihood
from structlv.learning.refine import refine
from structlv.models.latent import elbo_under


class InferenceGap(NamedTuple):
    """log p(x) - ELBO = KL(q || p(z | x)), in its two parts; (b) nats each.

    Attributes:
        log_likelihood: log p(x), estimated by importance sampling from the best q.
        best: ELBO of the best q of the family for each item, by ascent (of a flow, over its base alone).
        elbo: ELBO of the encoder's q.
    """

    log_likelihood: Tensor
    best: Tensor
    elbo: Tensor

    @property
    def approximation(self) -> Tensor:
        """What the family cannot express."""
        return self.log_likelihood - self.best

    @property
    def amortisation(self) -> Tensor:
        """What the encoder misses of the family's best."""
        return self.best - self.elbo

    @property
    def total(self) -> Tensor:
        """The inference gap."""
        return self.log_likelihood - self.elbo


def inference_gap(
    model: Any,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    num_samples: int = 1000,
    steps: int = 200,
    lr: float = 0.05,
    inner_samples: int = 8,
) -> InferenceGap:
    """How far the encoder's q is from p(z | x), for each item, and why.

    The best q is found by ``refine`` from the encoder's; log p(x) by ``num_samples`` importance samples from
    it, in the mean a lower bound, so that the approximation gap is one too (a single estimate may lie above);
    ELBOs by as many draws. Source:
    Cremer, Li & Duvenaud 2018; Kim, Wiseman & Rush 2018, section 6.3.3.
    """
    with torch.no_grad():
        q = model.encode(x, lengths)
    best = refine(q, model, x, lengths, steps=steps, lr=lr, num_samples=inner_samples)
    with torch.no_grad():
        of_best, of_q = (elbo_under(d, model, x, lengths, num_samples=num_samples).bound for d in (best, q))
        return InferenceGap(
            importance_log_likelihood(model, x, lengths, num_samples=num_samples, q=best), of_best, of_q
        )
