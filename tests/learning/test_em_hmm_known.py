"""EM of HMMs with parameters fixed or tied, and with some labels known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

from structlv import HMM
from structlv.learning import (
    Prior,
    Tied,
)
from tests.learning.em_families import (
    F64,
    LENGTHS,
    PRIOR,
    B,
    K,
    N,
    assert_climbs,
    diagonal,
    fit,
    full,
    mixture,
    model_of,
    rand,
    symbols,
)
from tests.tolerance import assert_nats, assert_probabilities


@pytest.mark.parametrize(
    "name", ["initial", "transition", "final", "means", "covariance", "weights", "emission"]
)
def test_what_is_fixed_stays_and_the_rest_climbs(name: str) -> None:
    emission, x = mixture()
    model = model_of(emission, stop=True)
    result = fit(model, x, LENGTHS, prior=Prior(covariance=0.1), fixed=name)
    assert_climbs(result)

    def parts(m: HMM) -> dict[str, Tensor]:
        c = m.emission.component_distribution
        return {
            "initial": m.initial_logits,
            "transition": m.transition_logits.log_softmax(-1),
            "final": m.final_logits,
            "means": c.loc,
            "covariance": c.covariance_matrix,
            "weights": m.emission.mixture_distribution.logits,
        }

    before, after = parts(model), parts(result.model)
    still = {"means", "covariance", "weights"} if name == "emission" else {name}
    for part in before:
        same = bool(torch.allclose(before[part], after[part], atol=1e-12))
        assert same == (part in still), part


def test_an_emission_of_any_kind_may_be_fixed() -> None:
    model = HMM(rand(K), rand(K, K), td.Laplace(rand(K), torch.ones(K).double()))
    x = rand(B, N)
    result = fit(model, x, fixed=("emission",))
    assert_climbs(result)
    with pytest.raises(TypeError, match="Laplace"):
        fit(model, x)
    with pytest.raises(
        ValueError, match="fixed must name parameters among initial, transition, final, emission"
    ):
        fit(model, x, fixed=("emission", "start"))


def test_tied_rows_are_one_row() -> None:
    emission, x = full()
    tied = Tied(transition=[0, 1, 0], emission=[5, 2, 2])
    result = fit(model_of(emission, stop=True), x, LENGTHS, prior=PRIOR._replace(transition=0.1), tied=tied)
    assert_climbs(result)
    rows = result.model.transition_logits
    assert_probabilities(rows[0], rows[2])
    assert not torch.allclose(rows[0], rows[1])
    found = result.model.emission
    assert torch.equal(found.loc[1], found.loc[2])
    assert torch.equal(found.covariance_matrix[1], found.covariance_matrix[2])
    assert not torch.allclose(found.loc[0], found.loc[1])


@pytest.mark.parametrize("family", [full, mixture], ids=["normal", "mixture"])
def test_tied_covariances_are_one_and_means_differ(family: Any) -> None:
    emission, x = family()
    groups = [0, 1, 0] if family is full else [[0, 0], [1, 1], [2, 2]]
    result = fit(model_of(emission), x, prior=PRIOR, tied=Tied(covariance=groups))
    assert_climbs(result)
    inner = result.model.emission if family is full else result.model.emission.component_distribution
    c = inner.covariance_matrix
    same, other = (c[0], c[2]) if family is full else (c[0, 0], c[0, 1])
    assert torch.equal(same, other)
    assert not torch.allclose(c[0], c[1])
    assert not torch.allclose(inner.loc[0], inner.loc[2])


def test_spherical_covariances_are_equal_in_all_dimensions() -> None:
    emission, x = diagonal()
    result = fit(model_of(emission), x, prior=PRIOR, tied=Tied(spherical=True))
    assert_climbs(result)
    scale = result.model.emission.base_dist.scale
    assert torch.equal(scale[:, 0], scale[:, 1])
    assert not torch.allclose(scale[0], scale[1])


def test_partial_labels_are_evidence() -> None:
    """The likelihood is that of the data with the labels; with all labels one M-step counts them."""
    emission, x = symbols()
    model = model_of(emission)
    states = torch.randint(-1, K, (B, N))
    result = fit(model, x, LENGTHS, evidence={"states": states})
    assert_climbs(result)
    chain = result.model.posterior(x, LENGTHS).condition(states=states)
    assert_nats(torch.tensor(result.log_likelihood, dtype=F64), chain.log_partition().sum())
    known = torch.randint(K, (B, N))
    counted = fit(model, x, evidence={"states": known}, iterations=1).model
    moves = torch.zeros(K, K, dtype=F64)
    moves.index_put_(
        (known[:, :-1].flatten(), known[:, 1:].flatten()), torch.ones(B * (N - 1)).double(), True
    )
    assert_probabilities(counted.transition_logits.exp(), moves / moves.sum(-1, keepdim=True))
    allowed = torch.ones(N, K, dtype=torch.bool)
    allowed[3, 0] = False
    held = fit(model, x, evidence={"allowed": allowed})  # one mask for all sequences
    chain = held.model.posterior(x).condition(allowed=allowed.expand(B, N, K))
    assert_nats(torch.tensor(held.log_likelihood, dtype=F64), chain.log_partition().sum())
    with pytest.raises(ValueError, match=r"'states' must have shape \(\*b, n\)"):
        fit(model, x, evidence={"states": states[:, :3]})


def test_what_is_impossible_stays_so_under_a_prior() -> None:
    emission, x = symbols()
    left_to_right = torch.zeros(K, K, dtype=F64).masked_fill(~torch.ones(K, K).triu().bool(), -torch.inf)
    model = HMM(torch.tensor([0.0, -torch.inf, -torch.inf], dtype=F64), left_to_right, emission)
    result = fit(model, x, prior=PRIOR)
    assert_climbs(result)
    assert torch.equal(result.model.transition_logits == -torch.inf, left_to_right == -torch.inf)
    assert result.model.initial_logits.tolist() == model.initial_logits.tolist()
