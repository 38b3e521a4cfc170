"""Evaluation of latent-variable models, against what is known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal

from structlv.data import Batches
from structlv.learning import (
    active_units,
    annealed_log_likelihood,
    evaluate,
    importance_log_likelihood,
    inference_gap,
    interpolate,
    mutual_information,
    nearest_neighbours,
    posterior_samples,
    prior_samples,
    swapped_reconstruction,
)
from structlv.models import MixtureOfRNNLM, NaiveBayes, NeuralTopicModel, TextVAE
from structlv.models.families import diagonal_gaussian
from tests.learning.latent_toys import SmallMixture, correlated, uncorrelated

ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gaussians(mean: Tensor, scale: float = 0.1) -> Independent:
    return Independent(Normal(mean, torch.full_like(mean, scale)), 1)


# ---- log p(x) ------------------------------------------------------------------------------------------


def test_importance_samples_find_log_p() -> None:
    model = correlated()
    torch.nn.init.zeros_(model.reader.weight)  # q is about the prior, which nowhere is too narrow
    found = importance_log_likelihood(model, ROWS, num_samples=20000, chunk=3000)
    assert (found - model.log_prob(ROWS)).abs().max() < 0.1
    mixture, x = SmallMixture(), torch.arange(4).unsqueeze(-1)
    found = importance_log_likelihood(mixture, x, num_samples=4000, chunk=4000)
    assert (found - mixture.log_joint().logsumexp(0)).abs().max() < 0.1
    with pytest.raises(ValueError, match="found 0"):
        importance_log_likelihood(model, ROWS, num_samples=0)


def test_annealed_importance_sampling_finds_the_evidence_without_q() -> None:
    model = correlated()
    model.variance = 0.03  # prior and posterior are far apart: draws from the prior alone fail
    x, _ = model.generate(torch.randn(6, 2, dtype=torch.float64) * 1.5)
    exact = model.log_prob(x)
    found = annealed_log_likelihood(model, x, chains=24, temperatures=250, leapfrog=4)
    assert (found.log_likelihood - exact).abs().max() < 0.35
    assert bool((found.acceptance > 0.5).all())
    with torch.inference_mode():
        few = annealed_log_likelihood(model, x.clone(), chains=24, temperatures=1)
    assert bool((few.log_likelihood < exact - 0.5).any())


def test_annealing_on_the_simplex_moves_the_gaussian() -> None:
    model = NeuralTopicModel(3, num_topics=2, encoder_dim=2).double()
    x, lengths = torch.tensor([[1, 1, 1, 2], [0, 0, 0, 0]]), torch.tensor([4, 3])
    y = torch.linspace(-9, 9, 4001, dtype=torch.float64).unsqueeze(-1)
    z = torch.nn.functional.pad(y, (0, 1)).softmax(-1).unsqueeze(1).expand(-1, 2, -1)
    joint = model.log_likelihood(x, lengths, z) + model.prior().base_dist.log_prob(y).unsqueeze(-1)
    exact = joint.logsumexp(0) + math.log(18 / 4000)
    found = annealed_log_likelihood(model, x, lengths, chains=32, temperatures=60)
    assert (found.log_likelihood - exact).abs().max() < 0.1


def test_annealing_refuses_other_z() -> None:
    with pytest.raises(ValueError, match="real vector, or a transform of one, found Categorical"):
        annealed_log_likelihood(NaiveBayes(2, 3), torch.tensor([[1]]))
    with pytest.raises(ValueError, match="found 0, 100"):
        annealed_log_likelihood(correlated(), ROWS, chains=0)


# ---- does z say anything of x? -------------------------------------------------------------------------


def test_mutual_information_of_posteriors_far_apart_is_log_n() -> None:
    apart = mutual_information([gaussians(torch.randn(8, 2) * 100)], gaussians(torch.zeros(2), 100.0))
    assert apart.value == pytest.approx(math.log(8), abs=1e-4)
    assert (apart.items, apart.ceiling) == (8, math.log(8))
    same = mutual_information([gaussians(torch.zeros(8, 2))], gaussians(torch.zeros(2), 1.0))
    assert same.value == pytest.approx(0.0, abs=1e-6)
    assert same.mean_kl > 3
    assert same.value == pytest.approx(same.mean_kl - same.aggregate_kl)


def test_mutual_information_of_a_channel_is_exact_in_the_mean_and_across_batches() -> None:
    """Two inputs, a binary z: I by enumeration."""
    q = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    average = q.mean(0)
    exact = float((q * (q / average).log()).sum(-1).mean())
    batches = [Categorical(q[:1]), Categorical(q[1:])]
    found = mutual_information(batches, Categorical(torch.ones(2).double()), num_samples=40000)
    assert found.value == pytest.approx(exact, abs=0.01)
    assert found.items == 2
    kl = float((q * (q / 0.5).log()).sum(-1).mean())
    assert found.mean_kl == pytest.approx(kl, abs=0.01)


def test_active_units_count_the_dimensions_that_move() -> None:
    mean = torch.randn(50, 4) * torch.tensor([1.0, 0.01, 0.0, 0.5])
    assert active_units([gaussians(mean[:20]), gaussians(mean[20:])]) == 2
    assert active_units([gaussians(mean)], threshold=1e-6) == 3
    assert active_units([Categorical(torch.ones(3, 2))]) is None


def test_a_swapped_z_costs_what_it_tells() -> None:
    model = uncorrelated()
    model.variance = 0.1
    with torch.no_grad():
        model.reader.weight.copy_((model.weight @ model.precision().inverse() / model.variance).T)
        model.reader.bias.zero_()
        model.log_variance.fill_(-5.0)
    x = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]], dtype=torch.float64)
    own, swapped = swapped_reconstruction(model, x)
    assert bool((own > swapped + 100).all())
    ignoring = correlated()
    with torch.no_grad():
        ignoring.weight.zero_()
    own, swapped = swapped_reconstruction(ignoring, ROWS)
    assert torch.equal(own, swapped)
    with pytest.raises(ValueError, match="at least 2 items"):
        swapped_reconstruction(model, x[:1])


def test_the_inference_gap_has_two_parts() -> None:
    model = correlated()
    with torch.no_grad():  # the best q of the family, but for a mean that is off by 1 in one direction
        model.reader.weight.copy_((model.weight @ model.precision().inverse() / model.variance).T)
        model.reader.bias.copy_(torch.tensor([1.0, 0.0]))
        model.log_variance.copy_(-model.precision().diagonal().log())
    gap = inference_gap(model, ROWS, num_samples=6000, steps=200, lr=0.1, inner_samples=16)
    precision = model.precision()
    approximation = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    amortisation = 0.5 * precision[0, 0]  # half the squared error, in the posterior's own precision
    assert (gap.approximation - approximation).abs().max() < 0.1
    assert (gap.amortisation - amortisation).abs().max() < 0.1
    assert torch.allclose(gap.total, gap.approximation + gap.amortisation)
    assert (gap.log_likelihood - model.log_prob(ROWS)).abs().max() < 0.05


# ---- the report ----------------------------------------------------------------------------------------

SENTENCES = [torch.tensor([1, 2, 3]), torch.tensor([1, 3]), torch.tensor([2]), torch.tensor([3, 3, 3, 3])]


def test_the_report_of_a_mixture_is_exact() -> None:
    model = MixtureOfRNNLM(2, 4, word_dim=3, dim=4).train()
    report = evaluate(model, Batches(SENTENCES, 2, shuffle=False), num_samples=3)
    x, lengths, _ = Batches(SENTENCES, 4, shuffle=False).collate(torch.arange(4))
    exact = model.log_prob(x, lengths).mean().item()
    assert report.elbo == pytest.approx(exact, abs=1e-4)
    assert report.log_likelihood == pytest.approx(exact, abs=1e-4)  # q is the posterior: weights are equal
    assert report.perplexity == pytest.approx(math.exp(-4 * exact / 14), rel=1e-4)
    assert (report.items, report.symbols, report.scores_end) == (4, 14, True)
    assert report.active_units is None
    assert model.training


def test_the_report_says_whether_ends_are_scored() -> None:
    report = evaluate(NaiveBayes(2, 4), Batches(SENTENCES, 2, shuffle=False), num_samples=2)
    assert (report.symbols, report.scores_end) == (10, False)
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(NaiveBayes(2, 4), [])


def test_the_report_of_a_text_vae() -> None:
    torch.manual_seed(2)
    model = TextVAE(4, latent=3, word_dim=3, dim=4, encoder_dim=3, word_dropout=0.5)
    report = evaluate(model, Batches(SENTENCES * 5, 5, shuffle=False), num_samples=50, information_items=10)
    assert report.elbo == pytest.approx(report.reconstruction - report.kl)
    assert report.log_likelihood > report.elbo - 0.1
    assert report.mutual_information.items == 10
    assert report.mutual_information.value <= report.mutual_information.ceiling
    assert report.swapped.gap == pytest.approx(report.swapped.own - report.swapped.swapped)


# ---- the latent space ----------------------------------------------------------------------------------


def test_interpolation_is_a_line() -> None:
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    line = interpolate(a, b, 5)
    assert line.shape == (5, 2, 3)
    assert line[:, 0, 0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    for wrong in (lambda: interpolate(a, b, 1), lambda: interpolate(a, b[:1])):
        with pytest.raises(ValueError, match="found"):
            wrong()


def test_neighbours_are_by_posterior_mean_and_not_oneself() -> None:
    class Reader:
        def encode(self, x: Tensor, lengths: Any = None) -> Independent:
            return diagonal_gaussian(x, torch.zeros_like(x))

    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 1.5]])
    numbers, distances = nearest_neighbours(Reader(), x, count=2)
    assert numbers[:, 0].tolist() == [1, 0, 3, 2]
    assert distances[:, 0].tolist() == [1.0, 1.0, 1.5, 1.5]
    with pytest.raises(ValueError, match=r"count in 1\.\.3 for 4 items, found 4"):
        nearest_neighbours(Reader(), x, count=4)


def test_samples_of_prior_and_posterior() -> None:
    model = TextVAE(4, latent=3, word_dim=3, dim=4, encoder_dim=3)
    x, lengths = prior_samples(model, 5, max_length=6)
    assert x.shape[0] == len(lengths) == 5
    assert x.shape[1] <= 6
    found = posterior_samples(
        model, torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]), count=3, greedy=True
    )
    assert len(found) == 3
    assert all(len(words) == 2 for words, _ in found)
    bags, n = prior_samples(NaiveBayes(2, 3), 4, torch.tensor([1, 2, 3, 4]))
    assert bags.shape == (4, 4)
    assert n.tolist() == [1, 2, 3, 4]
