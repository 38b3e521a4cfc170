"""The engine of EM on HMMs: interruption, errors, Monte Carlo and stepwise EM, starts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributions as td

from structlv import HMM
from structlv.learning import (
    MonteCarlo,
    Prior,
    Tied,
    fit_stepwise_em,
    hmm_of_counts,
    hmm_of_symbols,
    hmm_of_vectors,
)
from structlv.learning.em.hmm import HMMProblem
from tests.learning.em_families import (
    F64,
    LENGTHS,
    PRIOR,
    B,
    D,
    K,
    N,
    V,
    assert_climbs,
    diagonal,
    families,
    fit,
    full,
    missing,
    mixture,
    model_of,
    rand,
    spd,
    symbols,
)
from tests.tolerance import assert_probabilities


def test_chunks_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    emission, x = mixture()
    model, mask = model_of(emission, stop=True), missing()
    whole = HMMProblem(model, x, LENGTHS, mask, prior=Prior())
    counts = whole.e_step(whole.begin(model)).counts
    monkeypatch.setattr("structlv.learning.em.problem.Sequences.chunks.__defaults__", (None, 10))
    parts = whole.e_step(whole.begin(model)).counts
    for a, b in zip((*counts[:3], *counts[3]), (*parts[:3], *parts[3]), strict=True):
        assert_probabilities(a, b)


def test_batch_dimensions_are_only_sequences() -> None:
    emission, x = diagonal()
    model = model_of(emission)
    flat = fit(model, x, LENGTHS, prior=PRIOR)
    folded = fit(model, x.reshape(2, 3, N, D), LENGTHS.reshape(2, 3), prior=PRIOR)
    assert folded.history == flat.history


def test_float32_starts_are_learned_in_float64_and_returned_in_float32() -> None:
    emission, x = full()
    model = model_of(emission).to(torch.float32)
    result = fit(model, x.float(), prior=Prior(covariance=0.1))
    assert_climbs(result)
    assert result.model.transition_logits.dtype == torch.float32
    assert result.model.emission.loc.dtype == torch.float32


@families
def test_interrupted_it_goes_on_to_the_same_bits(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emission, x = family()

    def begin(seed: int) -> HMM:
        torch.manual_seed(seed)
        return HMM(rand(K), rand(K, K), emission, final_logits=rand(K))

    options = {"prior": PRIOR, "seeds": [3, 4], "iterations": 6}
    whole = fit(begin, x, LENGTHS, **options)
    step, calls = HMMProblem.m_step, 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (3, 9):
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(HMMProblem, "m_step", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(begin, x, LENGTHS, checkpoint=tmp_path / "em.ckpt", **options)
    found = fit(begin, x, LENGTHS, checkpoint=tmp_path / "em.ckpt", **options)
    assert found.history == whole.history
    assert torch.equal(found.model.transition_logits, whole.model.transition_logits)


def test_a_fall_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    emission, x = symbols()
    model = model_of(emission)
    monkeypatch.setattr(
        HMMProblem, "m_step", lambda self, m, counts: HMM(m.initial_logits, rand(K, K), m.emission)
    )
    torch.manual_seed(3)
    with pytest.raises(RuntimeError, match="must not lower its objective"):
        fit(model, x)


def test_clear_words_for_what_cannot_be_learned() -> None:
    emission, x = symbols()
    model = model_of(emission)
    with pytest.raises(ValueError, match=r"batch_shape \(\)"):
        fit(model.expand((2,)), x)
    with pytest.raises(ValueError, match="the same at all steps"):
        fit(HMM(rand(K), rand(N - 1, K, K), emission), x)
    with pytest.raises(ValueError, match="nothing is observed"):
        fit(model, x, torch.zeros(B, dtype=torch.long))
    with pytest.raises(ValueError, match=r"lengths must be in 0\.\.9"):
        fit(model, x, LENGTHS - 1)
    with pytest.raises(TypeError, match="mask"):
        fit(model, x, LENGTHS, x)
    with pytest.raises(ValueError, match=r"x must be in 0\.\.3"):
        fit(model, x + 1)
    with pytest.raises(ValueError, match=r"prior\.initial must be at least 0"):
        fit(model, x, prior=Prior(initial=-1.0))
    with pytest.raises(ValueError, match=r"tied\.emission must hold 3 integers"):
        fit(model, x, tied=Tied(emission=[0, 1]))
    with pytest.raises(ValueError, match="method of an HMM"):
        fit(model, x, method="exact")
    with pytest.raises(TypeError, match="EM needs one of HMM, FactorialHMM, PCFG"):
        fit(object(), x)
    with pytest.raises(RuntimeError, match="init_process_group"):
        fit(model, x, sharded=True)
    never = HMM(rand(K), rand(K, K), torch.tensor([0.0, 0.0, 0.0, -torch.inf], dtype=F64).expand(K, V))
    with pytest.raises(ValueError, match="probability 0"):
        fit(never, torch.full((1, 3), 3))


def test_a_collapsing_covariance_is_named_and_a_prior_prevents_it() -> None:
    x = torch.zeros(1, 5, D, dtype=F64)
    x[0, 0] = 5.0
    start = HMM(
        rand(2), rand(2, 2), td.MultivariateNormal(torch.tensor([[5.0, 5.0], [0, 0]]).double(), spd(2))
    )
    with pytest.raises(ValueError, match=r"Prior\(covariance=...\)"):
        fit(start, x, iterations=50)
    assert_climbs(fit(start, x, iterations=50, prior=Prior(covariance=0.1)))


def test_a_component_that_dies_out_keeps_its_covariance() -> None:
    """Its weight is the last number before 0, and covariance / weight would be infinite."""
    x = torch.tensor([[0.0, 0.1, -0.1, 0.2]], dtype=F64)
    parts = td.Normal(torch.tensor([[0.0, 38.55]], dtype=F64), torch.ones(1, 2, dtype=F64))
    mixture = td.MixtureSameFamily(td.Categorical(logits=torch.zeros(1, 2, dtype=F64)), parts)
    found = fit(HMM(rand(1), rand(1, 1), mixture), x, prior=Prior(covariance=0.1), iterations=3)
    assert float(found.model.emission.component_distribution.scale[0, 1]) == 1.0


# ---- Monte Carlo and stepwise EM -----------------------------------------------------------------------


def test_monte_carlo_counts_tend_to_the_exact_ones() -> None:
    emission, x = diagonal()
    model = model_of(emission, stop=True)
    exact = HMMProblem(model, x, LENGTHS, None, prior=Prior())
    sampled = HMMProblem(model, x, LENGTHS, None, prior=Prior(), method=MonteCarlo(4000))
    start = exact.begin(model)
    wanted, found = exact.e_step(start), sampled.e_step(start)
    assert found.value == wanted.value
    for a, b in zip(
        (*wanted.counts[:3], *wanted.counts[3]), (*found.counts[:3], *found.counts[3]), strict=True
    ):
        assert float((a - b).abs().max()) < 0.05 * float(a.abs().max())
    again = sampled.e_step(start, found.carry).counts
    assert not torch.equal(again.transition, found.counts.transition)  # other samples every time
    result = fit(model, x, LENGTHS, method=MonteCarlo(64), prior=PRIOR, iterations=20)
    assert result.history[-1] > result.history[0] + 1
    assert not result.converged


def test_stepwise_em_comes_near_what_em_finds(tmp_path: Path) -> None:
    truth = HMM(
        torch.zeros(2, dtype=F64),
        torch.tensor([[2.0, 0.0], [0.0, 2.0]], dtype=F64),
        td.MultivariateNormal(
            torch.tensor([[0.0, 0.0], [1e3, 2.0]], dtype=F64), torch.eye(2).double().expand(2, 2, 2)
        ),
    )
    x = truth.sample((200,), length=8, generator=torch.Generator().manual_seed(0))
    start = HMM(rand(2), rand(2, 2), td.MultivariateNormal(truth.emission.loc + 9, 1e3 * spd(2)))
    options = {"batch_size": 20, "passes": 8, "progress": False, "prior": Prior(0.1, 0.1)}
    best = fit(start, x, iterations=100, prior=Prior(0.1, 0.1))
    found = fit_stepwise_em(start, x, **options)
    assert len(found.history) == 8
    assert found.objective > best.objective - 10
    assert found.history[-1] > found.history[0] + 100
    order = found.model.emission.loc[:, 0].argsort()
    covariance = found.model.emission.covariance_matrix[order]
    assert torch.allclose(
        covariance, torch.eye(2).double().expand(2, 2, 2), atol=0.25
    )  # none was lost to 1e3
    with pytest.raises(ValueError, match="power"):
        fit_stepwise_em(start, x, power=0.5)


def test_stepwise_em_interrupted_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emission, x = diagonal()
    model = model_of(emission)
    options = {"batch_size": 2, "passes": 4, "progress": False, "prior": PRIOR}
    whole = fit_stepwise_em(model, x, LENGTHS, **options)
    step, calls = HMMProblem.m_step, 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(HMMProblem, "m_step", failing)
    with pytest.raises(KeyboardInterrupt):
        fit_stepwise_em(model, x, LENGTHS, checkpoint=tmp_path / "em.ckpt", **options)
    found = fit_stepwise_em(model, x, LENGTHS, checkpoint=tmp_path / "em.ckpt", **options)
    assert found.history == whole.history
    assert torch.equal(found.model.emission.base_dist.loc, whole.model.emission.base_dist.loc)


# ---- starts --------------------------------------------------------------------------------------------


def test_random_starts_follow_their_seed_and_their_data() -> None:
    counts = torch.tensor([5.0, 1.0, 3.0])
    vectors, events = rand(30, 2), torch.randint(20, (30,))
    for begin in (
        partial(hmm_of_symbols, 3, counts),
        partial(hmm_of_vectors, 3, vectors),
        partial(hmm_of_vectors, 3, vectors, full=False),
        partial(hmm_of_counts, 3, events),
        partial(hmm_of_counts, 3, events.reshape(15, 2)),
    ):
        one, same, other = begin(0), begin(0), begin(1)
        assert torch.equal(one.transition_logits, same.transition_logits)
        assert not torch.equal(one.transition_logits, other.transition_logits)
        assert one.transition_logits.shape == (3, 3)
    means = hmm_of_vectors(3, vectors, 0).emission.loc
    assert all(bool((vectors == m).all(-1).any()) for m in means)
    assert len(means.unique(dim=0)) == 3
    assert hmm_of_vectors(2, torch.ones(4, 1), 0).emission.loc.tolist() == [[1.0], [1.0]]
