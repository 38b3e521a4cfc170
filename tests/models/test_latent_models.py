"""Models with one latent variable for each sentence: exact values, bounds, shapes, saving."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from structlv.models import (
    RNNLM,
    ContinuousNaiveBayes,
    MixtureOfRNNLM,
    Model,
    NaiveBayes,
    NeuralTopicModel,
    TextVAE,
    elbo_under,
)
from structlv.models.bags import counts
from structlv.models.decoder import ConvolutionalDecoder, Decoder, RecurrentDecoder
from structlv.models.latent import kl_of
from structlv.models.topic_model import AdditiveLogRatio
from tests.tolerance import assert_nats, assert_probabilities

V = 5
X = torch.tensor([[1, 2, 0, 4], [3, 3, 0, 0], [2, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2, 1])
SMALL: dict[str, Any] = {"word_dim": 3, "dim": 4}
MODELS = {
    "naive Bayes": lambda: NaiveBayes(3, V),
    "mixture of RNNLMs": lambda: MixtureOfRNNLM(3, V, **SMALL),
    "continuous naive Bayes": lambda: ContinuousNaiveBayes(V, latent=2, encoder_dim=3),
    "topic model": lambda: NeuralTopicModel(V, num_topics=3, encoder_dim=3),
    "text VAE": lambda: TextVAE(V, latent=2, encoder_dim=3, **SMALL),
    "convolutional text VAE": lambda: TextVAE(
        V, latent=2, encoder_dim=3, decoder="convolutional", skip=True, bag_of_words=0.5, **SMALL
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def sentences(n: int) -> Tensor:
    """All of n words."""
    return torch.tensor(list(itertools.product(range(V), repeat=n)))


# ---- what all have in common ---------------------------------------------------------------------------


@each_model
def test_shapes_and_the_elbo_is_a_bound_in_parts(name: str) -> None:
    model = MODELS[name]()
    elbo, q = model.elbo(X, LENGTHS), model.encode(X, LENGTHS)
    assert elbo.bound.shape == elbo.kl.shape == (3,)
    assert bool((elbo.bound < 0).all())
    if elbo.kl_parts is not None:
        assert_nats(elbo.kl_parts.sum(-1), elbo.kl)
    z = q.sample((2, 6))
    assert model.log_likelihood(X, LENGTHS, z).shape == (2, 6, 3)
    x, lengths = model.generate(z[0, 0], LENGTHS)
    assert x.shape[0] == len(lengths) == 3
    assert bool(((x >= 0) & (x < V)).all())
    assert model.log_likelihood(x, lengths, z[0, 0]).isfinite().all()


@each_model
def test_padding_and_batches_change_nothing(name: str) -> None:
    model = MODELS[name]().double()
    q = model.encode(X, LENGTHS)
    z = q.sample()
    together = model.log_likelihood(X, LENGTHS, z)
    other = torch.where(torch.arange(6) < LENGTHS[:, None], torch.nn.functional.pad(X, (0, 2)), 3)
    assert_nats(model.log_likelihood(other, LENGTHS, z), together)
    for i, n in enumerate(LENGTHS.tolist()):
        alone = X[i : i + 1, :n]
        assert_nats(model.log_likelihood(alone, None, z[i : i + 1]), together[i : i + 1])
        assert_nats(kl_of(model.encode(alone), q)[0][i], torch.zeros((), dtype=torch.float64))


@each_model
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    z = model.encode(X, LENGTHS).sample()
    assert type(loaded) is type(model)
    assert torch.equal(loaded.log_likelihood(X, LENGTHS, z), model.log_likelihood(X, LENGTHS, z))  # type: ignore[attr-defined]


@each_model
def test_probabilities_given_z_sum_to_one(name: str) -> None:
    """Over sentences of two words; where the end is scored, what is left is that of other lengths."""
    model = MODELS[name]().double().eval()
    x = sentences(2)
    z = model.prior().sample((1,)).expand(len(x), *model.prior().event_shape)
    total = model.log_likelihood(x, None, z).exp().sum()
    if model.scores_end:
        shorter = model.log_likelihood(sentences(1), None, z[:V]).exp().sum()
        shorter = shorter + model.log_likelihood(x[:1], torch.tensor([0]), z[:1]).exp().sum()
        assert 0 < total.item() < 1 - shorter.item()
    else:
        assert_probabilities(total, torch.ones_like(total))


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        (X.float(), LENGTHS, r"integers of shape \(b, n\), found torch.float32 \(3, 4\)"),
        (X[0], None, r"found torch.int64 \(4,\)"),
        (X, LENGTHS[:2], r"lengths must have shape \(3,\), found \(2,\)"),
        (X, LENGTHS + 1, r"lengths must be in 0..4, found 2..5"),
    ],
)
@each_model
def test_wrong_sentences_are_named(name: str, x: Tensor, lengths: Tensor, message: str) -> None:
    model = MODELS[name]()
    with pytest.raises(ValueError, match=message):
        model.encode(x, lengths)
    z = model.encode(X, LENGTHS).sample()
    with pytest.raises(ValueError, match=message):
        model.log_likelihood(x, lengths, z)


@each_model
def test_a_wrong_z_is_named(name: str) -> None:
    model = MODELS[name]()
    z = model.encode(X, LENGTHS).sample()
    with pytest.raises(ValueError, match=r"z must have shape \(\*s, 3"):
        model.log_likelihood(X, LENGTHS, z[:2])


@pytest.mark.parametrize("name", ["naive Bayes", "continuous naive Bayes", "topic model"])
def test_bags_are_drawn_given_the_length(name: str) -> None:
    model = MODELS[name]()
    with pytest.raises(ValueError, match=r"conditional on the lengths: expected shape \(3,\), found none"):
        model.generate(model.prior().sample((3,)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NaiveBayes(0, 4), "num_components=0"),
        (lambda: NeuralTopicModel(4, num_topics=1), "num_topics - 1=0"),
        (lambda: TextVAE(4, latent=0), "latent=0"),
        (lambda: TextVAE(4, decoder="tree"), "found 'tree'"),
        (lambda: TextVAE(4, word_dropout=1.5), "found 1.5"),
    ],
)
def test_wrong_sizes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---- mixtures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["naive Bayes", "mixture of RNNLMs"])
def test_elbo_plus_kl_to_the_posterior_is_log_p(name: str) -> None:
    model = MODELS[name]().double()
    q = Categorical(logits=torch.randn(3, 3, dtype=torch.float64))
    gap = kl_divergence(q, model.posterior(X, LENGTHS))
    assert bool((gap > 0.01).all())
    assert_nats(elbo_under(q, model, X, LENGTHS).bound + gap, model.log_prob(X, LENGTHS))
    assert_nats(model.elbo(X, LENGTHS).bound, model.log_prob(X, LENGTHS))


def test_naive_bayes_is_the_sum_over_classes() -> None:
    model = NaiveBayes(3, V).double()
    mu, pi = model.prior_logits.softmax(-1), model.word_logits.softmax(-1)
    for x, n, found in zip(X, LENGTHS, model.log_prob(X, LENGTHS), strict=True):
        assert_nats(found, (mu * pi[:, x[:n]].prod(-1)).sum().log())
    assert_probabilities(model.log_prob(sentences(3)).exp().sum(), torch.ones((), dtype=torch.float64))


def test_a_word_that_a_class_never_says() -> None:
    model = NaiveBayes(2, 3).double()
    with torch.no_grad():
        model.word_logits[0, 1] = -torch.inf
    x = torch.tensor([[0, 2], [0, 1]])
    table = model.components(x, None)
    assert table[1, 0] == -torch.inf
    assert table[[0, 0, 1], [0, 1, 1]].isfinite().all()
    model.log_prob(x).sum().backward()
    assert model.word_logits.grad is not None
    assert not model.word_logits.grad.isnan().any()


def test_one_m_step_of_em_raises_the_likelihood_of_ragged_text() -> None:
    """word[z, v] = sum_n q_n(z) c_nv / sum_n q_n(z) T_n."""
    model = NaiveBayes(3, V).double()
    before = model.log_prob(X, LENGTHS).sum()
    q = model.posterior(X, LENGTHS).probs
    words = q.T @ counts(X, LENGTHS, V, torch.float64)
    assert_nats(words.sum(-1), q.T @ LENGTHS.double())
    model.start_from_tables(q.mean(0).log(), words.log())
    assert bool(model.log_prob(X, LENGTHS).sum() > before)
    with pytest.raises(ValueError, match=r"word_logits must have shape \(3, 5\), found \(5, 3\)"):
        model.start_from_tables(q.mean(0), words.T)


def test_naive_bayes_draws_what_it_says() -> None:
    model = NaiveBayes(2, 3)
    z = torch.ones(20000, dtype=torch.int64)
    x, _ = model.generate(z, torch.full_like(z, 1))
    found = torch.bincount(x[:, 0], minlength=3) / len(z)
    assert (found - model.word_logits[1].softmax(-1)).abs().max() < 0.015


def test_experts_see_their_context() -> None:
    model = MixtureOfRNNLM(2, V, context_dim=3, **SMALL).double()
    a, b = (torch.randn(3, 3, dtype=torch.float64) for _ in range(2))
    assert not torch.equal(model.prior(a).probs, model.prior(b).probs)
    assert (model.components(X, LENGTHS, a) - model.components(X, LENGTHS, b)).abs().min() > 0
    joint = model.components(X, LENGTHS, a) + model.prior(a).probs.log()
    assert_nats(model.log_prob(X, LENGTHS, a), joint.logsumexp(-1))
    x, lengths = model.generate(torch.tensor([0, 1, 1]), context=a, max_length=6)
    assert x.shape[0] == 3
    assert int(lengths.max()) <= 6
    with pytest.raises(ValueError, match=r"a context of shape \(b, 3\), found none"):
        model.log_prob(X, LENGTHS)


# ---- decoders ------------------------------------------------------------------------------------------

DECODERS = {
    "recurrent": lambda **o: RecurrentDecoder(V, **SMALL, **o),
    "convolutional": lambda **o: ConvolutionalDecoder(V, layers=2, **SMALL, **o),
}
each_decoder = pytest.mark.parametrize("kind", DECODERS)


def stepwise(decoder: Decoder, z: Tensor | None) -> list[Tensor]:
    """log p(x_t | x_<t, z) of the first sentence of X and its end, each from the decoder's own prefix."""
    found, state, word = [], None, torch.tensor([[V]])
    for target in [*X[0].tolist(), V]:
        hidden, state = decoder.hidden(decoder._inputs(word, z), state)
        found.append(decoder._scores(hidden[:, -1], z, torch.tensor([0])).log_softmax(-1)[0, target])
        word = torch.tensor([[target]])
    return found


@each_decoder
@pytest.mark.parametrize("skip", [False, True])
def test_likelihood_is_the_product_of_the_steps_that_generation_takes(kind: str, skip: bool) -> None:
    decoder = DECODERS[kind](latent=2, skip=skip).double()
    z = torch.randn(1, 2, dtype=torch.float64)
    assert_nats(decoder(X[:1], None, z)[0], torch.stack(stepwise(decoder, z)).sum())


@each_decoder
def test_z_enters_each_step(kind: str) -> None:
    """Without a state and a history that could carry it, the score of every step still changes with z."""
    decoder = DECODERS[kind](latent=2).double()
    for t in range(4):
        inputs = decoder._inputs(X[:1], torch.zeros(1, 2, dtype=torch.float64)).detach().requires_grad_()
        hidden, _ = decoder.hidden(inputs)
        (slope,) = torch.autograd.grad(hidden[0, t].square().sum(), inputs)
        assert slope[0, t, -2:].abs().min() > 0
        assert slope[0, t + 1 :].abs().sum() == 0  # and nothing comes from the future


@each_decoder
def test_word_dropout_touches_the_inputs_alone(kind: str) -> None:
    """With all words dropped, step t still predicts x_t, from <unk> alone; evaluation sees every word."""
    decoder = DECODERS[kind](latent=2, word_dropout=1.0).double()
    z = torch.randn(3, 2, dtype=torch.float64)
    dropped = decoder.train()(X, LENGTHS, z)
    seen = torch.cat([torch.full((3, 1), V), torch.zeros_like(X)], 1)
    table = decoder._scores(
        decoder.hidden(decoder._inputs(seen, z))[0].flatten(0, 1), None, torch.zeros(0)
    ).log_softmax(-1)
    table = table.unflatten(0, (3, 5))
    for i, n in enumerate(LENGTHS.tolist()):
        wanted = [*X[i, :n].tolist(), V]
        assert_nats(dropped[i], sum(table[i, t, w] for t, w in enumerate(wanted)))  # type: ignore[arg-type]
    assert bool((decoder.eval()(X, LENGTHS, z) != dropped).any())


def test_word_dropout_leaves_encoder_and_bag_of_words_alone() -> None:
    model = TextVAE(V, latent=2, encoder_dim=3, word_dropout=1.0, bag_of_words=1.0, **SMALL).train()
    a, b = (model.encode(X, LENGTHS).base_dist for _ in range(2))
    assert torch.equal(a.loc, b.loc)
    assert bool((a.loc[0] != a.loc[1]).all())  # though a decoder would see <unk> <unk> in both
    auxiliary = model.elbo(X, LENGTHS).auxiliary
    assert auxiliary is not None
    assert auxiliary.shape == (3,)


@pytest.mark.parametrize("greedy", [False, True])
def test_the_language_model_ends_its_sentences(greedy: bool) -> None:
    model = RNNLM(V, **SMALL)
    x, lengths = model.generate(50, max_length=7, greedy=greedy)
    assert x.shape == (50, max(1, int(lengths.max())))
    assert int(lengths.max()) <= 7
    inside = torch.arange(x.shape[1]) < lengths[:, None]
    assert bool((x[~inside] == 0).all())
    first = model.generate(20000, max_length=1)[1]
    empty = model.log_prob(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0])).exp()
    assert float((first == 0).float().mean()) == pytest.approx(empty.item(), abs=0.015)


# ---- the simplex ---------------------------------------------------------------------------------------


def test_the_topic_model_mixes_topics_word_by_word() -> None:
    model = NeuralTopicModel(V, num_topics=3, encoder_dim=3).double()
    z = torch.tensor([[0.2, 0.5, 0.3]] * 3, dtype=torch.float64)
    mixed = z[0] @ model.topics()
    wanted = torch.stack([mixed[x[:n]].log().sum() for x, n in zip(X, LENGTHS, strict=True)])
    assert_nats(model.log_likelihood(X, LENGTHS, z), wanted)
    assert_probabilities(model.prior().sample((4,)).sum(-1), torch.ones(4, dtype=torch.float64))


def test_the_logistic_normal_is_a_density_and_its_kl_is_the_gaussians() -> None:
    model = NeuralTopicModel(V, num_topics=2, encoder_dim=3).double()
    p = model.prior()
    share = torch.linspace(0, 1, 20001, dtype=torch.float64)[1:-1]
    density = p.log_prob(torch.stack([share, 1 - share], -1)).exp()
    assert (density.sum() / 20000).item() == pytest.approx(1.0, abs=1e-6)
    q = model.encode(X, LENGTHS)
    z = q.sample((20000,))
    sampled = (q.log_prob(z) - p.log_prob(z)).mean(0)
    assert (model.elbo(X, LENGTHS).kl - sampled).abs().max() < 0.02
    y = torch.randn(4, dtype=torch.float64)
    t = AdditiveLogRatio()
    jacobian = torch.autograd.functional.jacobian(t, y)[:-1]
    assert_nats(t.log_abs_det_jacobian(y, t(y)), jacobian.det().abs().log())
    assert_nats(t.inv(t(y)), y)


def test_the_gaussian_kl_is_the_published_one_and_a_learned_prior_gets_its_gradient() -> None:
    vae = TextVAE(V, latent=2, encoder_dim=3, **SMALL).double()
    base = vae.encode(X, LENGTHS).base_dist
    mean, log_variance = base.loc, 2 * base.scale.log()
    wanted = -0.5 * (log_variance - log_variance.exp() - mean.square() + 1)
    parts = vae.elbo(X, LENGTHS).kl_parts
    assert parts is not None
    assert_nats(parts, wanted)
    model = ContinuousNaiveBayes(V, latent=2, encoder_dim=3).double()
    with torch.no_grad():
        model.mean.add_(0.7)
    (slope,) = torch.autograd.grad(model.elbo(X, LENGTHS).kl.sum(), model.mean)
    assert_probabilities(slope, (model.mean - model.encode(X, LENGTHS).mean).sum(0))


def test_kl_without_a_closed_form_is_sampled() -> None:
    component = Independent(Normal(torch.zeros(2, 3), torch.ones(3)), 1)
    p = MixtureSameFamily(Categorical(torch.ones(2)), component)
    q = Independent(Normal(torch.ones(4000, 3), torch.ones(3)), 1)
    kl, parts = kl_of(q, p)
    assert parts is None
    assert float(kl.mean()) == pytest.approx(1.5, abs=0.1)
