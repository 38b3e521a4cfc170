"""EM of HMMs: it climbs whatever the states emit, its counts are gradients, and it agrees with hmmlearn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

from structlv import HMM
from structlv.learning import (
    Prior,
)
from structlv.learning.em.hmm import HMMProblem
from tests.learning.em_families import (
    F64,
    LENGTHS,
    PRIOR,
    PRIORS,
    B,
    D,
    K,
    N,
    assert_climbs,
    families,
    fit,
    full,
    missing,
    mixture,
    model_of,
    poisson,
    rand,
    spd,
    symbols,
)
from tests.tolerance import assert_nats, assert_probabilities


@families
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prior", PRIORS, ids=["likelihood", "prior"])
def test_the_objective_never_falls(family: Any, seed: int, prior: Prior) -> None:
    torch.manual_seed(seed)
    emission, x = family()
    model = model_of(emission, stop=seed % 2 == 1)
    lengths, mask = (LENGTHS, missing()) if seed > 1 else (None, None)
    result = fit(model, x, lengths, mask, prior=prior)
    assert_climbs(result)
    assert_nats(torch.tensor(result.log_likelihood, dtype=F64), result.model.log_prob(x, lengths, mask).sum())


def free_parameters(model: HMM) -> tuple[Any, tuple[Tensor, ...]]:
    """A function of unconstrained numbers that makes HMMs of this kind, and the numbers of this one."""
    e = model.emission
    chain = (model.initial_logits, model.transition_logits, model.final_logits)
    if isinstance(e, Tensor):
        own, emission = (e,), lambda table: table
    elif isinstance(e, td.Poisson):
        own, emission = (e.rate.log(),), lambda log_rate: td.Poisson(log_rate.exp())
    elif isinstance(e, td.MultivariateNormal):
        own, emission = (e.loc, e.scale_tril), lambda m, root: td.MultivariateNormal(m, root @ root.mT)
    else:
        c = e.component_distribution
        own = (e.mixture_distribution.logits, c.loc, c.scale_tril)
        emission = lambda w, m, root: td.MixtureSameFamily(  # noqa: E731
            td.Categorical(logits=w), td.MultivariateNormal(m, root @ root.mT)
        )

    def make(initial: Tensor, transition: Tensor, final: Tensor, *rest: Tensor) -> HMM:
        return HMM(initial, transition, emission(*rest), final_logits=final, validate_args=False)

    return make, tuple(x.detach().clone() for x in (*chain, *own))


@pytest.mark.parametrize("family", [symbols, poisson, full, mixture], ids=lambda f: f.__name__)
def test_q_has_the_gradient_of_the_likelihood_where_it_was_taken_and_nowhere_else(family: Any) -> None:
    """Q by enumeration of all paths. (Trap 4 of the tutorial: equal at the current parameters alone.)"""
    emission, x = family()
    x = x[0, :4]
    make, here = free_parameters(model_of(emission, stop=True))
    paths = torch.cartesian_prod(*[torch.arange(K)] * 4)

    def joint(parameters: tuple[Tensor, ...]) -> Tensor:
        model = make(*parameters)
        emitted = model._emission.log_likelihood(x, None)
        moves = model.transition_logits[paths[:, :-1], paths[:, 1:]].sum(-1)
        stop = model.final_logits[paths[:, -1]]
        return model.initial_logits[paths[:, 0]] + moves + stop + emitted[torch.arange(4), paths].sum(-1)

    weights = joint(here).softmax(0)

    def gradients(parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        leaves = [p.clone().requires_grad_() for p in parameters]
        q = torch.autograd.grad((weights * joint(tuple(leaves))).sum(), leaves)
        likelihood = torch.autograd.grad(make(*leaves).log_prob(x), leaves)
        return torch.cat([g.flatten() for g in q]), torch.cat([g.flatten() for g in likelihood])

    assert_probabilities(*gradients(here))
    torch.manual_seed(1)
    q, likelihood = gradients(tuple(p + 0.2 * torch.randn_like(p) for p in here))
    assert float((q - likelihood).abs().max()) > 1e-3


@families
def test_an_m_step_is_where_the_gradient_of_q_and_the_prior_vanishes(family: Any) -> None:
    """Q written down from the marginals alone; so the M-step is the best, not only better."""
    emission, x = family()
    model = model_of(emission, stop=True)
    problem = HMMProblem(model, x, LENGTHS, None, prior=PRIOR)
    start = problem.begin(model)
    parts = start.posterior(x, LENGTHS).marginals()
    found = problem.m_step(start, problem.e_step(start).counts)
    first, moves = parts.unary[:, 0].sum(0), parts.transition.sum(0)
    last = parts.unary[torch.arange(B - 1), LENGTHS[:-1] - 1].sum(0)

    def q(m: HMM) -> float:
        value = (first * m.initial_logits).sum() + (moves * m.transition_logits).sum()
        value = value + (last * m.final_logits).sum()
        if isinstance(m.emission, td.MixtureSameFamily):
            weights = split_by_component(start.emission, x) * parts.unary.unsqueeze(-1)
            inner = (
                m.emission.component_distribution.log_prob(spread(x, m))
                + m.emission.mixture_distribution.logits
            )
            value = value + (weights * inner).sum()
        else:
            value = value + (parts.unary * m._emission.log_likelihood(x, None)).sum()
        return float(value) + problem.log_prior(m)

    best = q(found)
    assert best > q(start) + 0.1
    for seed in range(3):
        torch.manual_seed(seed)
        assert q(nudged(problem, found, 1e-3)) < best


def spread(x: Tensor, model: HMM) -> Tensor:
    return x.reshape(B, N, 1, 1, *model.event_shape)


def split_by_component(emission: Any, x: Tensor) -> Tensor:
    parts = emission.component_distribution.log_prob(x.reshape(B, N, 1, 1, *emission.event_shape))
    return (parts + emission.mixture_distribution.logits).softmax(-1)


def nudged(problem: HMMProblem, model: HMM, size: float) -> HMM:
    tensors = problem.tensors(model)
    assert problem.family is not None
    moved = []
    for x in problem.family.parameters(model.emission):
        noise = size * torch.randn_like(x)
        moved.append(
            x + (noise + noise.mT if x.shape[-2:] == (D, D) and x.dim() > 2 else noise).mul(x.abs() + 0.1)
        )
    initial, transition, final = (x + size * torch.randn_like(x) for x in tensors[:3])
    if isinstance(model.emission, td.MixtureSameFamily):
        moved[0] = moved[0].log_softmax(-1)
    return HMM(initial, transition, problem.family.emission(tuple(moved)), final_logits=final)


def test_data_far_from_zero_lose_no_digits() -> None:
    emission, x = full()
    model, shift = model_of(emission), 1e7
    moved = HMM(
        model.initial_logits,
        model.transition_logits,
        td.MultivariateNormal(emission.loc + shift, emission.covariance_matrix),
    )
    near, far = (fit(m, y, prior=Prior(covariance=0.1)).model for m, y in ((model, x), (moved, x + shift)))
    error = near.emission.covariance_matrix - far.emission.covariance_matrix
    assert float(error.abs().max()) < 1e-6


def test_under_a_prior_the_likelihood_itself_may_fall() -> None:
    """Trap 3 of the tutorial: add-one EM from the best likelihood raises its objective, and lowers that."""
    emission, x = symbols()
    best = fit(model_of(emission), x, iterations=200)
    smooth = fit(best.model, x, prior=Prior(1.0, 1.0, 1.0))
    assert_climbs(smooth)
    assert smooth.log_likelihood < best.log_likelihood - 1


def test_weights_that_all_states_share_at_first_are_learned_for_each() -> None:
    _, x = mixture()
    parts = td.MultivariateNormal(rand(K, 2, D), spd(K, 2))
    start = model_of(td.MixtureSameFamily(td.Categorical(logits=rand(2)), parts))
    result = fit(start, x, prior=Prior(covariance=0.1))
    assert_climbs(result)
    weights = result.model.emission.mixture_distribution.logits
    assert weights.shape == (K, 2)
    assert not torch.allclose(weights[0], weights[1])
