"""The factorial HMM: exact answers are those of the HMM on the product space, whatever the emission."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from structlv import (
    AdditiveGaussian,
    Exact,
    FactorialChain,
    FactorialHMM,
    IndependentBernoulli,
    LogLinearCategorical,
    MeanField,
    StructuredMeanField,
)
from tests.distributions.factorial_models import EMISSIONS, SIZES, model, product_hmm
from tests.distributions.laws import chi_square
from tests.tolerance import assert_nats, assert_probabilities

LENGTHS = torch.tensor([7, 3, 0, 1])


def ragged() -> tuple[Tensor, Tensor]:
    """Lengths, and a mask with missing observations."""
    return LENGTHS, torch.rand(4, 7, generator=torch.Generator().manual_seed(2)) > 0.3


# ---- exact -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EMISSIONS)
@pytest.mark.parametrize("batch", [(), (4,)])
def test_log_prob_is_that_of_the_hmm_on_the_product_space(kind: str, batch: tuple[int, ...]) -> None:
    made = model(kind, batch=batch)
    x = made.draw((4,) if not batch else (), 7)
    lengths, mask = ragged()
    product = product_hmm(made)
    assert_nats(made.hmm.log_prob(x), product.log_prob(x))
    assert_nats(made.hmm.log_prob(x, lengths, mask), product.log_prob(x, lengths, mask))
    assert_nats(made.hmm.elbo(x, lengths, mask, Exact()), product.log_prob(x, lengths, mask))
    assert_nats(made.hmm.filter(x, lengths, mask).flatten(-len(SIZES)), product.filter(x, lengths, mask))
    joint = made.hmm.posterior(x, lengths, mask).marginals().joint
    assert joint is not None
    assert_probabilities(joint.flatten(-len(SIZES)), product.posterior(x, lengths, mask).marginals().unary)


@pytest.mark.parametrize("kind", EMISSIONS)
def test_what_is_missing_or_padding_changes_nothing(kind: str) -> None:
    made = model(kind)
    lengths, mask = ragged()
    x = made.draw((4,), 7)
    hidden = (torch.arange(7) >= lengths.unsqueeze(-1)) | ~mask
    events = hidden.reshape(hidden.shape + (1,) * (x.dim() - 2))
    spoiled = x.masked_fill(events, math.nan if x.is_floating_point() else 10**6)
    methods = (Exact(),) if kind == "callable" else (Exact(), StructuredMeanField(), MeanField())
    for method in methods:
        found = made.hmm.elbo(spoiled, lengths, mask, method)
        assert torch.equal(found, made.hmm.elbo(x, lengths, mask, method))
        for gradient in torch.autograd.grad(found.sum(), made.leaves, allow_unused=True):
            assert gradient is None or bool(gradient.isfinite().all())
    draws = [
        made.hmm.gibbs(y, 2, lengths, mask, generator=torch.Generator().manual_seed(0)) for y in (x, spoiled)
    ]
    assert torch.equal(*draws)
    assert bool((draws[0].eq(-1) == (torch.arange(7) >= lengths.unsqueeze(-1)).unsqueeze(-2)).all())


@pytest.mark.parametrize("kind", EMISSIONS)
def test_derivatives_of_log_prob(kind: str) -> None:
    made = model(kind, sizes=(2, 3))
    x = made.draw((2,), 3)
    mask = torch.tensor([[True, True, True], [True, False, True]])

    def fn(*leaves: Tensor) -> Tensor:
        return made.build(*leaves).log_prob(x, torch.tensor([3, 2]), mask)

    assert gradcheck(fn, made.leaves)
    assert gradgradcheck(fn, made.leaves, fast_mode=True)


@pytest.mark.parametrize("kind", EMISSIONS)
def test_single_precision_is_within_rounding(kind: str) -> None:
    made = model(kind)
    x = made.draw((4,), 7)
    if x.is_floating_point() and kind == "gaussian":
        x = x + 100.0  # far from every mean: what cancels is large
    x = x.float() if x.is_floating_point() else x
    single = made.build(*(leaf.detach().float() for leaf in made.leaves))
    double = made.build(*(leaf.detach().float().double() for leaf in made.leaves))
    y = x.double() if x.is_floating_point() else x
    assert single.log_prob(x).dtype == torch.float32
    assert_nats(single.log_prob(x), double.log_prob(y).float())
    if kind != "callable":
        method = StructuredMeanField(max_sweeps=200, tolerance=1e-6)
        found = single.elbo(x, method=method)
        assert found.dtype == torch.float32
        assert_nats(found.double(), double.elbo(y, method=method), torch.float32)


def test_impossible_observations_have_log_probability_minus_infinity() -> None:
    logits = [torch.randn(k, 3, dtype=torch.float64) for k in (2, 2)]
    logits[0][:, 1] = -math.inf
    logits[1][0, 2] = -math.inf
    made = model("categorical", sizes=(2, 2))
    leaves = [x.requires_grad_() for x in logits]
    hmm = FactorialHMM(made.hmm.initial_logits, made.hmm.transition_logits, LogLinearCategorical(leaves))
    x = torch.tensor([[0, 1, 2], [0, 2, 2]])
    for method in (Exact(), StructuredMeanField(), MeanField()):
        found = hmm.elbo(x, method=method)
        assert found[0] == -math.inf
        assert bool(found[1].isfinite())
        for gradient in torch.autograd.grad(found.sum(), leaves):
            assert bool(gradient.isfinite().all())


def test_a_bit_that_is_never_set() -> None:
    made = model("bernoulli", sizes=(2, 2))
    logits = [torch.randn(2, 3, dtype=torch.float64) for _ in range(2)]
    logits[0][0, 1] = -math.inf
    hmm = FactorialHMM(made.hmm.initial_logits, made.hmm.transition_logits, IndependentBernoulli(logits))
    x = torch.tensor([[[1, 0, 0], [0, 1, 1]]])
    states = hmm.posterior(x).marginals().unary
    assert states is not None
    assert states[0][0, 1, 0] == 0
    for method in (StructuredMeanField(), MeanField()):
        assert hmm.posterior(x, method=method).marginals().unary[0][0, 1, 0] == 0  # type: ignore[index]
        assert bool(hmm.elbo(x, method=method) <= hmm.log_prob(x))


def test_memory_of_the_joint_table_is_named() -> None:
    sizes = (64,) * 5
    hmm = FactorialHMM(
        [torch.zeros(k) for k in sizes],
        [torch.zeros(k, k) for k in sizes],
        AdditiveGaussian([torch.randn(k, 2) for k in sizes], torch.eye(2)),
    )
    x = torch.randn(2, 3, 2)
    with pytest.raises(ValueError, match=r"2 x 3 x 1073741824 joint states, 24 GiB.*StructuredMeanField"):
        hmm.log_prob(x)
    assert bool(hmm.elbo(x).isfinite().all())
    assert hmm.gibbs(x, 1).shape == (1, 2, 5, 3)


# ---- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EMISSIONS)
def test_gibbs_samples_have_the_posterior_law(kind: str) -> None:
    """Items of a batch are independent: one draw of each of many copies, of chains run long enough."""
    made = model(kind, sizes=(2, 3))
    x = made.draw((), 3)
    many = x.expand(4000, *x.shape)
    mask = torch.tensor([True, False, True])
    draws = made.hmm.gibbs(many, 1, None, mask, burn_in=30, generator=torch.Generator().manual_seed(5))[0]
    exact = made.hmm.posterior(x, None, mask)
    structures = torch.cartesian_prod(*[torch.arange(k) for k in (2, 2, 2, 3, 3, 3)]).reshape(-1, 2, 3)
    counts = (draws.unsqueeze(1) == structures).flatten(2).all(-1).double().sum(0)
    chi_square(counts, exact.log_prob(structures).exp().detach() * len(draws))


def test_gibbs_keeps_what_is_asked_for() -> None:
    made = model("gaussian")
    x = made.draw((2,), 5)

    def draw(**options: Any) -> Tensor:
        return made.hmm.gibbs(x, generator=torch.Generator().manual_seed(1), **options)

    every = draw(num_samples=6, burn_in=0)
    assert every.shape == (6, 2, len(SIZES), 5)
    assert torch.equal(draw(num_samples=2, burn_in=2, thin=2), every[3::2])
    assert draw(num_samples=0).shape == (0, 2, len(SIZES), 5)
    start = every[0]
    assert torch.equal(
        draw(num_samples=1, initial=start, burn_in=0), draw(num_samples=1, initial=start, burn_in=0)
    )
    with pytest.raises(ValueError, match="thin must be an integer >= 1"):
        draw(num_samples=1, thin=0)
    with pytest.raises(ValueError, match="states of chain 0 must be in"):
        draw(num_samples=1, initial=torch.full_like(start, 9))


@pytest.mark.parametrize("kind", [kind for kind in EMISSIONS if kind != "callable"])
def test_samples_are_of_the_model(kind: str) -> None:
    """The states are the chains', and observations given them have the emission's law."""
    made = model(kind, sizes=(2, 2))
    x, states = made.hmm.sample((20000,), 2, with_states=True, generator=torch.Generator().manual_seed(3))
    assert states.shape == (20000, 2, 2)
    for i in range(2):
        pairs = states[:, i, 0] * 2 + states[:, i, 1]
        law = (made.hmm.initial_logits[i].unsqueeze(-1) + made.hmm.transition_logits[i]).exp().flatten()
        chi_square(pairs.bincount(minlength=4).double(), law.detach() * 20000)
    assert not torch.equal(states[:, 0], states[:, 1])
    chosen = (states[:, :, 0] == 0).all(-1).nonzero()[:, 0]
    seen = x[chosen, 0].double()
    if kind == "gaussian":
        mean = sum(m[0] for m in made.hmm.emission.means)  # type: ignore[attr-defined]
        covariance = made.hmm.emission.covariance  # type: ignore[attr-defined]
        whitened = torch.linalg.solve(torch.linalg.cholesky(covariance), (seen - mean).T).detach()
        assert float(whitened.mean(-1).abs().max()) < 4 / math.sqrt(len(chosen))
        assert float((torch.cov(whitened) - torch.eye(2)).abs().max()) < 8 / math.sqrt(len(chosen))
        return
    scores = sum(m[0] for m in made.hmm.emission.logits).detach()  # type: ignore[attr-defined]
    if kind == "categorical":
        chi_square(seen.long().bincount(minlength=len(scores)).double(), scores.softmax(-1) * len(seen))
    else:
        for bit, p in enumerate(scores.sigmoid()):
            ones = seen[:, bit].sum()
            chi_square(torch.stack([ones, len(seen) - ones]), torch.stack([p, 1 - p]) * len(seen))


def test_a_seed_fixes_the_samples() -> None:
    made = model("gaussian")
    first, second = (made.hmm.sample((3,), 4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (3, 4, 2)


# ---- form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in EMISSIONS if kind != "callable"])
def test_a_batch_of_models_is_its_items(kind: str) -> None:
    made = model(kind, batch=(4,))
    x = made.draw((), 7)
    lengths, mask = ragged()
    for method in (Exact(), StructuredMeanField(tolerance=1e-12, max_sweeps=500)):
        whole = made.hmm.elbo(x, lengths, mask, method)
        for b in range(4):
            assert_nats(made.hmm[b].elbo(x[b], lengths[b], mask[b], method), whole[b])
    assert made.hmm[1:3].batch_shape == (2,)
    assert made.hmm.expand((2, 4)).log_prob(x).shape == (2, 4)


def test_shared_parameters_stay_shared() -> None:
    hmm = model("gaussian").hmm
    grown = hmm.expand((5,))
    assert grown.batch_shape == (5,)
    for mine, its in zip(grown.transition_logits, hmm.transition_logits, strict=True):
        assert mine is its
    assert grown.initial_logits[0].untyped_storage().data_ptr() == (
        hmm.initial_logits[0].untyped_storage().data_ptr()
    )
    assert grown[2].emission.batch_shape == ()


@pytest.mark.parametrize("kind", [kind for kind in EMISSIONS if kind != "callable"])
def test_copies_and_dtypes(kind: str) -> None:
    made = model(kind)
    x = made.draw((2,), 4)
    hmm = made.hmm.detach()
    assert not any(p.requires_grad for p in hmm.initial_logits)
    expected = hmm.log_prob(x)
    for other in (copy.deepcopy(hmm), pickle.loads(pickle.dumps(hmm))):
        assert torch.equal(other.log_prob(x), expected)
        assert repr(other) == repr(hmm)
    single = hmm.to(torch.float32)
    assert single.initial_logits[0].dtype == torch.float32
    assert single.log_prob(x.float() if kind != "categorical" else x).dtype == torch.float32


def test_logits_are_normalised_and_impossible_rows_stay() -> None:
    made = model("gaussian", sizes=(2, 2))
    moves = [x.detach().clone() for x in made.hmm.transition_logits]
    moves[0] = moves[0] + 3.0
    moves[1][1] = -math.inf
    hmm = FactorialHMM(made.hmm.initial_logits, moves, made.hmm.emission)
    assert_probabilities(hmm.transition_logits[0].exp().sum(-1), torch.ones(2, dtype=torch.float64))
    assert bool((hmm.transition_logits[1][1] == -math.inf).all())


def test_log_prob_compiles() -> None:
    made = model("gaussian")
    x = made.draw((2,), 4)

    def fn(x: Tensor, *leaves: Tensor) -> Tensor:
        return made.build(*leaves).log_prob(x)

    leaves = [leaf.detach() for leaf in made.leaves]
    compiled = torch.compile(fn, backend="aot_eager", fullgraph=True)
    assert_nats(compiled(x, *leaves), fn(x, *leaves))


# ---- errors ----------------------------------------------------------------------------------------

TWO = [torch.zeros(2), torch.zeros(2)]
MOVES = [torch.zeros(2, 2), torch.zeros(2, 2)]
GAUSSIAN = AdditiveGaussian([torch.zeros(2, 1), torch.ones(2, 1)], torch.eye(1))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (
            lambda: FactorialHMM(TWO[0], MOVES, GAUSSIAN),
            TypeError,
            "initial_logits must be a sequence of tensors",
        ),
        (lambda: FactorialHMM(TWO, MOVES[:1], GAUSSIAN), ValueError, "transition_logits must have 2 tensors"),
        (
            lambda: FactorialHMM(TWO, [MOVES[0], torch.zeros(3, 3)], GAUSSIAN),
            ValueError,
            r"transition_logits\[1\]",
        ),
        (
            lambda: FactorialHMM([*TWO, TWO[0]], [*MOVES, MOVES[0]], GAUSSIAN),
            ValueError,
            "emission must be of chains",
        ),
        (lambda: FactorialHMM(TWO, MOVES, 3), TypeError, "emission must be AdditiveGaussian"),
        (lambda: FactorialHMM([TWO[0], TWO[1].double()], MOVES, GAUSSIAN), TypeError, "must not be mixed"),
        (
            lambda: FactorialHMM([TWO[0], torch.full((2,), math.nan)], MOVES, GAUSSIAN),
            ValueError,
            "must not be NaN",
        ),
        (
            lambda: FactorialHMM(TWO, MOVES, AdditiveGaussian(GAUSSIAN.means, -torch.eye(1))),
            ValueError,
            "definite",
        ),
        (
            lambda: FactorialHMM(TWO, MOVES, IndependentBernoulli([torch.full((2, 1), math.inf)] * 2)),
            ValueError,
            "inf",
        ),
        (
            lambda: AdditiveGaussian([torch.zeros(2, 1), torch.zeros(2, 2)], torch.eye(1)),
            ValueError,
            r"means\[1\]",
        ),
        (
            lambda: AdditiveGaussian([torch.zeros(2, 3)], torch.eye(2)),
            ValueError,
            "covariance must have shape",
        ),
        (lambda: LogLinearCategorical([torch.zeros(2)]), ValueError, r"logits\[0\] must have shape"),
        (
            lambda: FactorialHMM(TWO, MOVES, GAUSSIAN).elbo(torch.zeros(3, 1), method="exact"),
            TypeError,
            "method must be",
        ),
        (
            lambda: FactorialHMM(TWO, MOVES, GAUSSIAN).log_prob(torch.zeros(3, 2)),
            ValueError,
            "x must have shape",
        ),
        (
            lambda: FactorialHMM(TWO, MOVES, GAUSSIAN).log_prob(torch.zeros(3, 1) * math.nan),
            ValueError,
            "NaN",
        ),
        (lambda: FactorialHMM(TWO, MOVES, GAUSSIAN).sample(), ValueError, "length must be"),
        (lambda: FactorialHMM(TWO, MOVES, lambda x: x).sample((), 2), NotImplementedError, "how to draw"),
        (
            lambda: FactorialHMM(TWO, MOVES, lambda x: x).log_prob(torch.zeros(3)),
            ValueError,
            "table of a callable",
        ),
        (
            lambda: FactorialHMM(TWO, MOVES, lambda x: torch.zeros(*x.shape, 2, 2)).elbo(torch.zeros(3)),
            ValueError,
            "a callable has a joint table only",
        ),
        (lambda: StructuredMeanField(max_sweeps=0), ValueError, "max_sweeps"),
        (lambda: MeanField(damping=1.0), ValueError, "damping"),
        (lambda: MeanField(tolerance=-1.0), ValueError, "tolerance"),
        (
            lambda: FactorialHMM(TWO, MOVES, IndependentBernoulli([torch.zeros(2, 1)] * 2)).log_prob(
                torch.full((3, 1), 2)
            ),
            ValueError,
            "x must be 0 or 1",
        ),
    ],
)
def test_errors_name_the_argument(build: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


def test_the_posterior_is_a_factorial_chain() -> None:
    made = model("gaussian")
    x = made.draw((2,), 5)
    assert isinstance(made.hmm.posterior(x), FactorialChain)
    assert isinstance(made.hmm.posterior(x).unary, Tensor)
    assert isinstance(made.hmm.posterior(x, method=StructuredMeanField()).unary, tuple)
