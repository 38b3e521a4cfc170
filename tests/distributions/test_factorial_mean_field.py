"""Mean field: a lower bound, climbed step by step, exact where it should be; and its gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from structlv import AdditiveGaussian, FactorialHMM, MeanField, StructuredMeanField
from structlv.distributions.ascent import Ascent
from structlv.distributions.mean_field import Variational, likelihood_of
from tests.distributions.factorial_models import Model, model
from tests.tolerance import assert_nats, assert_probabilities

KINDS = ("gaussian", "categorical", "bernoulli")
METHODS = (StructuredMeanField, MeanField)
TIGHT = {"max_sweeps": 2000, "tolerance": 1e-12}


def ragged(seed: int, batch: int = 6, n: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, n + 1, (batch,), generator=generator)
    return lengths, torch.rand(batch, n, generator=generator) > 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_it_is_a_lower_bound(kind: str, method: type[Variational], damping: float) -> None:
    """Whatever the model, after however many sweeps, with missing observations and padding."""
    for seed in range(12):
        sizes = [(2, 3), (4,), (2, 2, 3), (3, 1)][seed % 4]
        made = model(kind, sizes, seed=seed, scale=(0.3, 1.0, 4.0)[seed % 3])
        x = made.draw((6,), 8, seed)
        lengths, mask = ragged(seed)
        exact = made.hmm.log_prob(x, lengths, mask)
        for sweeps in (1, 3, 50):
            found = made.hmm.elbo(x, lengths, mask, method(max_sweeps=sweeps, damping=damping))
            assert bool((found <= exact + 1e-9).all())


@pytest.mark.parametrize("kind", KINDS)
def test_one_chain_is_exact(kind: str) -> None:
    made = model(kind, (4,))
    x = made.draw((6,), 8)
    lengths, mask = ragged(1)
    assert_nats(made.hmm.elbo(x, lengths, mask), made.hmm.log_prob(x, lengths, mask))
    structured = made.hmm.posterior(x, lengths, mask, StructuredMeanField()).marginals()
    exact = made.hmm.posterior(x, lengths, mask).marginals()
    assert structured.unary is not None
    assert exact.unary is not None
    assert_probabilities(structured.unary[0], exact.unary[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_no_step_lowers_the_bound(kind: str, method: type[Variational], damping: float) -> None:
    for seed in range(4):
        made = model(kind, (2, 3, 2), seed=seed, scale=2.0)
        hmm, x = made.hmm.detach(), made.draw((6,), 8, seed)
        problem = hmm._problem(x, *ragged(seed))
        likelihood = likelihood_of(problem)
        rule = method(damping=damping)
        ascent = rule.start(problem, likelihood)
        for i in range(3):
            ascent.turn(i)
        before = ascent.bound(likelihood, problem)
        for i in [0, 1, 2, 2, 0, 1, 0] * 3:
            ascent.turn(i)
            after = ascent.bound(likelihood, problem)
            assert bool((after >= before - 1e-9).all())
            before = after
        assert bool((before > -math.inf).all())


def test_structured_mean_field_is_better_than_mean_field() -> None:
    """On data of a known factorial HMM whose chains move slowly (Ghahramani and Jordan 1997, section 4.1)."""
    structured, factorised, exact = 0.0, 0.0, 0.0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        means = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(3)]
        moves = [3.0 * torch.eye(3, dtype=torch.float64) for _ in range(3)]
        hmm = FactorialHMM(
            [torch.zeros(3, dtype=torch.float64)] * 3,
            moves,
            AdditiveGaussian(means, 0.3 * torch.eye(2, dtype=torch.float64)),
        )
        x = hmm.sample((8,), 30, generator=generator)
        structured += float(hmm.elbo(x).sum())
        factorised += float(hmm.elbo(x, method=MeanField()).sum())
        exact += float(hmm.log_prob(x).sum())
    assert factorised < structured < exact


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_bound_is_that_of_its_posterior(kind: str, method: type[Variational]) -> None:
    """E_q[log p(x, z)] + H(q) by enumeration; for bounded normalisers the result is no more than that."""
    made = model(kind, (2, 3))
    x, hmm = made.draw((), 3), made.hmm.detach()
    q = hmm.posterior(x, method=method(**TIGHT))
    exact = hmm.posterior(x)
    structures = torch.tensor(
        [
            list(zip(*rows, strict=True))
            for rows in itertools.product(itertools.product(range(2), range(3)), repeat=3)
        ]
    )
    log_q = q.log_prob(structures)
    weights = log_q.exp()
    assert_nats(weights.sum(), torch.ones((), dtype=torch.float64))
    value = torch.where(weights > 0, weights * (exact.score(structures) - log_q), 0.0).sum()
    bound = hmm.elbo(x, method=method(**TIGHT))
    if kind == "gaussian":
        assert_nats(bound, value)
    else:
        assert float(bound) < float(value) < float(bound) + 1.0


# ---- gradients -------------------------------------------------------------------------------------


def objective(made: Model, x: Tensor, method: Variational):  # type: ignore[no-untyped-def]
    def fn(*leaves: Tensor) -> Tensor:
        return made.build(*leaves).elbo(
            x, torch.tensor([4, 3]), torch.tensor([[True, True, False, True]] * 2), method
        )

    return fn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_the_converged_bound(kind: str, method: type[Variational]) -> None:
    """q is held, and still the derivative is that of the optimum: the envelope theorem."""
    made = model(kind, (2, 3), scale=0.7)
    x = made.draw((2,), 4)
    assert gradcheck(objective(made, x, method(**TIGHT)), made.leaves, eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_the_unrolled_bound(kind: str, method: type[Variational]) -> None:
    """After two sweeps, damped: far from the optimum."""
    made = model(kind, (2, 3))
    x = made.draw((2,), 4)
    rule = method(max_sweeps=2, tolerance=0.0, damping=0.3, unroll=True)
    assert gradcheck(objective(made, x, rule), made.leaves)
    held = method(max_sweeps=2, tolerance=0.0, damping=0.3)
    values = [objective(made, x, r)(*made.leaves) for r in (rule, held)]
    assert_nats(*values)
    gradients = [torch.autograd.grad(v.sum(), made.leaves) for v in values]
    assert not all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_unrolled_gradient_tends_to_the_held_one(kind: str) -> None:
    made = model(kind, (2, 3), scale=0.7)
    x = made.draw((2,), 4)
    gradients = [
        torch.autograd.grad(
            objective(made, x, StructuredMeanField(60, 0.0, unroll=u))(*made.leaves).sum(), made.leaves
        )
        for u in (False, True)
    ]
    for held, unrolled in zip(*gradients, strict=True):
        assert torch.allclose(held, unrolled, atol=1e-8)


def test_posterior_has_a_gradient_only_if_unrolled() -> None:
    made = model("gaussian")
    x = made.draw((2,), 4)
    for unroll in (False, True):
        found = made.hmm.posterior(x, method=StructuredMeanField(unroll=unroll))
        assert found.log_partition().requires_grad == unroll


# ---- forbidden moves, ends of sweeps ---------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_forbidden_moves(kind: str, method: type[Variational]) -> None:
    """Left to right: the bound stays finite, gradients too, and what is forbidden has probability 0."""
    made = model(kind, (3, 2))
    x = made.draw((6,), 8)
    lengths, mask = ragged(3)
    initial = [t.detach().clone() for t in made.hmm.initial_logits]
    moves = [t.detach().clone() for t in made.hmm.transition_logits]
    moves[0] = moves[0].masked_fill(torch.ones(3, 3).tril(-1) > 0, -math.inf)
    initial[0][1:] = -math.inf
    for t in (*initial, *moves):
        t.requires_grad_()
    hmm = FactorialHMM(initial, moves, made.hmm.emission)
    bound, exact = hmm.elbo(x, lengths, mask, method(**TIGHT)), hmm.log_prob(x, lengths, mask)
    assert bool((bound <= exact + 1e-9).all())
    assert bool((bound > exact - 8.0).all())
    for gradient in torch.autograd.grad(bound.sum(), [*initial, *moves]):
        assert bool(gradient.isfinite().all())
    q = hmm.posterior(x, lengths, mask, method(**TIGHT)).marginals()
    assert q.transition is not None
    assert bool((q.transition[0][..., moves[0] == -math.inf] == 0).all())


@pytest.mark.parametrize("method", METHODS)
def test_sweeps_end_when_nothing_moves(method: type[Variational]) -> None:
    made = model("gaussian")
    x = made.draw((4,), 6)
    problem = made.hmm.detach()._problem(x, None, None)
    likelihood = likelihood_of(problem)

    def sweeps(rule: Variational) -> int:
        return sum(1 for _ in rule.sweeps(problem, likelihood))

    def changes(rule: Variational) -> list[float]:
        return [float(ascent.change) for ascent in rule.sweeps(problem, likelihood)]

    loose = changes(method(tolerance=1e-2))
    assert len(loose) < len(changes(method(tolerance=1e-8))) < 50
    assert loose[-1] <= 1e-2 < loose[-2]
    assert sweeps(method(max_sweeps=3, tolerance=1e-12)) == 3
    assert sweeps(method(max_sweeps=7, tolerance=0.0)) == 7


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_see(method: type[Variational]) -> None:
    """No steps, or no observation at all: the bound is 0, as the log-probability is."""
    made = model("gaussian")
    x = made.draw((3,), 4)
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    zero = torch.zeros(3, dtype=torch.float64)
    assert_nats(made.hmm.elbo(x[:, :0], method=method()), zero)
    assert_nats(made.hmm.elbo(x, torch.zeros(3, dtype=torch.long), None, method()), zero)
    if method is StructuredMeanField:
        assert_nats(made.hmm.elbo(x, None, hidden, method()), zero)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_autocast_changes_nothing(kind: str, method: type[Variational]) -> None:
    made = model(kind)
    x = made.draw((2,), 6)
    hmm = made.hmm.detach().to(torch.float32)
    x = x.float() if x.is_floating_point() else x
    expected = hmm.elbo(x, method=method())
    with torch.autocast("cpu", torch.bfloat16):
        found = hmm.elbo(x, method=method())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_ascent_is_abstract() -> None:
    with pytest.raises(TypeError):
        Ascent(None, None, None)  # type: ignore[abstract, arg-type]
    with pytest.raises(TypeError):
        Variational()  # type: ignore[abstract]
