"""The structured VAE of time series: its ascent, its bounds, and the exact HMM that it becomes at its
edges.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from structlv import HMM
from structlv.models import StructuredGaussianVAE
from structlv.models.conjugate import (
    Factors,
    GaussianPotentials,
    GaussianStates,
    block_coordinate,
    factors_kl,
    surrogate_bound,
)
from tests.tolerance import assert_nats, assert_probabilities

B, N, K, D = 3, 6, 3, 2
LENGTHS = torch.tensor([6, 1, 4])


def states(k: int = K) -> GaussianStates:
    torch.manual_seed(4)
    initial, transition = torch.randn(k).double().log_softmax(-1), torch.randn(k, k).double().log_softmax(-1)
    return GaussianStates(
        initial, transition, torch.randn(k, D).double(), (0.5 * torch.randn(k, D)).double().exp()
    )


def potentials() -> GaussianPotentials:
    torch.manual_seed(5)
    return GaussianPotentials(2 * torch.randn(B, N, D).double(), torch.rand(B, N, D).double() + 0.1)


def hmm(model: GaussianStates, noise: float = 0.0) -> HMM:
    scale = (1 / model.precision + noise).sqrt()
    return HMM(model.initial, model.transition, Independent(Normal(model.mean, scale), 1))


def log_normaliser(model: GaussianStates, given: GaussianPotentials) -> Tensor:
    """log of the sum over z of the integral of p(z) p(u | z) psi(u), as psi is a scaled normal density of
    noisy x.
    """
    noise, x = 1 / given.precision, given.linear / given.precision
    variance = noise.unsqueeze(-2) + 1 / model.precision
    unary = Normal(model.mean, variance.sqrt()).log_prob(x.unsqueeze(-2)).sum(-1)
    scale = (0.5 * (2 * math.pi * noise).log() + 0.5 * x.square() / noise).sum(-1)
    inside = torch.arange(N) < LENGTHS.unsqueeze(-1)
    return model.chain(unary, LENGTHS).log_partition() + torch.where(inside, scale, 0.0).sum(-1)


def test_the_ascent_never_falls_and_stays_below_the_normaliser() -> None:
    model, given = states(), potentials()
    bounds = torch.stack(
        [
            surrogate_bound(model, given, LENGTHS, block_coordinate(model, given, LENGTHS, i))
            for i in range(40)
        ]
    )
    assert (bounds[1:] >= bounds[:-1] - 1e-12).all()
    assert (bounds[-1] > bounds[0] + 1e-4).any()
    assert_nats(bounds[-1], bounds[-2])
    assert (bounds[-1] < log_normaliser(model, given)).all()


def test_each_block_is_at_its_best() -> None:
    """At the fixed point no change of either factor raises the bound."""
    model, given = states(), potentials()
    factors = block_coordinate(model, given, LENGTHS, 200)
    base = factors.values.base_dist
    mean, scale = (x.detach().requires_grad_() for x in (base.mean, base.stddev))
    unary = factors.states.unary.detach().requires_grad_()
    here = Factors(model.chain(unary, LENGTHS), Independent(Normal(mean, scale), 1))
    found = torch.autograd.grad(surrogate_bound(model, given, LENGTHS, here).sum(), (mean, scale, unary))
    for gradient in found:
        assert_probabilities(gradient, torch.zeros_like(gradient))


def test_with_one_state_the_bound_is_exact() -> None:
    model, given = states(1), potentials()
    found = surrogate_bound(model, given, LENGTHS, block_coordinate(model, given, LENGTHS, 1))
    assert_nats(found, log_normaliser(model, given))


def test_with_values_observed_it_is_the_posterior_of_the_hmm() -> None:
    """Potentials so sharp that u is known: nothing is left of the mean field's gap."""
    model = states()
    torch.manual_seed(6)
    u, sharp = torch.randn(B, N, D).double(), 1e12
    given = GaussianPotentials(sharp * u, torch.full_like(u, sharp))
    factors = block_coordinate(model, given, LENGTHS, 5)
    posterior = hmm(model).posterior(u, lengths=LENGTHS)
    for mine, exact in zip(factors.states.marginals(), posterior.marginals(), strict=True):
        assert_probabilities(mine, exact)
    values = -0.5 * math.log(2 * math.pi * math.e / sharp) * D * LENGTHS.double()  # minus the entropy of q(u)
    assert_nats(values - factors_kl(model, LENGTHS, factors), hmm(model).log_prob(u, lengths=LENGTHS))


def conjugate(noise: float) -> StructuredGaussianVAE:
    """x_t = u_t + noise, and the recognition network knows it."""
    torch.manual_seed(7)
    model = StructuredGaussianVAE(D, num_states=K, latent=D, iterations=60).double()
    constant = torch.full((D,), math.log(noise), dtype=torch.float64)

    class Identity(torch.nn.Module):
        def __init__(self, log_scale: Tensor) -> None:
            super().__init__()
            self.log_scale = log_scale

        def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
            return u, self.log_scale.expand_as(u)

    model.emission, model.recognition = Identity(constant), Identity(constant)  # type: ignore[assignment]
    return model


def test_the_bound_plus_its_gap_is_the_likelihood() -> None:
    """In the linear case log p(x) is an HMM's: the bound is below it by KL(q || p(z, u | x)), the ascent's
    own gap.
    """
    noise = 0.4
    model = conjugate(noise)
    x = torch.randn(B, N, D).double()
    exact = hmm(model.states(), noise).log_prob(x, lengths=LENGTHS)
    given = model.potentials(x)
    bound = surrogate_bound(model.states(), given, LENGTHS, model.factors(x, LENGTHS))
    gap = log_normaliser(model.states(), given) - bound
    with torch.no_grad():
        many, lengths = x.repeat(2000, 1, 1), LENGTHS.repeat(2000)
        bounds = model.elbo(many, lengths).bound.view(-1, B)
        importance = model.importance_bound(many[: 200 * B], lengths[: 200 * B], 32).view(-1, B)
    error = bounds.std(0) / len(bounds) ** 0.5
    assert (gap > 1e-5).all()
    assert ((bounds.mean(0) + gap - exact).abs() < 4 * error).all()
    error = importance.std(0) / len(importance) ** 0.5
    assert (importance.mean(0) < exact + 4 * error).all()
    assert (importance.mean(0) > exact - 0.5 * gap - 4 * error).all()


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = StructuredGaussianVAE(D, num_states=K).double()
    x = torch.randn(B, N, D).double()
    other = torch.where(torch.arange(N)[:, None] < LENGTHS[:, None, None], x, 7.0)
    z = model.encode(x, LENGTHS).sample()
    for i, length in enumerate(LENGTHS.tolist()):
        alone = x[i : i + 1, :length]
        assert_nats(model.elbo(x, LENGTHS).kl[i], model.elbo(alone).kl[0])
        assert_nats(
            model.encode(x, LENGTHS).log_prob(z)[i], model.encode(alone).log_prob(z[i : i + 1, :length])[0]
        )
        assert_nats(model.encode(x, LENGTHS).entropy()[i], model.encode(alone).entropy()[0])
    assert torch.equal(model.elbo(x, LENGTHS).kl, model.elbo(other, LENGTHS).kl)
    assert torch.equal(model.log_likelihood(x, LENGTHS, z), model.log_likelihood(other, LENGTHS, z))


def test_gradients_go_through_the_ascent() -> None:
    """Of the KL, against differences; every parameter gets one."""
    torch.manual_seed(0)
    model = StructuredGaussianVAE(D, num_states=K, dim=3, iterations=3).double()
    x = torch.randn(1, 4, D).double()
    model.elbo(x).bound.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    weight = model.recognition.rest[0].weight
    (found,) = torch.autograd.grad(model.elbo(x).kl.sum(), weight)
    step = 1e-5
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight[0, 0] += sign * step
            values.append(model.elbo(x).kl.item())
            weight[0, 0] -= sign * step
    assert found[0, 0].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_saved_and_loaded(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = StructuredGaussianVAE(2, num_states=3, iterations=2)
    model.save(tmp_path / "model")
    loaded = StructuredGaussianVAE.load(tmp_path / "model")
    x = torch.randn(2, 5, 2)
    assert torch.equal(loaded.elbo(x).kl, model.elbo(x).kl)
    assert loaded.iterations == 2


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="iterations=0"):
        StructuredGaussianVAE(2, iterations=0)
    with pytest.raises(ValueError, match=r"x must have shape \(b, n, 2\), found \(5, 2\)"):
        StructuredGaussianVAE(2).elbo(torch.randn(5, 2))


@pytest.mark.corpora
def test_it_finds_the_two_kinds_of_eruptions(corpora: Path) -> None:
    """Old Faithful, durations and waiting times: the states part short eruptions from long ones."""
    with open(corpora / "timeseries" / "faithful.csv", newline="") as file:
        rows = [[float(row["eruptions"]), float(row["waiting"])] for row in csv.DictReader(file)]
    x = torch.tensor(rows)
    series = ((x - x.mean(0)) / x.std(0)).unsqueeze(0)
    torch.manual_seed(0)
    model = StructuredGaussianVAE(2, num_states=4, latent=2, dim=16, iterations=3)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = -model.elbo(series).bound.mean() / len(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        chosen = model.factors(series).states.argmax()[0]
        bound = model.importance_bound(series, None, 64).item() / len(x)
    short = x[:, 0] < 3.1
    counts = torch.stack(
        [torch.stack([(chosen == k) & short, (chosen == k) & ~short]).sum(-1) for k in range(4)]
    )
    assert counts.amax(-1).sum() > 0.97 * len(x)
    independent = Normal(series.mean(1), series.std(1)).log_prob(series).sum().item() / len(x)
    assert bound > independent + 0.5
