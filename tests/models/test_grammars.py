"""The grammar-induction models: against enumeration, and what each promises."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from structlv.models import CompoundPCFG, LowRankNeuralPCFG, Model, NeuralPCFG, SimpleNeuralPCFG
from structlv.models.grammar import GrammarModel
from structlv.models.lookup import gather_log_softmax

SIZES = {"num_nonterminals": 2, "num_preterminals": 3, "dim": 6}
WORDS = 7
X = torch.tensor([[1, 4, 2, 6], [3, 3, 0, 0], [5, 0, 6, 0]])
LENGTHS = torch.tensor([4, 2, 3])


def neural() -> NeuralPCFG:
    torch.manual_seed(1)
    return NeuralPCFG(WORDS, **SIZES).double()


def compound() -> CompoundPCFG:
    torch.manual_seed(1)
    return CompoundPCFG(WORDS, latent=3, word_dim=4, encoder_dim=5, **SIZES).double()


def lowrank() -> LowRankNeuralPCFG:
    torch.manual_seed(1)
    return LowRankNeuralPCFG(WORDS, rank=4, **SIZES).double()


def simple() -> SimpleNeuralPCFG:
    torch.manual_seed(1)
    return SimpleNeuralPCFG(WORDS, **SIZES).double()


MODELS = [neural, compound, lowrank, simple]
SHARED = [neural, lowrank, simple]


def brackets(i: int, j: int) -> list[list[tuple[int, int]]]:
    """Every binary tree over words i..j, as its spans in pre-order."""
    if i == j:
        return [[(i, i)]]
    pairs = ((left, right) for k in range(i, j) for left in brackets(i, k) for right in brackets(k + 1, j))
    return [[(i, j), *left, *right] for left, right in pairs]


def derive(spans: list, labels: list[int], rules: torch.Tensor, emission: torch.Tensor, words: list) -> float:
    """The probability of a labelled tree below its root; takes its rows off the front of the lists."""
    (i, j), symbol = spans.pop(0), labels.pop(0)
    if i == j:
        return float(emission[symbol - SIZES["num_nonterminals"], words[i]])
    left = labels[0]
    p = derive(spans, labels, rules, emission, words)
    right = labels[0]
    return float(rules[symbol, left, right]) * p * derive(spans, labels, rules, emission, words)


def enumerated(root: Any, rules: Any, emission: Any, words: list[int]) -> float:
    """log p(words) as a sum over every labelled tree, straight from the definition."""
    nonterminals, preterminals = range(2), range(2, 5)
    total = 0.0
    for spans in brackets(0, len(words) - 1):
        kinds = [preterminals if i == j else nonterminals for i, j in spans]
        for labels in itertools.product(*kinds):
            p = derive(list(spans), list(labels), rules, emission, words)
            total += float(root[labels[0]]) * p
    return math.log(total)


def grammar(model: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities of root, rules and words, from the networks' scores by the definition of each model."""
    symbols = SIZES["num_nonterminals"] + SIZES["num_preterminals"]
    if isinstance(model, NeuralPCFG):
        net = model.network
        rules = net.rule_logits().flatten(1).softmax(-1).reshape(-1, symbols, symbols)
        return net.root_logits().softmax(-1), rules, net.word(net.hidden()).softmax(-1)
    parents = model.embedding[: model.num_nonterminals]
    if isinstance(model, SimpleNeuralPCFG):
        left, right = ((f(parents) @ model.embedding.T).softmax(-1) for f in (model.left, model.right))
        rules = left[:, :, None] * right[:, None, :]
    else:
        head = model.head(parents).softmax(-1)
        left, right = (f(model.embedding).softmax(0).T for f in (model.left, model.right))
        rules = torch.einsum("aq,qy,qz->ayz", head, left, right)
    return model.root(model.start).softmax(-1), rules, model.emission_logits().softmax(-1)


@pytest.mark.parametrize("make", SHARED)
@torch.no_grad()
def test_log_prob_equals_enumeration(make: Any) -> None:
    model = make()
    found = model.log_prob(X, LENGTHS)
    wanted = [enumerated(*grammar(model), x[:n].tolist()) for x, n in zip(X, LENGTHS.tolist(), strict=True)]
    torch.testing.assert_close(found.tolist(), wanted, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_the_compound_grammar_of_a_sentence_equals_enumeration() -> None:
    model = compound()
    z = torch.randn(3, 3, dtype=torch.float64)
    found = model.given(z, X, LENGTHS).log_partition()
    for b, n in enumerate(LENGTHS.tolist()):
        net, own = model.network, z[b : b + 1]
        inputs = [torch.cat([e, own.expand(len(e), -1)], -1) for e in (net.start, net.preterminal)]
        root = net.root(inputs[0])[0].softmax(-1)
        joint = torch.cat([net.nonterminal, own.expand(2, -1)], -1)
        weight = torch.cat([net.rule.weight, net.rule_of_latent.weight], -1)
        rules = (joint @ weight.T + net.rule.bias).softmax(-1).reshape(2, 5, 5)
        emission = net.word(net.emission(inputs[1])).softmax(-1)
        wanted = enumerated(root, rules, emission, X[b, :n].tolist())
        assert math.isclose(float(found[b]), wanted, rel_tol=1e-10)


@torch.no_grad()
def test_the_bound_is_reconstruction_minus_kl_and_ignores_padding() -> None:
    model = compound()
    mean, log_variance = model.infer(X, LENGTHS)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    wanted = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(-1)
    found = model.elbo(X, LENGTHS)
    torch.testing.assert_close(found.kl, wanted)
    torch.testing.assert_close(found.bound, found.reconstruction - wanted)
    for b, n in enumerate(LENGTHS.tolist()):
        alone = model.infer(X[b : b + 1, :n])
        torch.testing.assert_close(alone[0][0], mean[b])
        torch.testing.assert_close(alone[1][0], log_variance[b])


@torch.no_grad()
def test_a_sentence_without_words_is_impossible_and_disturbs_no_other() -> None:
    model = compound()
    z = torch.zeros(3, 3, dtype=torch.float64)
    found = model.given(z, X, torch.tensor([4, 0, 3])).log_partition()
    assert found[1] == -torch.inf
    assert torch.equal(found[[0, 2]], model.given(z, X, LENGTHS).log_partition()[[0, 2]])
    assert model.infer(X, torch.tensor([4, 0, 3]))[0].isfinite().all()


@torch.no_grad()
def test_the_bound_lies_under_the_likelihood() -> None:
    model = compound()
    z = torch.randn(20000, 3, dtype=torch.float64)
    x = X[:1].expand(20000, -1)
    likelihood = float(model.given(z, x).log_partition().logsumexp(0)) - math.log(20000)
    bound = float(model.elbo(x).bound.mean())
    assert likelihood - 3 < bound < likelihood


@torch.no_grad()
def test_the_compound_grammar_is_a_model_with_one_latent_variable() -> None:
    model = compound()
    z = model.encode(X, LENGTHS).sample((2, 4))
    found = model.log_likelihood(X, LENGTHS, z)
    assert found.shape == (2, 4, 3)
    torch.testing.assert_close(found[1, 2], model.given(z[1, 2], X, LENGTHS).log_partition())
    assert model.prior().log_prob(z).shape == (2, 4, 3)
    parts = model.elbo(X, LENGTHS).kl_parts
    assert parts is not None
    assert parts.shape == (3, 3)


@pytest.mark.parametrize("make", MODELS)
def test_every_parameter_gets_a_gradient(make: Any) -> None:
    model = make()
    loss = model.elbo(X, LENGTHS).bound if isinstance(model, CompoundPCFG) else model.log_prob(X, LENGTHS)
    (-loss.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("method", ["viterbi", "mbr"])
def test_parse_gives_binary_trees(make: Any, method: str) -> None:
    model: GrammarModel = make()
    trees = model.parse(X, LENGTHS, method=method)
    assert trees.shape == (3, 7, 3)
    for rows, n in zip(trees.tolist(), LENGTHS.tolist(), strict=True):
        real = [(i, j) for i, j, _ in rows if i >= 0]
        assert real in brackets(0, n - 1)
        assert all(row == [-1, -1, -1] for row in rows[2 * n - 1 :])


def test_another_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'viterbi' or 'mbr', found 'best'"):
        neural().parse(X, LENGTHS, method="best")


@pytest.mark.parametrize("make", MODELS)
@torch.no_grad()
def test_a_saved_model_is_the_same_model(make: Any, tmp_path: Path) -> None:
    model = make().float()
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert type(again) is type(model)
    assert torch.equal(again.parse(X, LENGTHS), model.parse(X, LENGTHS))


@pytest.mark.parametrize("kind", [NeuralPCFG, CompoundPCFG, LowRankNeuralPCFG, SimpleNeuralPCFG])
def test_sizes_are_checked(kind: Any) -> None:
    with pytest.raises(ValueError, match="num_nonterminals=0"):
        kind(5, num_nonterminals=0)


@pytest.mark.parametrize("shape", [(3, 5, 4), (5, 4)])
def test_words_are_looked_up_without_the_table(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structlv.models.lookup.CHUNK", 37)  # several pieces, the last one smaller
    hidden, weight, bias = (torch.randn(s, dtype=torch.float64) for s in (shape, (11, 4), (11,)))
    index = torch.randint(11, (3, 7))
    table = (hidden @ weight.T + bias).log_softmax(-1).expand(3, 5, 11)
    wanted = table.gather(-1, index[:, None].expand(3, 5, 7)).transpose(-1, -2)
    arguments = tuple(x.requires_grad_() for x in (hidden, weight, bias))
    torch.testing.assert_close(gather_log_softmax(*arguments, index), wanted)
    assert torch.autograd.gradcheck(lambda *a: gather_log_softmax(*a, index), arguments)
