"""Structured VAEs against the list of their structures: KL, bound, decoders, saving, errors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from structlv import (
    HMM,
    IMLE,
    PCFG,
    GumbelCRF,
    PerturbAndMAP,
    StochasticSoftmax,
    StraightThroughMarginals,
)
from structlv.data.batches import Batch
from structlv.distributions import Relaxation
from structlv.learning import evaluate, importance_bound
from structlv.learning.control_variates import REBAR, RELAX
from structlv.learning.estimators import VIMCO, Relaxed, ScoreFunction, UnorderedSet
from structlv.models import ChainVAE, GrammarVAE, Model, StructuredVAE, TreeVAE
from structlv.models.recognition import ChainRecognition
from structlv.models.structured_decoders import StructuredDecoder
from structlv.models.structured_priors import MarkovPrior
from tests.distributions.examples import chain_structures
from tests.distributions.tree_cases import tree_structures
from tests.models.structured import MODELS, VOCABULARY, Listed, built, gradient, models, one_sentence, trained
from tests.tolerance import assert_nats, assert_probabilities


@models
@pytest.mark.parametrize("length", [3, 2])
def test_the_kl_is_that_of_the_list(name: str, length: int) -> None:
    model, lengths = built(name), torch.tensor([length])
    listed = Listed(model, name, one_sentence(), lengths)
    assert_nats(listed.q.sum(), torch.ones((), dtype=torch.float64))
    q, p = model.encode(one_sentence(), lengths), model.prior_for(one_sentence(), lengths)
    assert listed.kl > 0.01
    assert_nats(q.kl(p)[0], listed.kl)
    assert_nats(model.elbo(one_sentence(), lengths).kl[0], listed.kl)
    assert_probabilities(gradient(q.kl(p)[0], trained(model)), gradient(listed.kl, trained(model)))


@models
def test_the_bound_and_its_gap_make_the_likelihood(name: str) -> None:
    """With every structure in the set, the estimate of the bound is exact, and so is its gradient."""
    model, x = built(name), one_sentence()
    listed = Listed(model, name, x)
    bound = model.use(UnorderedSet(len(listed))).elbo(x).bound[0]
    log_prob = listed.log_joint.logsumexp(0)
    gap = (listed.q * (listed.log_q - (listed.log_joint - log_prob))).sum()
    assert gap > 0.01
    assert_nats(bound + gap, log_prob)
    exact = listed.reconstruction - listed.kl
    assert_nats(bound, exact)
    assert_probabilities(gradient(bound, trained(model)), gradient(exact, trained(model)))


@models
def test_decoders_are_distributions_over_sentences(name: str) -> None:
    """Given a structure, the probabilities of all sentences sum to 1: no word sees itself, or a later one."""
    model = built(name)
    events = Listed(model, name, one_sentence()).events[:5]
    every = every_sentence(3)
    log_prob = model.log_likelihood(every, None, events.expand(-1, len(every), *events.shape[2:]))
    assert_nats(log_prob.logsumexp(-1), torch.zeros(5, dtype=torch.float64))
    assert log_prob.std(0).min() > 1e-3  # structures make a difference


@models
def test_padding_and_neighbours_change_nothing(name: str) -> None:
    model = built(name)
    x, lengths = torch.tensor([[2, 0, 1, 1], [1, 2, 0, 2]]), torch.tensor([3, 4])
    other = torch.tensor([[2, 0, 1, 0], [0, 0, 0, 0]])
    alone = Listed(model, name, one_sentence())
    listed = [Listed(model, name, y[:1], lengths[:1]) for y in (x, other)]
    assert_nats(listed[0].log_joint, alone.log_joint)
    assert torch.equal(listed[0].log_joint, listed[1].log_joint)
    assert_nats(listed[0].log_q, alone.log_q)
    kl = model.encode(x, lengths).kl(model.prior_for(x, lengths))
    assert_nats(kl[:1], alone.kl.unsqueeze(0))


def every_sentence(n: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(VOCABULARY), repeat=n)))


def test_the_markov_prior_is_the_hidden_part_of_an_hmm() -> None:
    """The words of an HMM with these states summed out: p(z), normalised whatever the length."""
    prior = built("chain").structure_prior
    p = prior(3, torch.tensor([3, 2, 1]))
    assert_nats(p.log_partition(), torch.zeros(3, dtype=torch.float64))
    emission = torch.randn(2, VOCABULARY).double()
    hmm = HMM(prior.initial_logits, prior.transition_logits, emission)
    events = chain_structures(p[0])
    joint = hmm.posterior(every_sentence(3)).score(events.unsqueeze(1))
    assert_nats(p[0].log_prob(events), joint.logsumexp(-1))


def test_the_grammar_prior_is_that_of_the_trees_of_a_pcfg() -> None:
    """p(tree | n words), the words summed out."""
    prior = built("grammar").structure_prior
    p = prior(3, torch.tensor([3]))
    pcfg = PCFG(prior.root_logits, prior.rule_logits, torch.randn(1, VOCABULARY).double())
    events = tree_structures(p[0])
    joint = pcfg.posterior(every_sentence(3)).score(events.unsqueeze(1))
    length = pcfg.log_prob(every_sentence(3)).logsumexp(0)
    assert length < -0.1
    assert_nats(p.log_prob(events.unsqueeze(1))[:, 0], joint.logsumexp(-1) - length)


def test_the_span_prior_starts_uniform() -> None:
    p = TreeVAE(5, num_labels=2, dim=4).structure_prior(4, torch.tensor([4, 3, 1]))
    assert_nats(p.entropy(), p.log_count().float())


@models
@pytest.mark.parametrize(
    "method",
    [
        StochasticSoftmax(),
        PerturbAndMAP(),
        GumbelCRF(),
        GumbelCRF(hard=True),
        StraightThroughMarginals(),
        IMLE(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_every_relaxation_reaches_every_parameter(name: str, method: Relaxation) -> None:
    """Lengths differ, and in float32."""
    model = MODELS[name][0]().use(Relaxed(method, num_samples=3))
    x, lengths = torch.randint(0, VOCABULARY, (3, 5)), torch.tensor([5, 2, 4])
    bound = model.elbo(x, lengths).bound
    assert bound.shape == (3,)
    bound.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


def test_samples_come_in_front(backend: str) -> None:
    model = ChainVAE(5, num_states=3, dim=4)
    x, lengths = torch.randint(0, 5, (4, 6)), torch.tensor([6, 1, 3, 5])
    z = model.encode(x, lengths).sample((2, 3))
    assert z.shape == (2, 3, 4, 6)
    found = model.log_likelihood(x, lengths, z)
    assert found.shape == (2, 3, 4)
    assert_nats(found[1, 2], model.log_likelihood(x, lengths, z[1, 2]), torch.float32)
    elbo = model.elbo(x, lengths)
    assert elbo.reconstruction.shape == elbo.kl.shape == (4,)


class Spy(StructuredDecoder):
    """Remembers the parts that it was asked for; sees structures alone."""

    soft = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, lengths: Tensor, parts: Any) -> Tensor:
        self.seen.append(parts.unary.detach())
        return self.weight * parts.unary.detach()[..., 0].sum(-1)


def spied(soft: bool) -> tuple[StructuredVAE, Spy]:
    decoder = Spy()
    decoder.soft = soft  # type: ignore[misc]
    return StructuredVAE(ChainRecognition(5, 3, 4), MarkovPrior(3), decoder), decoder


def test_what_is_reported_comes_from_hard_samples() -> None:
    model, decoder = spied(soft=True)
    model.use(Relaxed(temperature=5.0))
    x = torch.randint(0, 5, (4, 6))
    with torch.no_grad():
        model.elbo(x)
    assert set(decoder.seen[-1].unique().tolist()) == {0.0, 1.0}
    model.elbo(x)
    assert 0 < decoder.seen[-1].min() < 0.3


def test_a_decoder_of_structures_alone_refuses_what_it_cannot_do() -> None:
    model, decoder = spied(soft=False)
    x = torch.randint(0, 5, (4, 6))
    for estimator in (Relaxed(), REBAR(), RELAX(lambda parts: parts.unary.sum((-1, -2)), with_f=True)):
        with pytest.raises(
            ValueError, match=f"{type(estimator).__name__} needs relaxed.*Spy takes structures"
        ):
            model.use(estimator)
    with pytest.raises(ValueError, match=r"default estimator.*expected an estimator such as ScoreFunction"):
        model.elbo(x)
    with torch.no_grad():
        assert model.elbo(x).bound.isfinite().all()
    for good in (ScoreFunction(3), UnorderedSet(3), RELAX(lambda parts: parts.unary[..., 0].sum(-1))):
        model.use(good).elbo(x).bound.sum().backward()
        assert set(decoder.seen[-1].unique().tolist()) == {0.0, 1.0}
        assert model.recognition.transition.grad is not None


def test_bounds_are_no_estimators_of_the_reconstruction() -> None:
    with pytest.raises(ValueError, match="VIMCO does not estimate a mean; give it to importance_bound"):
        ChainVAE(5, dim=4).use(VIMCO(4))
    with pytest.raises(ValueError, match="expected an estimator of the log of a mean, VIMCO, found Score"):
        ChainVAE(5, dim=4).importance_bound(torch.tensor([[1, 2]]), None, ScoreFunction(4))


def test_word_dropout_is_of_the_training_alone() -> None:
    model = TreeVAE(5, dim=4, word_dropout=1.0)
    x, other = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 0, 3]])
    z = model.encode(x).sample()
    gaps = [
        model.decoder.seen.train(training)(x).sub(model.decoder.seen(other)).abs().max()
        for training in (True, False)
    ]
    assert gaps[0] == 0 < gaps[1]
    assert model.eval().log_likelihood(x, None, z) != model.train().log_likelihood(x, None, z)


@models
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = MODELS[name][0]().use(REBAR())
    model.save(tmp_path / "model")
    assert isinstance(model.estimator, REBAR)
    loaded = Model.load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert isinstance(loaded, StructuredVAE)
    assert loaded.hyperparameters == model.hyperparameters
    x = torch.tensor([[2, 0, 1], [1, 1, 0]])
    z = model.encode(x).sample((4,))
    model.eval()
    assert torch.equal(loaded.log_likelihood(x, None, z), model.log_likelihood(x, None, z))
    assert torch.equal(loaded.encode(x).log_prob(z), model.encode(x).log_prob(z))
    assert torch.equal(loaded.prior_for(x).log_prob(z), model.prior_for(x).log_prob(z))


def test_given_modules_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a subclass whose constructor makes them"):
        spied(soft=True)[0].save(tmp_path / "model")


def test_estimators_can_be_changed_whatever_they_are() -> None:
    model = ChainVAE(5, dim=4)
    count = len(list(model.parameters()))
    for estimator in (REBAR(), ScoreFunction(2), None, RELAX(lambda p: p.unary.sum((-1, -2))), REBAR(), None):
        assert model.use(estimator).estimator is estimator
    assert len(list(model.parameters())) == count
    assert len(list(model.use(REBAR()).parameters())) == count + 2  # trained along


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"dim must be even and at least 2.*found 5"):
        ChainVAE(5, dim=5)
    with pytest.raises(ValueError, match="num_labels=0"):
        TreeVAE(5, num_labels=0)
    with pytest.raises(ValueError, match=r"word_dropout must be in \[0, 1\], found 1.5"):
        TreeVAE(5, dim=4, word_dropout=1.5)
    with pytest.raises(ValueError, match=r"no word is seen that could be dropped, found word_dropout=0.5"):
        ChainVAE(5, dim=4, word_dropout=0.5)
    with pytest.raises(ValueError, match="at least two words, found a length of 1"):
        GrammarVAE(5, dim=4).encode(torch.tensor([[1, 2], [1, 2]]), torch.tensor([2, 1]))


@models
def test_importance_weights_and_evaluation_know_the_length(name: str) -> None:
    model, x = built(name), one_sentence().expand(2, -1)
    lengths = torch.tensor([3, 2])
    exact = torch.stack(
        [Listed(model, name, x[:1], lengths[i : i + 1]).log_joint.logsumexp(0) for i in (0, 1)]
    )
    torch.manual_seed(0)
    found = evaluate(model, [Batch(x, lengths, lengths)], num_samples=2000)
    assert found.log_likelihood == pytest.approx(float(exact.detach().mean()), abs=0.05)
    assert found.swapped is None
    assert importance_bound(model, x, lengths, num_samples=2, gradient="vimco").shape == (2,)
