"""EM of HMMs: it climbs whatever the states emit, its counts are gradients, and it agrees with hmmlearn."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

from structlv import HMM
from structlv.learning import (
    MonteCarlo,
    Prior,
    Tied,
    fit_em,
    fit_stepwise_em,
    hmm_of_counts,
    hmm_of_symbols,
    hmm_of_vectors,
)
from structlv.learning.em.hmm import HMMProblem
from tests.tolerance import assert_nats, assert_probabilities

F64 = torch.float64
B, N, K, V, D = 6, 9, 3, 4, 2
LENGTHS = torch.tensor([9, 7, 5, 2, 1, 0])
ROUNDING = 1e-9


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def spd(*shape: int) -> Tensor:
    root = rand(*shape, D, D)
    return root @ root.mT + 0.5 * torch.eye(D, dtype=F64)


def symbols() -> tuple[Any, Tensor]:
    return rand(K, V), torch.randint(V, (B, N))


def normal() -> tuple[Any, Tensor]:
    return td.Normal(rand(K), rand(K).exp()), 3 + rand(B, N)


def diagonal() -> tuple[Any, Tensor]:
    return td.Independent(td.Normal(rand(K, D), rand(K, D).exp()), 1), 3 + rand(B, N, D)


def full() -> tuple[Any, Tensor]:
    return td.MultivariateNormal(rand(K, D), spd(K)), 3 + rand(B, N, D)


def poisson() -> tuple[Any, Tensor]:
    return td.Poisson(rand(K).exp()), torch.randint(9, (B, N))


def poissons() -> tuple[Any, Tensor]:
    return td.Independent(td.Poisson(rand(K, D).exp()), 1), torch.randint(9, (B, N, D))


def mixture() -> tuple[Any, Tensor]:
    parts = td.MultivariateNormal(rand(K, 2, D), spd(K, 2))
    return td.MixtureSameFamily(td.Categorical(logits=rand(K, 2)), parts), 3 + rand(B, N, D)


def mixture_of_diagonals() -> tuple[Any, Tensor]:
    parts = td.Independent(td.Normal(rand(K, 2, D), rand(K, 2, D).exp()), 1)
    return td.MixtureSameFamily(td.Categorical(logits=rand(K, 2)), parts), 3 + rand(B, N, D)


def mixture_of_counts() -> tuple[Any, Tensor]:
    parts = td.Poisson(rand(K, 2).exp())
    return td.MixtureSameFamily(td.Categorical(logits=rand(K, 2)), parts), torch.randint(9, (B, N))


FAMILIES = [
    symbols,
    normal,
    diagonal,
    full,
    poisson,
    poissons,
    mixture,
    mixture_of_diagonals,
    mixture_of_counts,
]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
PRIOR = Prior(
    initial=0.1,
    transition=torch.rand(K, K, generator=torch.Generator().manual_seed(0)),
    emission=0.3,
    covariance=0.5,
    final=0.2,
    weights=0.4,
    degrees=1.5,
    mean=1.0,
    mean_weight=0.6,
    events=0.7,
    exposure=0.2,
)
PRIORS = [Prior(covariance=0.1), PRIOR]


def model_of(emission: Any, *, stop: bool = False) -> HMM:
    return HMM(rand(K), rand(K, K), emission, final_logits=rand(K) if stop else None)


def missing() -> Tensor:
    mask = torch.rand(B, N) < 0.9
    mask[:, 0] = True
    return mask


def fit(start: Any, x: Tensor, *given: Any, **options: Any) -> Any:
    return fit_em(start, x, *given, **{"progress": False, "iterations": 15, "tolerance": -1.0, **options})


def assert_climbs(result: Any) -> None:
    """Every iteration; the engine would itself refuse a fall."""
    assert all(b >= a - ROUNDING * max(1.0, abs(a)) for a, b in pairwise(result.history))
    assert result.history[-1] > result.history[0] + 0.1


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


# ---- what is fixed, tied or known ----------------------------------------------------------------------


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


# ---- the engine ----------------------------------------------------------------------------------------


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
