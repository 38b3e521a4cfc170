"""Criteria, numbers of parameters, and matching of states."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.distributions as td
from torch import Tensor

from structlv import HMM, PCFG
from structlv.learning import (
    NaiveBayesTables,
    Tied,
    aic,
    bic,
    fit_em,
    free_parameters,
    hmm_of_vectors,
    match_states,
    permuted,
)
from tests.tolerance import assert_nats

F64 = torch.float64


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def hmm(emission: object, **options: Tensor) -> HMM:
    return HMM(rand(3), rand(3, 3), emission, **options)


def test_criteria() -> None:
    assert aic(-10.0, 4) == 28.0
    assert bic(-10.0, 4, 100) == pytest.approx(20 + 4 * math.log(100))
    with pytest.raises(ValueError, match="at least 1"):
        bic(-10.0, 4, 0)


def test_numbers_of_free_parameters() -> None:
    full = td.MultivariateNormal(rand(3, 2), torch.eye(2).double().expand(3, 2, 2))
    diagonal = td.Independent(td.Normal(rand(3, 2), torch.ones(3, 2).double()), 1)
    parts = td.Independent(td.Normal(rand(3, 4, 2), torch.ones(3, 4, 2).double()), 1)
    mixture = td.MixtureSameFamily(td.Categorical(logits=rand(3, 4)), parts)
    chain = 2 + 6
    assert free_parameters(hmm(rand(3, 5))) == chain + 3 * 4
    assert free_parameters(hmm(rand(3, 5), final_logits=rand(3))) == chain + 3 + 3 * 4
    assert free_parameters(hmm(full)) == chain + 6 + 9
    assert free_parameters(hmm(diagonal)) == chain + 6 + 6
    assert free_parameters(hmm(td.Poisson(torch.ones(3)))) == chain + 3
    assert free_parameters(hmm(mixture)) == chain + 9 + 24 + 24
    assert free_parameters(hmm(full), tied=Tied(covariance=[0, 0, 0])) == chain + 6 + 3
    assert free_parameters(hmm(diagonal), tied=Tied(spherical=True)) == chain + 6 + 3
    assert free_parameters(hmm(diagonal), tied=Tied(emission=[0, 0, 1])) == chain + 4 + 4
    assert free_parameters(hmm(full), fixed=("means", "transition")) == 2 + 9
    assert free_parameters(hmm(full), fixed="emission") == chain
    forward = rand(3, 3).masked_fill(~torch.ones(3, 3).triu().bool(), -torch.inf)
    assert free_parameters(HMM(rand(3), forward, rand(3, 5))) == 2 + (2 + 1 + 0) + 12
    assert free_parameters(PCFG(rand(2), rand(2, 5, 5), rand(3, 4))) == 1 + 2 * 24 + 3 * 3
    assert free_parameters(NaiveBayesTables(rand(3), rand(3, 4))) == 2 + 9
    with pytest.raises(TypeError, match="expected an HMM, PCFG or NaiveBayesTables"):
        free_parameters(rand(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [True, False])
def test_the_matching_is_the_best_of_all(labels: bool) -> None:
    pytest.importorskip("scipy")
    a, b = torch.randint(4, (50,)), torch.randint(4, (50,))
    first, second = (a, b) if labels else (rand(50, 4).softmax(-1), rand(50, 4).softmax(-1))
    found = match_states(first, second)
    p, q = (x if x.dim() == 2 else torch.nn.functional.one_hot(x, 4).double() for x in (first, second))
    overlap = p.T @ q
    best = max(
        itertools.permutations(range(4)), key=lambda s: sum(float(overlap[i, j]) for i, j in enumerate(s))
    )
    assert found.tolist() == list(best)


def test_restarts_that_found_the_same_have_the_same_states_once_matched() -> None:
    pytest.importorskip("scipy")
    truth = HMM(
        torch.zeros(3).double(),
        3 * torch.eye(3).double(),
        td.MultivariateNormal(8 * torch.eye(3).double(), torch.eye(3).double().expand(3, 3, 3)),
    )
    x = truth.sample((10,), length=20)
    begin = [hmm_of_vectors(3, x.flatten(0, 1), seed) for seed in range(6)]
    found = [fit_em(start, x, iterations=60, progress=False) for start in begin]
    best = max(result.objective for result in found)
    good = [result.model for result in found if result.objective > best - 0.1]
    one = good[0]
    two = next(m for m in good if not torch.allclose(m.emission.loc, one.emission.loc, atol=0.05))
    states = [m.posterior(x).posterior_decode().flatten() for m in (one, two)]
    assert not torch.equal(*states)
    order = match_states(*states)
    again = permuted(two, order)
    assert torch.equal(again.posterior(x).posterior_decode().flatten(), states[0])
    assert torch.allclose(again.emission.loc, one.emission.loc, atol=0.05)
    assert_nats(again.log_prob(x), two.log_prob(x))


def test_permuted_models_are_the_same_law() -> None:
    x = torch.randint(5, (2, 6))
    model = hmm(rand(3, 5), final_logits=rand(3))
    order = torch.tensor([2, 0, 1])
    assert_nats(permuted(model, order).log_prob(x), model.log_prob(x))
    assert not torch.allclose(permuted(model, order).initial_logits, model.initial_logits)
    with pytest.raises(ValueError, match=r"permutation of 0\.\.2"):
        permuted(model, torch.tensor([0, 0, 1]))


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="same observations"):
        match_states(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"states \(N\) int64"):
        match_states(torch.zeros(3), torch.zeros(3))
