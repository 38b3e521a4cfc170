"""Gradients of the bound of structured VAEs, by every estimator, against the list of structures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from structlv import GumbelCRF, StochasticSoftmax, StraightThroughMarginals
from structlv.data import Batches
from structlv.learning.control_variates import REBAR, RELAX
from structlv.learning.estimators import VIMCO, MovingAverage, Relaxed, ScoreFunction, UnorderedSet
from structlv.models import ChainVAE, StructuredVAE
from tests.models.structured import MODELS, Listed, built, gradient, one_sentence, trained

RUNS, COPIES = 30, 80
STANDARD_ERRORS = 4.0
structures = pytest.mark.parametrize("name", ["chain", "tree"])


class Control(nn.Module):
    """Some learned function of the parts."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(3, 2) if name == "chain" else 0.3 * torch.randn(3, 3, 2))

    def forward(self, parts: Any) -> Tensor:
        return (parts[0] * self.weight).flatten(-self.weight.dim()).sum(-1).tanh()


UNBIASED: dict[str, Callable[[str], Any]] = {
    "score function, leave one out": lambda _: ScoreFunction(2),
    "score function, moving average": lambda _: ScoreFunction(1, MovingAverage()),
    "score function alone": lambda _: ScoreFunction(2, None),
    "unordered set": lambda _: UnorderedSet(3),
    "REBAR": lambda _: REBAR(temperature=0.7),
    "RELAX": lambda name: RELAX(Control(name), temperature=0.7),
}
# of a sample that is exact on the way forward: what does not act on the sample has an unbiased gradient
EXACT_SAMPLES: dict[str, Callable[[], Any]] = {
    "the default": lambda: None,
    "straight-through marginals": lambda: Relaxed(StraightThroughMarginals()),
    "hard Gumbel-CRF": lambda: Relaxed(GumbelCRF(hard=True), temperature=0.5),
}


def runs(
    model: StructuredVAE, parameters: list[Tensor], value: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Values (RUNS,) and gradients (RUNS, parameters), each the mean over copies of one sentence."""
    many = one_sentence().expand(COPIES, -1)
    values, gradients = [], []
    for _ in range(RUNS):
        estimate = value(many).mean()
        values.append(estimate.detach())
        gradients.append(gradient(estimate, parameters))
    return torch.stack(values), torch.stack(gradients)


def errors(found: Tensor, wanted: Tensor) -> Tensor:
    """How many standard errors the mean is off; where nothing varies, 0 if it is right."""
    error = (found.mean(0) - wanted).abs()
    return torch.where(error < 1e-10, 0.0, error / (found.std(0) / len(found) ** 0.5))


@structures
@pytest.mark.parametrize("method", UNBIASED)
def test_the_gradient_is_unbiased(name: str, method: str) -> None:
    model = built(name).use(UNBIASED[method](name))
    listed = Listed(model, name, one_sentence())
    exact = listed.reconstruction - listed.kl
    values, gradients = runs(model, trained(model), lambda x: model.elbo(x).bound)
    assert errors(values, exact.detach()) < STANDARD_ERRORS
    assert errors(gradients, gradient(exact, trained(model))).max() < STANDARD_ERRORS


@structures
@pytest.mark.parametrize("method", EXACT_SAMPLES)
def test_of_exact_samples_the_value_and_the_decoders_gradient_are_unbiased(name: str, method: str) -> None:
    model = built(name).use(EXACT_SAMPLES[method]())
    listed = Listed(model, name, one_sentence())
    exact = listed.reconstruction - listed.kl
    mine = trained(model, "decoder", "structure_prior")
    values, gradients = runs(model, mine, lambda x: model.elbo(x).bound)
    assert errors(values, exact.detach()) < STANDARD_ERRORS
    assert errors(gradients, gradient(exact, mine)).max() < STANDARD_ERRORS


@structures
def test_the_check_notices_a_bias(name: str) -> None:
    """That of the relaxation, which claims nothing."""
    model = built(name).use(Relaxed(StochasticSoftmax(), temperature=2.0))
    listed = Listed(model, name, one_sentence())
    exact = listed.reconstruction - listed.kl
    _, gradients = runs(model, trained(model), lambda x: model.elbo(x).bound)
    assert errors(gradients, gradient(exact, trained(model))).max() > 2 * STANDARD_ERRORS


@structures
def test_the_importance_weighted_bound(name: str) -> None:
    """VIMCO with two samples, against all pairs of structures; and above the evidence lower bound."""
    model = built(name)
    listed = Listed(model, name, one_sentence())
    exact = listed.importance_bound()
    assert listed.reconstruction - listed.kl < exact < listed.log_joint.logsumexp(0)
    values, gradients = runs(model, trained(model), lambda x: model.importance_bound(x, None, VIMCO(2)))
    assert errors(values, exact.detach()) < STANDARD_ERRORS
    assert errors(gradients, gradient(exact, trained(model))).max() < STANDARD_ERRORS


@pytest.mark.parametrize("estimator", [ScoreFunction(4), REBAR(num_samples=4)])
def test_it_trains_through_the_objective(estimator: Any, tmp_path: Path) -> None:
    """Two kinds of sentences, one word each: the bound rises above what a unigram knows."""
    pytest.importorskip("pytorch_lightning")
    from structlv.learning import EvidenceLowerBound, fit

    torch.manual_seed(0)
    model = ChainVAE(2, num_states=2, dim=8).use(estimator)
    sentences = [torch.full((4,), i % 2) for i in range(32)]
    objective = EvidenceLowerBound(model, lr=0.03)
    data = Batches(sentences, 16), Batches(sentences, 16, shuffle=False)
    trainer = fit(objective, *data, folder=tmp_path, epochs=30, progress=False)
    assert trainer.callback_metrics["val_nats"].item() < 0.5 < torch.tensor(2.0).log()
    if isinstance(estimator, REBAR):
        assert estimator.temperature != 0.5


def test_a_control_variate_that_sees_some_of_the_choices_only() -> None:
    """That of a grammar's tree that looks at the symbol on top: choices of other kinds go without."""
    model = MODELS["grammar"][0]().use(RELAX(lambda parts: parts.root[..., 0]))
    model.elbo(one_sentence()).bound.sum().backward()
    assert model.recognition.rules.grad.isfinite().all()
