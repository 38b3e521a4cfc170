"""EM of Naive Bayes and of grammars: against enumeration, always upward, and trap 2 of the tutorial."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from structlv import PCFG
from structlv.learning import NaiveBayesTables, Prior, fit_em, fit_stepwise_em
from structlv.learning.em.naive_bayes import NaiveBayesProblem
from structlv.learning.em.pcfg import PCFGProblem
from structlv.models import NaiveBayes
from tests.tolerance import assert_nats, assert_probabilities

F64 = torch.float64
B, N, K, V = 8, 6, 3, 5
LENGTHS = torch.tensor([6, 5, 2, 2, 3, 6, 4, 2])
NT, T = 2, 2


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def bayes() -> NaiveBayesTables:
    return NaiveBayesTables(rand(K), rand(K, V))


def grammar() -> PCFG:
    return PCFG(rand(NT), rand(NT, NT + T, NT + T), rand(T, V))


def words() -> Tensor:
    return torch.randint(V, (B, N))


def fit(start: Any, x: Tensor, *given: Any, **options: Any) -> Any:
    return fit_em(start, x, *given, **{"progress": False, "iterations": 12, "tolerance": -1.0, **options})


def assert_climbs(result: Any) -> None:
    assert all(b >= a - 1e-9 * max(1.0, abs(a)) for a, b in pairwise(result.history))
    assert result.history[-1] > result.history[0] + 0.1


@pytest.mark.parametrize("make", [bayes, grammar], ids=["bayes", "grammar"])
@pytest.mark.parametrize("prior", [Prior(), Prior(0.5, 0.3, 1.0)], ids=["likelihood", "prior"])
@pytest.mark.parametrize("seed", range(5))
def test_the_objective_never_falls(make: Any, prior: Prior, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = make(), words()
    mask = torch.rand(B, N) < 0.9 if seed % 2 else None
    result = fit(model, x, LENGTHS, mask, prior=prior)
    assert_climbs(result)
    log_p = result.model.log_prob(x, LENGTHS, mask).sum()
    assert_nats(torch.tensor(result.log_likelihood, dtype=F64), log_p)


def test_bayes_sums_over_its_classes() -> None:
    model, x = bayes(), words()
    total = torch.zeros(B, dtype=F64)
    for z in range(K):
        tokens = [model.word_logits[z, row[:n]].sum() for row, n in zip(x, LENGTHS, strict=True)]
        total += (model.prior_logits[z] + torch.stack(tokens)).exp()
    assert_nats(model.log_prob(x, LENGTHS), total.log())


def test_long_sequences_weigh_more_and_the_other_formula_falls() -> None:
    """pi[z, v] = sum_n q_n(z) c_nv / sum_n q_n(z) T_n; with 1 / T_n inside the sum it is no EM."""
    fell = 0
    for seed in range(40):
        torch.manual_seed(seed)
        model, x = bayes(), words()
        q = torch.stack(
            [
                model.prior_logits + model.word_logits[:, r[:n]].sum(-1)
                for r, n in zip(x, LENGTHS, strict=True)
            ]
        )
        q = q.softmax(-1)
        counts = torch.stack(
            [torch.bincount(r[:n], minlength=V) for r, n in zip(x, LENGTHS, strict=True)]
        ).double()
        found = fit(model, x, LENGTHS, iterations=1).model
        right = q.T @ counts / (q.T @ LENGTHS.double()).unsqueeze(-1)
        assert_probabilities(found.word_logits.exp(), right)
        assert_probabilities(found.prior_logits.exp(), q.mean(0))
        wrong = q.T @ (counts / LENGTHS.unsqueeze(-1))
        other = NaiveBayesTables(q.mean(0).log(), (wrong / wrong.sum(-1, keepdim=True)).log())
        before = model
        for _ in range(6):
            fell += bool(other.log_prob(x, LENGTHS).sum() < before.log_prob(x, LENGTHS).sum())
            before, q = other, q_of(other, x)
            wrong = q.T @ (counts / LENGTHS.unsqueeze(-1))
            other = NaiveBayesTables(q.mean(0).log(), (wrong / wrong.sum(-1, keepdim=True)).log())
    assert fell > 0


def q_of(model: NaiveBayesTables, x: Tensor) -> Tensor:
    return model.log_joint(x, torch.arange(N) < LENGTHS.unsqueeze(-1)).softmax(-1)


def test_labels_of_some_sequences_are_evidence() -> None:
    model, x = bayes(), words()
    classes = torch.tensor([0, 1, 2, -1, -1, 0, -1, 1])
    result = fit(model, x, LENGTHS, evidence={"classes": classes})
    assert_climbs(result)
    joint = result.model.log_joint(x, torch.arange(N) < LENGTHS.unsqueeze(-1))
    known = classes >= 0
    total = joint[known, classes[known]].sum() + joint[~known].logsumexp(-1).sum()
    assert_nats(torch.tensor(result.log_likelihood, dtype=F64), total)
    with pytest.raises(ValueError, match="classes must be in"):
        fit(model, x, evidence={"classes": classes + 5})


def test_grammar_counts_are_expectations_over_all_trees() -> None:
    """Against the marginals of every sentence by itself."""
    model, x = grammar(), words()
    problem = PCFGProblem(model, x, LENGTHS, None, prior=Prior())
    counts = problem.e_step(problem.begin(model)).counts
    rules, emission = torch.zeros_like(model.rule_logits), torch.zeros_like(model.emission_logits)
    root = torch.zeros_like(model.root_logits)
    for row, n in zip(x, LENGTHS.tolist(), strict=True):
        parts = model.posterior(row[:n]).marginals()
        root += parts.root
        rules += parts.rules
        emission.T.index_add_(0, row[:n], parts.unary)
    for a, b in zip(counts, (root, rules, emission), strict=True):
        assert_probabilities(a, b)
    assert_nats(counts.emission.sum(), LENGTHS.sum().double())
    found = problem.m_step(model, counts)
    flat = rules.flatten(1)
    assert_probabilities(found.rule_logits.flatten(1).exp(), flat / flat.sum(-1, keepdim=True))


@pytest.mark.parametrize(("make", "kind"), [(bayes, NaiveBayesProblem), (grammar, PCFGProblem)])
def test_the_gradient_of_q_is_that_of_the_likelihood_at_the_parameters_alone(make: Any, kind: Any) -> None:
    """Q is linear in the counts, and these are what an E-step found."""
    model, x = make(), words()
    problem = kind(model, x, LENGTHS, None, prior=Prior())
    counts = problem.e_step(model).counts

    def gradients(start: list[Tensor]) -> list[Tensor]:
        leaves = [p.clone().requires_grad_() for p in start]
        new = type(model)(*leaves)
        q = sum((c * p).sum() for c, p in zip(counts, problem.tensors(new), strict=True))
        values = (q, new.log_prob(x, LENGTHS).sum())
        parts = [torch.autograd.grad(value, leaves, retain_graph=True) for value in values]
        return [torch.cat([g.flatten() for g in one]) for one in parts]

    here = problem.tensors(model)
    assert_probabilities(*gradients(here))
    q, likelihood = gradients([p + 0.3 * torch.randn_like(p) for p in here])
    assert float((q - likelihood).abs().max()) > 1e-3


@pytest.mark.parametrize("make", [bayes, grammar], ids=["bayes", "grammar"])
def test_interrupted_it_goes_on_to_the_same_bits(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = make(), words()
    whole = fit(model, x, LENGTHS)
    kind = NaiveBayesProblem if make is bayes else PCFGProblem
    step, calls = kind.m_step, 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(kind, "m_step", failing)
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, LENGTHS, checkpoint=tmp_path / "em.ckpt")
    assert fit(model, x, LENGTHS, checkpoint=tmp_path / "em.ckpt").history == whole.history


@pytest.mark.parametrize(("make", "names"), [(bayes, "prior words"), (grammar, "root rules emission")])
def test_what_is_fixed_stays(make: Any, names: str) -> None:
    model, x = make(), words()
    for i, name in enumerate(names.split()):
        found = fit(model, x, LENGTHS, fixed=name, iterations=2).model
        pairs = zip(tensors(model), tensors(found), strict=True)
        assert [torch.allclose(a, b) for a, b in pairs] == [i == j for j in range(len(names.split()))]


def tensors(model: Any) -> list[Tensor]:
    if isinstance(model, PCFG):
        return [model.root_logits, model.rule_logits, model.emission_logits]
    return [model.prior_logits, model.word_logits]


def test_stepwise_em_learns_tables_too() -> None:
    truth = NaiveBayesTables(torch.zeros(2), torch.tensor([[4.0, 4, 0, 0], [0, 0, 4, 4]]))
    classes = torch.arange(60) % 2
    x = torch.multinomial(truth.word_logits[classes].exp(), 8, replacement=True)
    start = NaiveBayesTables(rand(2), rand(2, 4))
    options = {"batch_size": 6, "passes": 6, "progress": False, "prior": Prior(0.1, 0.1, 0.1)}
    found = fit_stepwise_em(start, x, **options)
    assert found.objective > fit(start, x, iterations=100, prior=options["prior"]).objective - 3
    sentences = fit_stepwise_em(grammar(), words(), LENGTHS, **{**options, "batch_size": 3})
    assert sentences.history[-1] > sentences.history[0]


def test_clear_words_for_what_cannot_be_learned() -> None:
    with pytest.raises(ValueError, match="two words or more, found one of 1"):
        fit(grammar(), words(), torch.tensor([1, 2, 3, 4, 5, 6, 6, 6]))
    with pytest.raises(ValueError, match=r"batch_shape \(\)"):
        fit(grammar().expand((2,)), words())
    with pytest.raises(ValueError, match=r"prior_logits \(K\) and word_logits \(K, V\)"):
        NaiveBayesTables(rand(2), rand(3, 4))
    with pytest.raises(ValueError, match="EM of PCFG knows no evidence"):
        fit(grammar(), words(), evidence={"spans": words()})
    never = PCFG(rand(NT), torch.full((NT, NT + T, NT + T), -torch.inf, dtype=F64), rand(T, V))
    with pytest.raises(ValueError, match="probability 0"):
        fit(never, words())
    silent = NaiveBayesTables(rand(2), torch.tensor([[0.0, -torch.inf]] * 2, dtype=F64))
    with pytest.raises(ValueError, match="probability 0"):
        fit(silent, torch.ones(1, 2, dtype=torch.long))


def test_a_module_learns_as_its_tables_do() -> None:
    torch.manual_seed(3)
    module = NaiveBayes(3, 7).double()
    x, lengths = torch.randint(7, (20, 9)), torch.randint(1, 10, (20,))
    before = [p.detach().clone() for p in module.parameters()]
    tables = NaiveBayesTables(module.prior_logits.detach(), module.word_logits.detach())
    wanted = fit_em(tables, x, lengths, iterations=5, progress=False)
    found = fit_em(module, x, lengths, iterations=5, progress=False)
    assert found.history == wanted.history
    assert isinstance(found.model, NaiveBayes)
    assert float(found.model.log_prob(x, lengths).detach().sum()) == pytest.approx(
        wanted.log_likelihood, abs=1e-9
    )
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
