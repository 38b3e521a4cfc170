"""The M-step against brute force: weighted regression over joint states, counting, and Newton's equations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("pytorch_lightning")

from structlv import AdditiveGaussian, FactorialHMM, IndependentBernoulli, LogLinearCategorical
from structlv.distributions import FactorialParts
from structlv.learning.em.factorial_m_step import (
    Expected,
    emission_step,
    expectations,
    joint_logits,
    log_prior,
    m_step,
)
from structlv.learning.em.m_step import Prior

F64 = torch.float64


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def made_up(sizes: tuple[int, ...], x: Tensor, *, joint: bool = True) -> Expected:
    """Expectations that no model need have: any joint distribution at every step, or any independent ones."""
    weights = rand(len(x), *sizes).flatten(1).softmax(-1).unflatten(1, sizes)
    unary = tuple(
        weights.sum([axis for axis in range(1, len(sizes) + 1) if axis != i + 1])
        if len(sizes) > 1
        else weights
        for i in range(len(sizes))
    )
    moves = tuple(torch.rand(k, k, dtype=F64) for k in sizes)
    return Expected(x, unary, weights.flatten(1) if joint else None, tuple(u[0] for u in unary), moves)


def chains(*sizes: int, symbols: int) -> FactorialHMM:
    logits = LogLinearCategorical([rand(k, symbols) for k in sizes])
    return FactorialHMM([rand(k) for k in sizes], [rand(k, k) for k in sizes], logits)


def joint_weights(expected: Expected, sizes: tuple[int, ...]) -> Tensor:
    """(N, S), of independent chains the product."""
    if expected.joint is not None:
        return expected.joint
    table = expected.unary[0]
    for u in expected.unary[1:]:
        table = (table.unsqueeze(-1) * u.unsqueeze(1)).flatten(1)
    return table


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("sizes", [(3,), (2, 3), (3, 2, 2)])
def test_sums_of_means_are_a_weighted_regression(sizes: tuple[int, ...], joint: bool) -> None:
    """numpy's least squares over every pair of a step and a joint state, weighted by its probability."""
    x = 100 + rand(40, 2) * 3
    expected = made_up(sizes, x, joint=joint)
    start = AdditiveGaussian([rand(k, 2) for k in sizes], torch.eye(2, dtype=F64))
    found = emission_step(start, expected, Prior())
    assert isinstance(found, AdditiveGaussian)
    states = list(itertools.product(*map(range, sizes)))
    design = torch.cat(
        [torch.eye(k, dtype=F64)[[z[i] for z in states]] for i, k in enumerate(sizes)], -1
    ).repeat(len(x), 1)
    weights = joint_weights(expected, sizes).flatten()
    targets = x.repeat_interleave(len(states), 0)
    scale = weights.sqrt().unsqueeze(-1)
    rows = torch.tensor(np.linalg.lstsq((design * scale).numpy(), (targets * scale).numpy(), rcond=None)[0])
    residual = targets - design @ rows
    covariance = (residual * weights.unsqueeze(-1)).T @ residual / len(x)
    # means are determined up to what chains can pass on to one another: compare the sums of joint states
    sums = design[: len(states)] @ torch.cat(found.means)
    assert torch.allclose(sums, design[: len(states)] @ rows, atol=1e-8)
    assert torch.allclose(found.covariance, covariance, atol=1e-8)
    wider = emission_step(start, expected, Prior(covariance=4.0))
    assert torch.allclose(wider.covariance, covariance + 0.1 * torch.eye(2, dtype=F64), atol=1e-8)


def test_a_state_that_never_occurs_does_no_harm() -> None:
    x = rand(30, 1)
    expected = made_up((2, 2), x)
    gone = expected.joint.reshape(-1, 2, 2).clone()
    gone[:, 0, 1] += gone[:, 0, 0]
    gone[:, 1, 1] += gone[:, 1, 0]
    gone[:, :, 0] = 0
    unary = (expected.unary[0], gone.sum(1))
    start = AdditiveGaussian([rand(2, 1), rand(2, 1)], torch.eye(1, dtype=F64))
    found = emission_step(start, expected._replace(joint=gone.flatten(1), unary=unary), Prior())
    assert all(m.isfinite().all() and m.abs().max() < 100 for m in found.means)


def test_one_chain_of_symbols_is_counted() -> None:
    x = torch.tensor([0, 2, 2, 1, 0])
    expected = made_up((2,), x)
    found = emission_step(LogLinearCategorical([rand(2, 3)]), expected, Prior(emission=0.5))
    counts = torch.stack([expected.unary[0][x == v].sum(0) for v in range(3)], -1) + 0.5
    assert torch.allclose(found.logits[0].exp(), counts / counts.sum(-1, keepdim=True))


def test_one_chain_of_bits_is_counted() -> None:
    x = (torch.rand(20, 4) < 0.3).double()
    expected = made_up((3,), x)
    found = emission_step(IndependentBernoulli([rand(3, 4)]), expected, Prior(emission=1.0))
    ones, all_ = expected.unary[0].T @ x + 1, expected.unary[0].sum(0).unsqueeze(-1) + 2
    assert torch.allclose(found.logits[0].sigmoid(), ones / all_)
    always = emission_step(
        IndependentBernoulli([rand(3, 4)]), expected._replace(x=torch.ones(20, 4)), Prior()
    )
    assert bool(always.logits[0].isfinite().all())


@pytest.mark.parametrize("kind", [LogLinearCategorical, IndependentBernoulli])
@pytest.mark.parametrize("joint", [True, False])
def test_several_chains_climb_to_the_stationary_point(kind: type, joint: bool) -> None:
    """Repeated, the generalised M-step ends where the gradient of the objective written down here is zero."""
    sizes, prior = (2, 3), Prior(emission=0.2, decay=0.3)
    x = torch.randint(4, (30,)) if kind is LogLinearCategorical else (torch.rand(30, 4) < 0.4).double()
    expected = made_up(sizes, x, joint=joint)
    emission = kind([rand(k, 4) for k in sizes])

    def objective(logits: list[Tensor]) -> Tensor:
        table = (logits[0].unsqueeze(1) + logits[1]).flatten(0, 1)
        if kind is LogLinearCategorical:
            log_p, log_seen = table.log_softmax(-1), table.log_softmax(-1).T[x]
            prior_term = 0.2 * log_p.sum()
        else:
            on, off = table.sigmoid().log(), (-table).sigmoid().log()
            log_seen, prior_term = x @ on.T + (1 - x) @ off.T, 0.2 * (on + off).sum()
        seen = (joint_weights(expected, sizes) * log_seen).sum()
        if not joint:  # of the normaliser's expectation mean field knows a bound only
            bound = kind(logits).likelihood(x, None, torch.Size()).expected(expected.unary)
            assert bound.item() <= seen.item() + 1e-9
            seen = bound
        return seen + prior_term - 0.15 * sum((y.square().sum() for y in logits), torch.zeros(()))

    values = [float(objective(list(emission.logits)))]
    for _ in range(30):
        emission = emission_step(emission, expected, prior)
        values.append(float(objective(list(emission.logits))))
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
    assert values[1] > values[0] + 1
    logits = [y.clone().requires_grad_() for y in emission.logits]
    objective(logits).backward()
    assert max(float(y.grad.abs().max()) for y in logits if y.grad is not None) < 1e-3


def test_infinite_logits_of_several_chains_are_refused() -> None:
    logits = [rand(2, 3), rand(2, 3)]
    logits[0][0, 0] = -torch.inf
    with pytest.raises(ValueError, match="finite emission logits"):
        emission_step(LogLinearCategorical(logits), made_up((2, 2), torch.tensor([0, 1])), Prior())


def test_first_states_and_moves_are_counted_with_pseudo_counts() -> None:
    x = torch.tensor([0, 1, 1])
    expected = made_up((2, 3), x)
    model = chains(2, 3, symbols=2)
    found = m_step(model, expected, Prior(initial=0.5, transition=2.0))
    for i, k in enumerate((2, 3)):
        first, moves = expected.initial[i] + 0.5, expected.transition[i] + 2.0
        assert torch.allclose(found.initial_logits[i].exp(), first / first.sum())
        assert torch.allclose(found.transition_logits[i].exp(), moves / moves.sum(-1, keepdim=True))
        assert found.initial_logits[i].shape == (k,)
    never = [t.clone() for t in expected.transition]
    never[0][1] = 0  # a state that was never left keeps its row
    kept = m_step(model, expected._replace(transition=tuple(never)), Prior())
    assert torch.allclose(kept.transition_logits[0][1], model.transition_logits[0][1])


def test_expectations_leave_out_what_is_not_observed() -> None:
    x = torch.arange(6).reshape(2, 3)
    observed = torch.tensor([[True, False, True], [True, True, False]])
    unary = (torch.rand(2, 3, 2), torch.rand(2, 3, 2))
    parts = FactorialParts(unary, (torch.rand(2, 2, 2), torch.rand(2, 2, 2)), torch.rand(2, 3, 2, 2))
    found = expectations(parts, x, observed)
    assert found.x.tolist() == [0, 2, 3, 4]
    assert found.joint is not None
    assert found.joint.shape == (4, 4)
    assert torch.equal(found.joint[1], parts.joint[0, 2].flatten().double())
    assert torch.allclose(found.initial[1], unary[1][:, 0].sum(0).double())
    assert torch.allclose(found.transition[0], parts.transition[0].sum(0).double())


def test_the_log_prior_is_what_pseudo_counts_add() -> None:
    model = chains(2, 2, symbols=3)
    table = joint_logits(model.emission.logits).log_softmax(-1)
    expected = (
        0.5 * sum(float(t.sum()) for t in model.initial_logits)
        + 2 * sum(float(t.sum()) for t in model.transition_logits)
        + 0.1 * float(table.sum())
        - 0.15 * sum(float(t.square().sum()) for t in model.emission.logits)
    )
    assert log_prior(model, Prior(0.5, 2.0, 0.1, 0.3)) == pytest.approx(expected)
    assert log_prior(model, Prior()) == 0
    gaussian = AdditiveGaussian([rand(2, 2), rand(2, 2)], 0.5 * torch.eye(2, dtype=F64))
    other = FactorialHMM(model.initial_logits, model.transition_logits, gaussian)
    assert log_prior(other, Prior(covariance=3.0)) == pytest.approx(-0.5 * 3 * 4)
