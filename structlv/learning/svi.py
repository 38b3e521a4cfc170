"""Objectives whose posteriors are found for each item by ascent, alone or after an inference network."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor
from torch.distributions import kl_divergence

from structlv.data.batches import Batch
from structlv.learning.elbo import EvidenceLowerBound
from structlv.learning.importance import carrying
from structlv.learning.refine import detached, refine, standard
from structlv.models import Elbo, elbo_under


class SVI(EvidenceLowerBound):
    """Maximise the ELBO in the model's parameters, with q(z; lambda_n) found anew for each item by ascent.

    For each item lambda starts at N(0, I) (or the uniform categorical), climbs ``inner_steps`` of ``refine``
    and is detached: the encoder only tells the family and learns nothing. With many inner steps this is
    variational EM, the M-step one step of gradient. (It is the tutorial's SVI, not the natural-gradient
    scheme of Hoffman et al. 2013.) Also logs train_seconds_per_item, of inference.

    Args: `model`, a ``LatentVariableModel``; `inner_steps`, `inner_lr`, `inner_samples` of ``refine``; the
    others as `EvidenceLowerBound`. Validation infers in the same way. Source: Kim, Wiseman & Rush 2018,
    section 5.3.
    """

    def __init__(
        self,
        model: Any,
        *,
        inner_steps: int = 20,
        inner_lr: float = 0.1,
        inner_samples: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, seed=seed, **options)
        inner = {"steps": inner_steps, "lr": inner_lr, "num_samples": inner_samples}
        self.save_hyperparameters({f"inner_{name}": value for name, value in inner.items()})
        self.inner: dict[str, Any] = inner

    def bound(self, batch: Batch) -> Elbo:
        begun = time.perf_counter()
        start = standard(self.model.encode(batch.tokens, batch.lengths))
        q = refine(start, self.model, batch.tokens, batch.lengths, **self.inner)
        self.spent(time.perf_counter() - begun, len(batch.lengths))
        return elbo_under(q, self.model, batch.tokens, batch.lengths)

    def spent(self, seconds: float, items: int) -> None:
        """Log what inference took."""
        if self.training:
            self.log("train_seconds_per_item", seconds / items, batch_size=items)


class SemiAmortized(SVI):
    """Maximise the ELBO at lambda_K, which the encoder's lambda_0 becomes after K steps of ascent.

    With `through` (the published method) gradients flow through the inner steps, so that encoder and model
    learn for what the steps make of their output. Without, lambda_K is a constant for the model's step, and
    the encoder learns to predict it, by -KL(q(lambda_0) || q(lambda_K)): cheaper, and biased.

    Args: `through`; the others as `SVI`. Source: Kim et al. 2018, "Semi-amortized variational autoencoders",
    section 3; Kim, Wiseman & Rush 2018, section 6.3.3.
    """

    def __init__(
        self, model: Any, *, inner_steps: int = 5, through: bool = True, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(model, inner_steps=inner_steps, seed=seed, **options)
        self.save_hyperparameters({"through": through})
        self.through = through

    def bound(self, batch: Batch) -> Elbo:
        x, lengths = batch.tokens, batch.lengths
        q = self.model.encode(x, lengths)
        begun = time.perf_counter()
        refined = refine(q, self.model, x, lengths, through=self.through and self.training, **self.inner)
        self.spent(time.perf_counter() - begun, len(lengths))
        elbo = elbo_under(refined, self.model, x, lengths)
        if self.through or not self.training:
            return elbo
        toward: Tensor = -kl_divergence(q, detached(refined))
        return elbo._replace(auxiliary=carrying(toward.new_zeros(()), toward))
