"""What a latent-variable model is worth: bounds and estimates of log p(x), and whether z says anything of x.

Everything is in nats, and without gradient. Kim, Wiseman & Rush 2018, section 6.2.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from structlv.data.batches import Batch
from structlv.learning.importance import log_joint, log_mean_exp

PAIRS = 1 << 20  # densities formed at a time


class MutualInformation(NamedTuple):
    """I = mean KL(q(z | x_n) || p) - KL(q_agg || p), in nats.

    Attributes:
        value: of I; at most ``ceiling`` by construction.
        mean_kl: mean over items of KL(q(z | x_n) || p).
        aggregate_kl: KL(q_agg || p), q_agg the mean of the items' posteriors.
        items: N.
        ceiling: log N, the most that N items can show.
    """

    value: float
    mean_kl: float
    aggregate_kl: float
    items: int
    ceiling: float


class SwappedReconstruction(NamedTuple):
    """log p(x | z) per item with its own z, and with that of another item of the batch: nats, means."""

    own: float
    swapped: float

    @property
    def gap(self) -> float:
        """What z tells of its own item: about 0 where the decoder ignores z."""
        return self.own - self.swapped


@dataclass(frozen=True)
class Evaluation:
    """Means over items, in nats per item unless it says otherwise; see ``evaluate``.

    Attributes:
        items, symbols: how many; ``scores_end``: whether ends of sentences are symbols, and scored.
        elbo, reconstruction, kl: elbo = reconstruction - kl.
        log_likelihood: importance-weighted with ``num_samples`` draws, in the mean a lower bound.
        perplexity: exp(-log_likelihood of all / symbols): in the mean an upper bound.
        active_units: dimensions whose posterior mean varies over items by more than 0.01; None for a z that
            is no vector.
        mutual_information: over the first ``mutual_information.items`` items.
        swapped: reconstruction with the z of another item.
        The last three are None for structured z, where another length means another z.
    """

    items: int
    symbols: int
    scores_end: bool
    num_samples: int
    elbo: float
    reconstruction: float
    kl: float
    log_likelihood: float
    perplexity: float
    active_units: int | None
    mutual_information: MutualInformation | None
    swapped: SwappedReconstruction | None


@torch.no_grad()
def evaluate(
    model: Any, batches: Iterable[Batch], *, num_samples: int = 100, information_items: int = 1000
) -> Evaluation:
    """All of it on some data, the model in evaluation mode (put back afterwards).

    Args: `model`, a ``LatentVariableModel``; `batches` of at least two items each; `num_samples` of the
    importance-weighted log-likelihood; `information_items`: the mutual information is that of about so many
    items (evenly spaced batches; its cost is quadratic). Cost: ``num_samples`` likelihoods of each item.
    Raises ValueError where there is no batch, or one has a single item.
    """
    was = model.training
    model.eval()
    ends = bool(getattr(model, "scores_end", False))
    structured = hasattr(model, "prior_for")
    rows, posteriors, symbols = [], [], 0
    for x, lengths, _ in batches:
        elbo, q = model.elbo(x, lengths), model.encode(x, lengths)
        weighted = importance_log_likelihood(model, x, lengths, num_samples=num_samples, q=q)
        found = [elbo.reconstruction, elbo.kl, weighted]
        if not structured:
            found += swapped_reconstruction(model, x, lengths)
            posteriors.append(q)
        rows.append(torch.stack(found).double())
        symbols += int(lengths.sum()) + ends * len(x)
    model.train(was)
    if not rows:
        raise ValueError("expected at least one batch, found none")
    numbers = torch.cat(rows, -1)
    items = numbers.shape[-1]
    reconstruction, kl, weighted_mean, *both = numbers.mean(-1).tolist()
    stride = max(1, -(-items // information_items))
    return Evaluation(
        items=items,
        symbols=symbols,
        scores_end=ends,
        num_samples=num_samples,
        elbo=reconstruction - kl,
        reconstruction=reconstruction,
        kl=kl,
        log_likelihood=weighted_mean,
        perplexity=math.exp(-weighted_mean * items / symbols),
        active_units=None if structured else active_units(posteriors),
        mutual_information=None if structured else mutual_information(posteriors[::stride], model.prior()),
        swapped=None if structured else SwappedReconstruction(*both),
    )


@torch.no_grad()
def importance_log_likelihood(
    model: Any,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    num_samples: int = 100,
    q: Distribution | None = None,
    chunk: int = 10,
) -> Tensor:
    """log 1/K sum_k p(x, z_k) / q(z_k | x), (b) nats: K draws, ``chunk`` of them at a time.

    In the mean a lower bound of log p(x) that tightens with K; q, the encoder's by default, may be another,
    and must not be 0 where p(x, z) is not.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, found {num_samples}")
    q = model.encode(x, lengths) if q is None else q
    weights = []
    for done in range(0, num_samples, chunk):
        z = q.sample((min(chunk, num_samples - done),))
        weights.append(log_joint(model, x, lengths, z) - q.log_prob(z))
    return log_mean_exp(torch.cat(weights))


@torch.no_grad()
def mutual_information(
    posteriors: Sequence[Distribution], prior: Distribution, *, num_samples: int = 1
) -> MutualInformation:
    """I(x; z) under q, from posteriors q(z | x_n) (of several batches), and draws of each.

    log q_agg(z) = logsumexp_m log q(z | x_m) - log N, over all N items. Both KLs are means over the same
    draws, so that log p(z) cancels from the value, which cannot exceed log N. Cost: N^2 ``num_samples``
    densities. Source: Hoffman & Johnson 2016, "ELBO surgery".
    """
    draws = [q.sample((num_samples,)) for q in posteriors]
    own = torch.cat([q.log_prob(z).flatten() for q, z in zip(posteriors, draws, strict=True)]).double()
    event = len(posteriors[0].event_shape)
    z = torch.cat([d.flatten(0, 1) for d in draws]).unsqueeze(1)  # (N s, 1, *event)
    items = sum(q.batch_shape[0] for q in posteriors)
    pieces = z.split(max(1, PAIRS // items))
    aggregate = torch.cat(
        [torch.cat([q.log_prob(piece) for q in posteriors], 1).double().logsumexp(1) for piece in pieces]
    ) - math.log(items)
    of_prior = prior.log_prob(z.flatten(0, 1) if event else z.squeeze(1)).double()
    mean_kl, aggregate_kl = float((own - of_prior).mean()), float((aggregate - of_prior).mean())
    return MutualInformation(mean_kl - aggregate_kl, mean_kl, aggregate_kl, items, math.log(items))


@torch.no_grad()
def active_units(posteriors: Sequence[Distribution], threshold: float = 0.01) -> int | None:
    """How many dimensions j have a variance over items of E_q(z_j | x_n) above the threshold.

    Of a transformed Gaussian the dimensions are the Gaussian's. None where z is no vector. Source: Burda,
    Grosse & Salakhutdinov 2016, section 5.2.
    """
    if len(posteriors[0].event_shape) != 1:
        return None
    means = torch.cat([posterior_mean(q) for q in posteriors])
    return int((means.var(0) > threshold).sum())


def posterior_mean(q: Distribution) -> Tensor:
    """E_q[z], (b, d); of a transformed Gaussian the Gaussian's; by 100 draws where torch knows none."""
    while isinstance(q, TransformedDistribution):
        q = q.base_dist
    try:
        return q.mean
    except NotImplementedError:
        return q.sample((100,)).mean(0)


@torch.no_grad()
def swapped_reconstruction(model: Any, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """log p(x_n | z) with z from q(z | x_n), and with z from q(z | x_m), m the item before: (b) nats each.

    Raises ValueError where there is no other item.
    """
    if len(x) < 2:
        raise ValueError(f"expected a batch of at least 2 items, to swap their z, found {len(x)}")
    z = model.encode(x, lengths).sample()
    both = model.log_likelihood(x, lengths, torch.stack([z, z.roll(1, 0)]))
    return both[0], both[1]
