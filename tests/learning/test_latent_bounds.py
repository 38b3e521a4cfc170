"""The ELBO's options, importance weighting and its gradients, against models whose log p(x) is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from structlv.data import Batches
from structlv.learning import IWAE, EvidenceLowerBound, fit, importance_bound
from structlv.learning.elbo import thresholded
from structlv.learning.importance import log_joint, weighted_sum
from structlv.learning.schedules import Cyclical, Linear, Sigmoid
from structlv.models import Elbo, TextVAE, elbo_under
from tests.learning.latent_toys import LinearGaussian, SmallMixture, correlated, uncorrelated
from tests.tolerance import assert_nats, assert_probabilities

ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---- the bound -----------------------------------------------------------------------------------------


def test_elbo_plus_kl_is_log_p_of_a_mixture() -> None:
    model = SmallMixture()
    x = torch.arange(4).unsqueeze(-1)
    joint = model.log_joint().T
    gap = kl_divergence(model.encode(x), torch.distributions.Categorical(logits=joint))
    assert_nats(model.elbo(x).bound + gap, joint.logsumexp(-1))


def test_the_bound_of_a_gaussian_is_tight_at_its_posterior() -> None:
    model = uncorrelated()
    with torch.no_grad():
        model.reader.weight.copy_((model.weight @ model.precision().inverse() / model.variance).T)
        model.reader.bias.zero_()
        model.log_variance.copy_(-model.precision().diagonal().log())
    weights = importance_bound(model, ROWS, num_samples=1, gradient="plain")
    assert_nats(weights, model.log_prob(ROWS))  # every draw weighs the same
    many = elbo_under(model.encode(ROWS), model, ROWS, num_samples=20000).bound
    assert (many - model.log_prob(ROWS)).abs().max() < 0.1


def test_a_q_that_can_be_neither_enumerated_nor_reparameterised_is_named() -> None:
    q = torch.distributions.Poisson(torch.ones(6))
    with pytest.raises(ValueError, match="found Poisson"):
        elbo_under(q, correlated(), ROWS)


# ---- beta and free bits --------------------------------------------------------------------------------

PARTS = torch.tensor([[0.2, 3.0, 0.0], [0.4, 1.0, 0.2]])


def test_free_bits_threshold_the_mean_over_the_batch() -> None:
    elbo = Elbo(torch.zeros(2), PARTS.sum(-1), PARTS)
    assert thresholded(elbo, 0.5).tolist() == pytest.approx([0.5 + 2.0 + 0.5])
    assert thresholded(elbo, 0.15).tolist() == pytest.approx([0.3 + 2.0 + 0.15])
    assert float(thresholded(elbo, 0.15)) != pytest.approx(float(PARTS.clamp(min=0.15).sum(-1).mean()))
    assert torch.equal(thresholded(elbo, 0.0), elbo.kl)
    with pytest.raises(ValueError, match="kl_parts, found none"):
        thresholded(elbo._replace(kl_parts=None), 0.5)


class Fixed(nn.Module):
    """A bound with the parts above, an auxiliary term, and one parameter that the reconstruction likes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def elbo(self, x: Tensor, lengths: Tensor) -> Elbo:
        each = self.w - 5.0 + torch.zeros(2)
        return Elbo(each, PARTS.sum(-1), PARTS, torch.full((2,), -10.0))


def test_training_maximises_beta_and_free_bits_and_reports_the_bound(tmp_path: Path) -> None:
    data, validation = (Batches([torch.tensor([0, 0]), torch.tensor([1, 1])], 2) for _ in range(2))
    objective = EvidenceLowerBound(Fixed(), beta=Linear(1, start=0.25, end=9.0), free_bits=0.5, lr=1e-9)
    logged = fit(objective, data, validation, folder=tmp_path, epochs=1, progress=False).callback_metrics
    bound = -5.0 - float(PARTS.sum(-1).mean())
    assert float(logged["train_nats"]) == pytest.approx((5.0 + 0.25 * 3.0 + 10.0) / 2, abs=1e-5)
    assert float(logged["train_elbo"]) == pytest.approx(bound / 2, abs=1e-5)
    assert float(logged["train_reconstruction"]) == pytest.approx(-2.5, abs=1e-5)
    assert float(logged["val_nats"]) == pytest.approx(-bound / 2, abs=1e-5)


def test_beta_may_not_be_negative_bits() -> None:
    with pytest.raises(ValueError, match="at least 0 nats, found -1"):
        EvidenceLowerBound(Fixed(), free_bits=-1.0)


def test_schedules() -> None:
    line = Linear(10, delay=5)
    assert [line(s) for s in (0, 5, 10, 15, 99)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    logistic = Sigmoid(100, 10)
    assert logistic(100) == 0.5
    assert logistic(110) == pytest.approx(1 / (1 + math.exp(-1)))
    assert logistic(10**9) == 1.0
    cycle = Cyclical(100, ramp=0.5, end=0.8)
    assert [cycle(s) for s in (0, 25, 50, 99, 100, 125)] == pytest.approx([0, 0.4, 0.8, 0.8, 0, 0.4])


@pytest.mark.parametrize("make", [lambda: Linear(0), lambda: Sigmoid(1, 0), lambda: Cyclical(5, ramp=0)])
def test_schedules_refuse_nonsense(make: Any) -> None:
    with pytest.raises(ValueError, match="found"):
        make()


# ---- importance weighting ------------------------------------------------------------------------------


def repeated(x: Tensor, times: int) -> Tensor:
    return x.expand(times, -1)


def test_the_bound_rises_with_k_to_log_p() -> None:
    model = correlated()
    exact = model.log_prob(ROWS[:1]).item()
    found = [
        importance_bound(model, repeated(ROWS[:1], 40000 // k), num_samples=k, gradient="plain").mean().item()
        for k in (1, 4, 16, 64, 4000)
    ]
    assert all(a < b for a, b in itertools.pairwise(found))
    assert found[0] < exact - 0.5
    assert found[-1] == pytest.approx(exact, abs=0.02)


def test_one_sample_is_the_sampled_elbo_not_the_analytic_one() -> None:
    model = correlated()
    torch.manual_seed(3)
    bound = importance_bound(model, ROWS, num_samples=1)
    torch.manual_seed(3)
    q = model.encode(ROWS)
    z = q.rsample((1,))
    sampled = (log_joint(model, ROWS, None, z) - q.log_prob(z))[0]
    assert_nats(bound, sampled)
    analytic = model.log_likelihood(ROWS, None, z)[0] - kl_divergence(q, model.prior())
    assert (bound - analytic).abs().min() > 1e-3


def gradient(model: LinearGaussian, bound: Tensor) -> Tensor:
    slopes = torch.autograd.grad(bound.mean(), [model.reader.bias, model.log_variance, model.weight])
    return torch.cat([s.flatten() for s in slopes])


def with_plain_weights(model: LinearGaussian, x: Tensor, samples: int) -> Tensor:
    """The mistake: w in place of w^2 along the path."""
    q = model.encode(x)
    z = q.rsample((samples,))
    leaf = z.detach().requires_grad_()
    joint = log_joint(model, x, None, leaf)
    log_weight = joint - q.log_prob(leaf)
    weight = log_weight.detach().softmax(0)
    (slope,) = torch.autograd.grad(weighted_sum(weight, log_weight).sum(), leaf, retain_graph=True)
    return weighted_sum(weight, joint) + (slope * z).sum(-1).sum(0)


def test_the_doubly_reparameterised_gradient_is_unbiased_and_w_in_place_of_its_square_is_not() -> None:
    model, x = correlated(), repeated(ROWS[:1], 60000)
    plain = gradient(model, importance_bound(model, x, num_samples=4, gradient="plain"))
    doubly = gradient(model, importance_bound(model, x, num_samples=4))
    wrong = gradient(model, with_plain_weights(model, x, 4))
    scale = plain.abs().max()
    assert (doubly - plain).abs().max() < 0.02 * scale
    assert (wrong - plain)[:4].abs().max() > 0.1 * scale
    assert (wrong - plain)[4:].abs().max() < 0.02 * scale  # the model's own gradient has w in both


def test_the_doubly_reparameterised_gradient_has_less_noise() -> None:
    model = correlated()

    def spread(kind: str) -> float:
        runs = [
            gradient(model, importance_bound(model, ROWS[:1], num_samples=64, gradient=kind))[:4]
            for _ in range(100)
        ]
        return float(torch.stack(runs).std(0).max())

    assert spread("doubly") < 0.6 * spread("plain")


def test_vimco_has_the_exact_gradient_of_the_bound_in_the_mean() -> None:
    """K = 2 over a mixture: the expectation is a sum over 9 pairs."""
    model = SmallMixture()
    x = torch.tensor([[1]])
    q = model.encode(x)
    weight = (model.log_joint()[:, 1] - q.logits[0]).exp()
    pairs = 0.5 * (weight[:, None] + weight[None])
    exact_value = (q.probs[0][:, None] * q.probs[0][None] * pairs.log()).sum()
    exact = torch.autograd.grad(exact_value, [model.reader, model.table, model.first])
    many = repeated(x, 200000)
    bound = importance_bound(model, many, num_samples=2, gradient="vimco").mean()
    found = torch.autograd.grad(bound, [model.reader, model.table, model.first])
    assert float(bound.detach()) == pytest.approx(float(exact_value.detach()), abs=0.01)
    for a, b in zip(found, exact, strict=True):
        assert (a - b).abs().max() < 0.01


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"num_samples": 2, "gradient": "triply"}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        importance_bound(correlated(), ROWS, **options)
    with pytest.raises(ValueError, match="take 'vimco'"):
        importance_bound(SmallMixture(), torch.tensor([[1]]), num_samples=2)


def test_doubly_reparameterised_where_encoder_and_decoder_share_a_parameter() -> None:
    """Both paths reach it: the gradient is the plain one's in the mean."""

    class Shared(LinearGaussian):
        def encode(self, x: Tensor, lengths: Tensor | None = None) -> Any:
            from structlv.models.families import diagonal_gaussian

            mean = x @ self.weight
            return diagonal_gaussian(mean, self.log_variance.expand_as(mean))

    model, x = Shared(correlated().weight.detach()), repeated(ROWS[:1], 40000)
    plain, doubly = (
        torch.autograd.grad(importance_bound(model, x, num_samples=3, gradient=g).mean(), model.weight)[0]
        for g in ("plain", "doubly")
    )
    assert_probabilities(doubly / 50, plain / 50, dtype=torch.bfloat16)
    assert (doubly - plain).abs().max() < 0.02 * plain.abs().max()


@pytest.mark.parametrize("gradient_kind", ["doubly", "plain"])
def test_iwae_trains_a_text_vae(gradient_kind: str, tmp_path: Path) -> None:
    data = [torch.tensor([1, 1, 1]), torch.tensor([2, 2])] * 8
    model = TextVAE(3, latent=2, word_dim=4, dim=8, encoder_dim=4)
    objective = IWAE(model, num_samples=3, gradient=gradient_kind, lr=0.02)
    validation = Batches(data, 8, shuffle=False)
    before = importance_bound(model, *validation.collate(torch.arange(16))[:2], num_samples=3).mean().item()
    trainer = fit(objective, Batches(data, 8), validation, folder=tmp_path, epochs=8, progress=False)
    assert float(trainer.callback_metrics["val_nats"]) * 3.5 < -before - 1.0


# ---- support -------------------------------------------------------------------------------------------


def test_where_q_is_zero_and_p_is_not_importance_sampling_misses_a_part() -> None:
    """Its weights then add up to what q reaches: the docstrings say so."""
    model = SmallMixture(states=2)
    with torch.no_grad():
        model.reader[1, 1] = -torch.inf
    x = torch.tensor([[1]])
    bound = importance_bound(model, x, num_samples=5, gradient="vimco")
    assert_nats(bound, model.log_joint()[0, 1:2])
    assert bool((bound < model.log_joint()[:, 1].logsumexp(0) - 0.05).all())
    bound.sum().backward()
    assert model.table.grad is not None
    assert not model.table.grad.isnan().any()


def test_where_p_is_zero_and_q_is_not_the_elbo_is_minus_infinity() -> None:
    model = SmallMixture(states=2)
    with torch.no_grad():
        model.table[1, 1] = -torch.inf
    x = torch.tensor([[1]])
    assert model.elbo(x).bound.item() == -torch.inf
    with torch.no_grad():
        model.reader[1, 1] = -torch.inf
    bound = model.elbo(x).bound
    assert_nats(bound, model.log_joint()[0, 1:2])
    bound.sum().backward()
    assert not any(p.grad.isnan().any() for p in model.parameters() if p.grad is not None)
    found = importance_bound(model, x, num_samples=3, gradient="vimco")
    assert_nats(found, model.log_joint()[0, 1:2])
