"""Structures as Pyro's sample sites: log-probabilities are ours, SVI learns, plates and masks work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlv import HMM, LinearChain
from tests.tolerance import assert_nats, assert_probabilities

pyro = pytest.importorskip("pyro", reason="pyro is not installed")
from pyro import poutine  # noqa: E402
from pyro.infer import SVI, Trace_ELBO  # noqa: E402

from structlv.interop.pyro import PyroHMM, PyroStructure, to_pyro  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
B, N, K, V = 4, 5, 3, 6


@pytest.fixture(autouse=True)
def _clean() -> None:
    pyro.clear_param_store()


def chain(*batch: int) -> LinearChain:
    lengths = torch.randint(1, N + 1, batch)
    unary = torch.randn(*batch, N, K, dtype=torch.float64)
    return LinearChain(unary, torch.randn(K, K, dtype=torch.float64), lengths=lengths)


def hmm() -> HMM:
    shapes = ((K,), (K, K), (K, V))
    return HMM(*(torch.randn(*shape, dtype=torch.float64) for shape in shapes))


def test_a_conditioned_site_has_our_log_probability() -> None:
    p = chain(B)
    z = p.sample()

    def model() -> Tensor:
        with pyro.plate("items", B):
            return pyro.sample("z", to_pyro(p))

    trace = poutine.trace(poutine.condition(model, data={"z": z})).get_trace()
    assert trace.nodes["z"]["fn"].event_shape == (N,)
    assert_nats(trace.log_prob_sum(), p.log_prob(z).sum())
    free = poutine.trace(model).get_trace()
    assert_nats(free.log_prob_sum(), p.log_prob(free.nodes["z"]["value"]).sum())
    assert bool(p.support.check(free.nodes["z"]["value"]).all())


def test_an_observed_hmm_is_its_marginal_likelihood() -> None:
    p = hmm()
    x, lengths = torch.randint(V, (B, N)), torch.tensor([5, 2, 1, 4])

    def model() -> None:
        with pyro.plate("items", B):
            pyro.sample("x", to_pyro(p, length=N, lengths=lengths), obs=x)

    assert_nats(poutine.trace(model).get_trace().log_prob_sum(), p.log_prob(x, lengths).sum())
    assert to_pyro(p, length=N)((7,)).shape == (7, N)


def test_expanding_masking_and_events() -> None:
    p = to_pyro(chain(1)).expand((B,))
    assert isinstance(p, PyroStructure)
    z = p((2,))
    assert z.shape == (2, B, N)
    assert_nats(p.to_event(1).log_prob(z), p.log_prob(z).sum(-1))
    keep = torch.tensor([True, False, True, False])
    assert_nats(p.mask(keep).log_prob(z), p.log_prob(z) * keep)
    wide = to_pyro(hmm(), length=N).expand((3,))
    assert isinstance(wide, PyroHMM)
    assert wide.sample((2,)).shape == (2, 3, N)


def test_with_the_posterior_as_guide_the_bound_is_exact() -> None:
    """Prior chain, observed words: the ELBO of the exact posterior is log p(x), without noise."""
    p = hmm()
    x = torch.randint(V, (N,))
    prior = LinearChain(torch.zeros(N, K).double(), p.transition_logits, initial=p.initial_logits)

    def model() -> None:
        z = pyro.sample("z", to_pyro(prior))
        words = pyro.distributions.Categorical(logits=p.emission[z])
        pyro.sample("x", words.to_event(1), obs=x)

    def guide() -> None:
        pyro.sample("z", to_pyro(p.posterior(x)))

    losses = torch.tensor([Trace_ELBO().loss(model, guide) for _ in range(20)], dtype=torch.float64)
    assert_nats(losses, -p.log_prob(x).expand(20))


def test_entropy_and_divergence_are_exact() -> None:
    p, q = hmm().posterior(torch.randint(V, (N,))), hmm().posterior(torch.randint(V, (N,)))
    assert_nats(torch.distributions.kl_divergence(to_pyro(p), to_pyro(q)), p.kl(q))
    assert_nats(to_pyro(p).entropy(), p.entropy())


def test_svi_steps_follow_the_gradient_of_the_marginal_likelihood() -> None:
    x = torch.randint(V, (B, N))
    start = {name: torch.randn(*s).double() for name, s in (("i", (K,)), ("t", (K, K)), ("e", (K, V)))}

    def model() -> None:
        parameters = [pyro.param(name, value.clone()) for name, value in start.items()]
        with pyro.plate("items", B):
            pyro.sample("x", to_pyro(HMM(*parameters), length=N), obs=x)

    svi = SVI(model, lambda: None, pyro.optim.SGD({"lr": 0.1}), Trace_ELBO())
    loss = svi.step()
    leaves = [value.clone().requires_grad_() for value in start.values()]
    expected = -HMM(*leaves).log_prob(x).sum()
    assert loss == pytest.approx(expected.item(), abs=1e-10)
    expected.backward()
    for (name, value), leaf in zip(start.items(), leaves, strict=True):
        assert_probabilities(pyro.param(name), value - 0.1 * leaf.grad)
    assert svi.step() < loss


def test_svi_of_a_latent_chain_uses_scores_of_samples() -> None:
    """A guide of free scores comes close to its target: the bound reaches log Z."""
    p = hmm()
    x = torch.randint(V, (N,))
    target = p.posterior(x)
    prior = LinearChain(target.unary, target.transition, initial=target.initial)

    def guide() -> None:
        scores = pyro.param("scores", torch.zeros(N, K).double())
        pyro.sample("z", to_pyro(LinearChain(scores, p.transition_logits)))

    def model() -> None:
        pyro.sample("z", to_pyro(prior))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=8))
    losses = [svi.step() for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]


def test_errors() -> None:
    with pytest.raises(ValueError, match="needs length"):
        to_pyro(hmm())
    with pytest.raises(ValueError, match="for HMMs"):
        to_pyro(chain(2), length=3)
    with pytest.raises(TypeError, match="found Normal"):
        to_pyro(torch.distributions.Normal(0, 1))
