"""Ascent for each item, semi-amortised inference, and wake-sleep, on models whose posterior is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal, kl_divergence

from structlv.data import Batches
from structlv.learning import (
    SVI,
    EvidenceLowerBound,
    ReweightedWakeSleep,
    SemiAmortized,
    WakeSleep,
    fit,
    refine,
)
from structlv.learning.refine import detached, parameters_of, rebuilt, standard
from structlv.learning.wake_sleep import dreamt
from structlv.models import NeuralTopicModel, TextVAE, elbo_under
from tests.learning.latent_toys import LinearGaussian, SmallMixture, correlated, uncorrelated

ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def train(objective: Any, data: list[Tensor], folder: Path, epochs: int, batch: int = 64) -> Any:
    validation = Batches(data[:32], 16, shuffle=False)
    return fit(objective, Batches(data, batch), validation, folder=folder, epochs=epochs, progress=False)


# ---- ascent --------------------------------------------------------------------------------------------


def test_ascent_reaches_the_exact_posterior_of_each_item() -> None:
    model = uncorrelated()
    q = refine(standard(model.encode(ROWS)), model, ROWS, steps=300, lr=0.1, num_samples=128)
    mean, log_scale = parameters_of(q)
    assert (mean - model.posterior_mean(ROWS)).abs().max() < 0.03
    assert (2 * log_scale + model.precision().diagonal().log()).abs().max() < 0.08
    assert not mean.requires_grad
    exact = model.log_prob(ROWS)
    gap = exact - elbo_under(q, model, ROWS, num_samples=4000).bound
    assert gap.abs().max() < 0.1


def test_ascent_reaches_the_exact_posterior_of_a_mixture() -> None:
    model = SmallMixture()
    x = torch.arange(4).unsqueeze(-1)
    q = refine(standard(model.encode(x)), model, x, steps=400, lr=0.2)
    assert (kl_divergence(q, Categorical(logits=model.log_joint().T)) < 1e-4).all()


def test_of_a_correlated_gaussian_ascent_finds_the_conditional_variances() -> None:
    model = correlated()
    _, log_scale = parameters_of(refine(model.encode(ROWS), model, ROWS, steps=300, lr=0.1, num_samples=128))
    assert (2 * log_scale + model.precision().diagonal().log()).abs().max() < 0.08


def test_items_do_not_see_one_another() -> None:
    model = SmallMixture()
    x = torch.arange(4).unsqueeze(-1)
    together = refine(model.encode(x), model, x, steps=5)
    alone = refine(model.encode(x[2:3]), model, x[2:3], steps=5)
    assert torch.equal(together.logits[2], alone.logits[0])  # type: ignore[attr-defined]


def test_gradients_flow_through_the_steps_or_not() -> None:
    model = SmallMixture()
    x = torch.arange(4).unsqueeze(-1)
    q = refine(model.encode(x), model, x, steps=3, through=True)
    slopes = torch.autograd.grad(elbo_under(q, model, x).bound.sum(), [model.reader, model.table])
    assert all(bool((slope != 0).any()) for slope in slopes)
    fixed = refine(model.encode(x), model, x, steps=3)
    assert not parameters_of(fixed)[0].requires_grad
    (a,), (b,) = parameters_of(q), parameters_of(fixed)
    assert torch.equal(a, b)  # the same steps


def test_the_gradient_through_the_steps_is_the_derivative() -> None:
    model = SmallMixture()
    x = torch.arange(4).unsqueeze(-1)

    def refined(table: Tensor, reader: Tensor) -> Tensor:
        q = refine(Categorical(logits=reader), _With(model, table), x, steps=3, lr=0.3, through=True)
        return elbo_under(q, model, x).bound.sum()

    inputs = tuple(p.detach().clone().requires_grad_() for p in (model.table, model.reader))
    assert torch.autograd.gradcheck(refined, inputs)


@pytest.mark.parametrize(
    "q",
    [correlated().encode(ROWS), SmallMixture().encode(torch.tensor([[1]]))],
    ids=["normal", "categorical"],
)
def test_parameters_and_back(q: Any) -> None:
    again = rebuilt(q, parameters_of(q))
    assert kl_divergence(q, again).abs().max() < 1e-12
    assert not any(x.requires_grad for x in parameters_of(detached(q)))


def test_logistic_normals_climb_too_and_others_are_named() -> None:
    model = NeuralTopicModel(5, num_topics=3, encoder_dim=4)
    x, lengths = torch.tensor([[1, 2, 2], [3, 0, 0]]), torch.tensor([3, 1])
    start = standard(model.encode(x, lengths))
    q = refine(start, model, x, lengths, steps=60, num_samples=8)
    before, after = (elbo_under(d, model, x, lengths, num_samples=2000).bound for d in (start, q))
    assert bool((after > before).all())
    full = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(TypeError, match="found MultivariateNormal"):
        refine(full, model, x, lengths)
    with pytest.raises(ValueError, match="found -1 and"):
        refine(q, model, x, lengths, steps=-1)


class _With:
    """A mixture with another table."""

    def __init__(self, model: SmallMixture, table: Tensor) -> None:
        self.prior, self.table = model.prior, table

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        return self.table.log_softmax(-1)[z, x[:, 0].expand(z.shape)]


# ---- objectives ----------------------------------------------------------------------------------------


def rows(model: LinearGaussian, count: int) -> list[Tensor]:
    z = model.prior().sample((count,))
    return list(model.generate(z)[0])


def test_svi_learns_the_model_and_not_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    data = rows(uncorrelated(), 1024)
    model = LinearGaussian(0.3 * torch.randn(3, 2))
    reader = model.reader.weight.detach().clone()
    before = model.log_prob(torch.stack(data)).mean().item()
    trainer = train(
        SVI(model, lr=0.03, betas=(0.9, 0.99), inner_steps=15, inner_lr=0.3, inner_samples=4),
        data,
        tmp_path,
        5,
    )
    best = uncorrelated().log_prob(torch.stack(data)).mean().item()
    after = model.log_prob(torch.stack(data)).mean().item()
    assert after > before + 0.5 * (best - before)
    assert torch.equal(model.reader.weight, reader)
    assert float(trainer.callback_metrics["train_seconds_per_item"]) > 0
    assert 0 < float(trainer.callback_metrics["val_nats"]) < 5


@pytest.mark.parametrize("through", [True, False])
def test_semi_amortised_learning_teaches_the_encoder_as_well(through: bool, tmp_path: Path) -> None:
    data = rows(uncorrelated(), 1024)
    model = uncorrelated()
    model.weight.requires_grad_(False)
    x = torch.stack(data)

    def gap() -> float:
        """Of what three steps make of the encoder's q."""
        q = refine(model.encode(x), model, x, steps=3)
        return float((model.log_prob(x) - elbo_under(q, model, x, num_samples=200).bound).mean().detach())

    before = gap()
    objective = SemiAmortized(model, lr=0.03, betas=(0.9, 0.99), inner_steps=3, through=through)
    train(objective, data, tmp_path, 4)
    assert gap() < 0.5 * before


def test_semi_amortised_is_amortised_without_steps() -> None:
    model = TextVAE(4, latent=2, word_dim=3, dim=4, encoder_dim=3)
    batch = Batches([torch.tensor([1, 2]), torch.tensor([3])], 2).collate(torch.arange(2))
    objective = SemiAmortized(model, inner_steps=0).eval()
    torch.manual_seed(1)
    refined = objective.bound(batch)
    torch.manual_seed(1)
    assert torch.allclose(refined.bound, model.elbo(batch.tokens, batch.lengths).bound, atol=1e-5)


def spread(model: LinearGaussian) -> Tensor:
    return model.log_variance.detach().exp()


def test_sleep_finds_the_marginal_variances_and_the_elbo_the_conditional_ones(tmp_path: Path) -> None:
    """A diagonal q on a correlated posterior: Sigma_ii against 1 / Lambda_ii."""
    data = rows(correlated(), 2048)
    marginal = correlated().precision().inverse().diagonal()
    conditional = 1 / correlated().precision().diagonal()
    assert (marginal / conditional > 1.3).all()
    for kind, wanted in ((WakeSleep, marginal), (EvidenceLowerBound, conditional)):
        model = correlated()
        model.weight.requires_grad_(False)
        objective = kind(model, lr=0.03, betas=(0.9, 0.99), schedule="cosine")
        train(objective, data, tmp_path / kind.__name__, 10)
        assert (spread(model) / wanted - 1).abs().max() < 0.08, kind


def test_phases_of_wake_sleep_teach_one_side_each() -> None:
    model = correlated()
    batch = Batches(list(ROWS), 6).collate(torch.arange(6))
    objective = WakeSleep(model).train()
    (value, logged) = objective.nats(batch)
    dreams = dreamt(model, batch.lengths).sum()
    of_model, of_encoder = torch.autograd.grad(dreams, [model.weight, model.reader.weight], allow_unused=True)
    assert of_model is None
    assert bool((of_encoder != 0).any())
    (wake_of_encoder,) = torch.autograd.grad(
        logged["wake"], model.reader.weight, allow_unused=True, retain_graph=True
    )
    assert wake_of_encoder is None
    assert bool((torch.autograd.grad(value.sum(), model.weight)[0] != 0).any())


def test_reweighted_wake_sleep_fits_a_mixture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frequencies = torch.tensor([8, 4, 2, 2])
    data = [torch.tensor([v]) for v, n in enumerate(frequencies.tolist()) for _ in range(80 * n)]
    model = SmallMixture()
    objective = ReweightedWakeSleep(
        model, num_samples=8, sleep=0.5, lr=0.05, betas=(0.9, 0.99), schedule="cosine"
    )
    train(objective, data, tmp_path, 12)
    found = model.log_joint().logsumexp(0).exp().detach()
    assert (found - frequencies / 16).abs().max() < 0.03
    x = torch.arange(4).unsqueeze(-1)
    posterior = Categorical(logits=model.log_joint().T.detach())
    assert kl_divergence(posterior, model.encode(x)).max() < 0.05
    with pytest.raises(ValueError, match="at least 2, found 1"):
        ReweightedWakeSleep(model, num_samples=1)


def test_wake_sleep_runs_on_sentences(tmp_path: Path) -> None:
    data = [torch.tensor([1, 1, 1]), torch.tensor([2, 2])] * 8
    for model in (TextVAE(3, latent=2, word_dim=4, dim=8, encoder_dim=4), NeuralTopicModel(3, num_topics=2)):
        trainer = train(WakeSleep(model), data, tmp_path / type(model).__name__, 2, batch=8)
        assert float(trainer.callback_metrics["train_wake"]) < 0
        assert float(trainer.callback_metrics["train_sleep"]) == pytest.approx(
            float(trainer.callback_metrics["train_sleep"])
        )
