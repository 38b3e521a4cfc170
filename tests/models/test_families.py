"""Posterior families and learned priors of a continuous latent: densities, Jacobians, limits."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from structlv._extras import MissingExtra
from structlv.models import (
    CouplingFlow,
    GaussianFamily,
    InverseAutoregressiveFlow,
    MixturePrior,
    PlanarFlow,
    VampPrior,
    sampled_kl,
)
from structlv.models.families import diagonal_gaussian
from structlv.models.flows import Planar
from tests.tolerance import assert_nats, assert_probabilities

FEATURES, DIM = 3, 4
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "gaussian": lambda: GaussianFamily(FEATURES, DIM),
    "planar": lambda: PlanarFlow(FEATURES, DIM, layers=3),
    "inverse autoregressive": lambda: InverseAutoregressiveFlow(FEATURES, DIM),
    "coupling": lambda: CouplingFlow(FEATURES, DIM),
}
OF_ZUKO = ["inverse autoregressive", "coupling"]
families = pytest.mark.parametrize("name", FAMILIES)


def posterior(name: str, count: int = 5) -> Any:
    if name in OF_ZUKO:
        pytest.importorskip("zuko")
    torch.manual_seed(1)
    family = FAMILIES[name]().double()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.mul_(1.5)
    return family(torch.randn(count, FEATURES, dtype=torch.float64))


def steps_of(name: str, q: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From a sample of the base to z and the log-determinant."""
    if name in OF_ZUKO:
        return q.transform.inv.call_and_ladj

    def planar(z: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(z.shape[:-1], dtype=z.dtype)
        for step in q.transforms:
            total = total + step.log_abs_det_jacobian(z, step(z))
            z = step(z)
        return z, total

    return planar


# ---- flows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "gaussian"])
def test_log_determinants_are_those_of_the_jacobian(name: str) -> None:
    q = posterior(name, count=1)
    step = steps_of(name, q)
    for z in torch.randn(4, 1, DIM, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda y: step(y)[0], z).reshape(DIM, DIM)
        sign, log_det = torch.linalg.slogdet(jacobian)
        assert sign == 1
        assert_nats(step(z)[1][0], log_det)
        assert log_det.abs() > 1e-3


@families
def test_shapes_and_gradients(name: str) -> None:
    q = posterior(name)
    assert (q.batch_shape, q.event_shape) == ((5,), (DIM,))
    z = q.rsample((2, 3))
    assert z.shape == (2, 3, 5, DIM)
    assert q.log_prob(z).shape == (2, 3, 5)
    assert q.has_rsample
    assert z.requires_grad
    kl = sampled_kl(q, diagonal_gaussian(torch.zeros(DIM).double(), torch.zeros(DIM).double()), 7)
    assert kl.shape == (5,)


@pytest.mark.parametrize("name", OF_ZUKO)
def test_a_given_z_has_the_density_it_was_drawn_with(name: str) -> None:
    q = posterior(name)
    z, log_prob = q.rsample_and_log_prob((6,))
    assert_nats(q.log_prob(z), log_prob)
    assert_nats(q.log_prob(z.clone()), log_prob)
    assert_nats(q.transform.inv(q.transform(z)), z)


@pytest.mark.parametrize("name", ["planar", *OF_ZUKO])
def test_densities_agree_with_the_base(name: str) -> None:
    """log q(z) = log q(z_0) - log |det|, with z_0 a sample of the base under the same seed."""
    q = posterior(name)
    base = q.base_dist if name == "planar" else q.base
    torch.manual_seed(2)
    z, log_prob = q.rsample_and_log_prob((6,))
    torch.manual_seed(2)
    z_0 = base.rsample((6,))
    image, log_det = steps_of(name, q)(z_0)
    assert_nats(image, z)
    assert_nats(log_prob, base.log_prob(z_0) - log_det)


@pytest.mark.parametrize("name", OF_ZUKO)
def test_densities_integrate_to_one(name: str) -> None:
    pytest.importorskip("zuko")
    torch.manual_seed(0)
    family = (InverseAutoregressiveFlow if "inverse" in name else CouplingFlow)(1, 2)
    q = family(torch.ones(1))
    line = torch.linspace(-8, 8, 400)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    total = q.log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-3)


def test_the_planar_flow_scores_its_latest_sample_only() -> None:
    q = posterior("planar")
    z, log_prob = q.rsample_and_log_prob((2,))
    assert_nats(q.log_prob(z), log_prob)
    older, latest = q.rsample(), q.rsample()
    assert q.log_prob(latest).isfinite().all()
    for given in (older, latest.clone(), torch.zeros(5, DIM, dtype=torch.float64)):
        with pytest.raises(
            NotImplementedError, match=r"densities of its own latest sample only.*CouplingFlow"
        ):
            q.log_prob(given)


def preimages(w: float, u: float, image: float = 0.0) -> int:
    """How often z + u tanh(w z) crosses ``image``, counted on a fine grid."""
    z = torch.linspace(-10, 10, 20001, dtype=torch.float64) + 1e-7
    above = (z + u * torch.tanh(w * z)) > image
    return int((above[1:] != above[:-1]).sum())


def test_unless_it_is_enforced_three_points_share_an_image() -> None:
    assert preimages(1.0, -3.0) == 3
    assert preimages(1.0, -0.99) == 1
    step = Planar(torch.tensor([1.0]), torch.tensor([-3.0]), torch.tensor(0.0))
    assert preimages(1.0, step.u.item()) == 1


def test_enforced_parameters_never_fold() -> None:
    """Along w every step increases, whatever the parameters, and moves nothing where it need not."""
    torch.manual_seed(0)
    w, u = torch.randn(500, DIM).double(), 3 * torch.randn(500, DIM).double()
    b = torch.randn(500).double()
    step = Planar(w, u, b)
    assert ((w * u).sum(-1) < -1).sum() > 100
    assert ((w * step.u).sum(-1) > -1).all()
    height = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    z = height[..., None] * (w / w.norm(dim=-1, keepdim=True))  # (4001, 500, d)
    image = (step(z) * w).sum(-1)
    assert (image[1:] > image[:-1]).all()
    across = u - (u * w).sum(-1, keepdim=True) * w / w.square().sum(-1, keepdim=True)
    kept = step.u - (step.u * w).sum(-1, keepdim=True) * w / w.square().sum(-1, keepdim=True)
    assert_probabilities(kept, across)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e3])
def test_extreme_planar_parameters_stay_finite(scale: float) -> None:
    w = scale * torch.ones(2, DIM)
    step = Planar(w.requires_grad_(), torch.tensor([[5.0] * DIM, [-5.0] * DIM]), torch.zeros(2))
    z = torch.randn(100, 2, DIM)
    log_det = step.log_abs_det_jacobian(z, step(z))
    assert step.u.abs().max() < 50
    assert log_det.isfinite().all()
    log_det.sum().backward()
    assert w.grad is not None
    assert w.grad.isfinite().all()


@pytest.mark.parametrize("name", ["planar", *OF_ZUKO])
def test_a_flow_comes_closer_to_a_curved_posterior(name: str) -> None:
    """KL to the banana z_2 ~ N(z_1², 1/4): no diagonal Gaussian is near, the flows are nearer."""

    class Banana:
        def log_prob(self, z: Tensor) -> Tensor:
            first = Normal(0.0, 1.0).log_prob(z[..., 0])
            return first + Normal(z[..., 0].square(), 0.5).log_prob(z[..., 1])

    def fitted(make: Callable[..., nn.Module]) -> float:
        torch.manual_seed(0)
        family = make(1, 2)
        optimiser = torch.optim.Adam(family.parameters(), lr=0.02)
        for _ in range(150):
            loss = sampled_kl(family(torch.ones(1)), Banana(), 64)  # type: ignore[arg-type]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            return sampled_kl(family(torch.ones(1)), Banana(), 20000).item()  # type: ignore[arg-type]

    if name in OF_ZUKO:
        pytest.importorskip("zuko")
    flows = {"planar": PlanarFlow, "coupling": CouplingFlow}
    flow, gaussian = fitted(flows.get(name, InverseAutoregressiveFlow)), fitted(GaussianFamily)
    assert 0.0 <= flow < 0.7 * gaussian


def test_zuko_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    for make in (InverseAutoregressiveFlow, CouplingFlow):
        with pytest.raises(MissingExtra, match=r"pip install 'structlv\[flows\]'"):
            make(3, 4)
    assert PlanarFlow(3, 4)(torch.zeros(2, 3)).rsample().shape == (2, 4)


# ---- priors ------------------------------------------------------------------------------------------------


def test_the_mixture_is_the_log_of_a_sum() -> None:
    prior = MixturePrior(2, 3)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.3, -1.0, 0.5]))
        prior.log_variance.copy_(torch.randn(3, 2))
    z = torch.randn(6, 2)
    each = Normal(prior.mean, (0.5 * prior.log_variance).exp()).log_prob(z.unsqueeze(-2)).sum(-1)
    assert_nats(prior().log_prob(z), (each + prior.logits.log_softmax(-1)).logsumexp(-1))


def test_the_vamp_prior_is_the_mean_of_posteriors() -> None:
    encode = GaussianFamily(FEATURES, 2)
    prior = VampPrior(torch.randn(4, FEATURES))
    z = torch.randn(6, 2)
    each = torch.stack([encode(u).log_prob(z) for u in prior.pseudo_inputs])
    assert_nats(prior(encode).log_prob(z), each.logsumexp(0) - math.log(4))
    prior(encode).log_prob(z).sum().backward()
    assert prior.pseudo_inputs.grad is not None
    assert prior.pseudo_inputs.grad.abs().min() > 0
    assert [name for name, _ in prior.named_parameters()] == ["pseudo_inputs"]  # the encoder is the model's


def test_the_sampled_kl_is_unbiased() -> None:
    q = diagonal_gaussian(torch.tensor([0.5, -1.0]), torch.tensor([0.2, -0.7]))
    p = diagonal_gaussian(torch.zeros(2), torch.zeros(2))
    found = torch.stack([sampled_kl(q, p) for _ in range(4000)])
    assert abs(found.mean() - kl_divergence(q, p)) < 4 * found.std() / 4000**0.5
    assert sampled_kl(q, q, 3) == 0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="num_components=0"):
        MixturePrior(2, 0)
    with pytest.raises(ValueError, match=r"pseudo_inputs must be a floating-point tensor.*found torch.int64"):
        VampPrior(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"each of 3 pseudo-inputs.*found \(1,\)"):
        VampPrior(torch.randn(3, FEATURES))(lambda u: GaussianFamily(FEATURES, 2)(u[:1]))
    with pytest.raises(ValueError, match="layers=0"):
        PlanarFlow(3, 4, layers=0)
    with pytest.raises(ValueError, match=r"dim must be at least 2.*found 1"):
        CouplingFlow(3, 1)
