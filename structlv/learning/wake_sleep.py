"""Wake-sleep, reweighted or not: the model learns from data, the encoder from dreams or from weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from structlv.data.batches import Batch
from structlv.learning.elbo import EvidenceLowerBound
from structlv.learning.importance import carrying, log_joint, log_mean_exp, weighted_sum
from structlv.learning.objective import SequenceObjective


class WakeSleep(SequenceObjective):
    """Wake: maximise log p(x, z), x from the data and z from q(z | x). Sleep: maximise log q(z | x), both
    from p.

    All draws are detached, so the wake phase teaches the model alone and the sleep phase the encoder alone
    (what they share, both). The sleep phase minimises KL(p(z | x) || q(z | x)) on the model's own data: of a
    correlated Gaussian a diagonal q finds the marginal variances, where the ELBO finds the smaller
    conditional ones. Together they ascend no common objective. The q of the wake phase must not be 0 where
    p(z | x) is not, else the model's gradient is biased.

    Args: `model`, a ``Generative`` one; of those conditional on the length, dreams are as long as the batch's
    items. The others as `EvidenceLowerBound`, with its defaults. Logs train_wake and train_sleep, nats per
    symbol; validation reports the ELBO. Source: Hinton et al. 1995; Kim, Wiseman & Rush 2018, section 7.1.
    """

    defaults = EvidenceLowerBound.defaults

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        x, lengths = batch.tokens, batch.lengths
        if not self.training:
            return self.model.elbo(x, lengths=lengths).bound, {}
        wake = log_joint(self.model, x, lengths, self.model.encode(x, lengths).sample())
        sleep = dreamt(self.model, lengths)
        return wake + sleep, {"wake": wake.sum(), "sleep": sleep.sum()}


class ReweightedWakeSleep(SequenceObjective):
    """Wake with K weighted draws: maximise sum_k w_k log p(x, z_k) in the model, sum_k w_k log q(z_k | x) in
    the encoder, w_k proportional to p(x, z_k) / q(z_k | x), normalised and detached.

    z may be discrete: nothing is reparameterised. The model ascends the importance-weighted bound, which is
    what is reported; the encoder descends an estimate of KL(p(z | x) || q(z | x)), whose bias vanishes as K
    grows. q must not be 0 where p(z | x) is not.

    Args: `model`, a ``LatentVariableModel``; `num_samples` K, at least 2; `sleep`, the weight of a sleep
    phase for the encoder beside it (then the model must be ``Generative``). The others as
    `EvidenceLowerBound`, with its defaults. Source: Bornschein & Bengio 2015; Le et al. 2018, "Revisiting
    reweighted wake-sleep"; Kim, Wiseman & Rush 2018, section 7.1. Raises ValueError for too few samples.
    """

    defaults = EvidenceLowerBound.defaults

    def __init__(
        self, model: Any, *, num_samples: int = 8, sleep: float = 0.0, seed: int = 0, **options: Any
    ) -> None:
        if num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, found {num_samples}")
        super().__init__(model, seed=seed, **options)
        self.save_hyperparameters({"num_samples": num_samples, "sleep": sleep})
        self.num_samples, self.sleep = num_samples, sleep

    def nats(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        x, lengths = batch.tokens, batch.lengths
        q = self.model.encode(x, lengths)
        z = q.sample((self.num_samples,))
        joint, log_q = log_joint(self.model, x, lengths, z), q.log_prob(z)
        log_weight = (joint - log_q).detach()
        weight = log_weight.softmax(0)
        learning = weighted_sum(weight, joint) + weighted_sum(weight, log_q)
        if self.training and self.sleep:
            learning = learning + self.sleep * dreamt(self.model, lengths)
        return carrying(log_mean_exp(log_weight), learning), {}


def dreamt(model: Any, lengths: Tensor) -> Tensor:
    """log q(z | x) of pairs drawn from the model, (b) nats; as long as ``lengths`` where it asks for that."""
    z = model.prior().sample((len(lengths),))
    return model.encode(*model.generate(z, lengths)).log_prob(z)
