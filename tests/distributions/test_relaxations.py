"""Differentiable samples: what they are, what their gradients are, what a draw depends on."""

from __future__ import annotations

from typing import Any

import entmax
import pytest
import torch
from torch import Generator, Tensor
from torch.autograd import gradcheck

from structlv import (
    IMLE,
    GumbelCRF,
    LinearChain,
    LowRankRules,
    PerturbAndMAP,
    StochasticSoftmax,
    StraightThroughMarginals,
    TreePosterior,
)
from structlv.distributions.algebra import flat
from structlv.distributions.seeding import nth_seed
from tests.distributions.choice import Choice
from tests.distributions.examples import BY_NAME, EXAMPLES, Example
from tests.distributions.laws import function
from tests.tolerance import assert_probabilities, assert_second_order

METHODS = [StochasticSoftmax(), PerturbAndMAP(), GumbelCRF(), StraightThroughMarginals(), IMLE()]
every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name.replace(" ", "-"))
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def draw(d: Any, method: Any = None, samples: int = 3, seed: int = 5, **options: Any) -> Any:
    return d.rsample((samples,), Generator().manual_seed(seed), method=method, **options)


def gradient_of(loss: Tensor, inputs: Any) -> list[Tensor]:
    """With zeros where there is none: a structure without parts depends on nothing."""
    if not loss.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def low_rank(d: Any) -> bool:
    return isinstance(d, TreePosterior) and isinstance(d.rules, LowRankRules)


def of_choices(d: Any) -> bool:
    """Whether GumbelCRF knows the choices that lead to a structure."""
    return not isinstance(d, Choice)


def require_choices(example: Example, method: Any) -> None:
    if isinstance(method, GumbelCRF) and not of_choices(example.make()):
        with pytest.raises(NotImplementedError, match="choices"):
            draw(example.make(), method)
        pytest.skip("the choices of this structure are not implemented")


@every
def test_cold_samples_are_the_hard_ones(example: Example) -> None:
    """At temperature 0 the relaxed structure is the best one under the same noise."""
    d = example.make()
    pairs = [(PerturbAndMAP(), StochasticSoftmax())]
    if of_choices(d):
        pairs += [(GumbelCRF(hard=True, alpha=a), GumbelCRF(alpha=a)) for a in (1, 1.5, 2)]
    for cold, warm in pairs:
        hard, soft = draw(d, cold), draw(d, warm, temperature=1e-9)
        for a, b in zip(flat(hard), flat(soft), strict=True):
            assert a.shape == b.shape
            assert_probabilities(b, a)


@every
@methods
def test_samples_have_the_layout_of_marginals(example: Example, method: Any) -> None:
    require_choices(example, method)
    d = example.make()
    like = d.to_dense() if low_rank(d) and method != StraightThroughMarginals() else d
    with torch.no_grad():
        found, wanted = draw(d, method), like.marginals()
    assert type(found) is type(wanted)
    for a, b in zip(flat(found), flat(wanted), strict=True):
        assert a.shape == (3, *b.shape)
        assert a.dtype == b.dtype
        assert bool(a.isfinite().all())


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2])
@every
def test_entmax_of_choices(example: Example, alpha: float) -> None:
    """It sums to what the softmax sums to, and where scores are -inf, or far apart, there are exact zeros."""
    d = example.make()
    if not of_choices(d) or not flat(d.marginals()):
        pytest.skip("no choices")
    soft, sparse = (
        flat(draw(d, GumbelCRF(alpha=a), samples=20, temperature=0.3))[0].flatten(1) for a in (1, alpha)
    )
    assert_probabilities(sparse.sum(-1), soft.sum(-1))
    assert not bool(((sparse > 0) & (soft == 0)).any())
    assert bool((sparse == 0).sum() >= (soft == 0).sum())


def test_entmax_is_the_package_s() -> None:
    """Of one step, and sparser with alpha."""
    scores = torch.randn(4, 1, 6, dtype=torch.double, generator=Generator().manual_seed(0))
    d = LinearChain(scores, torch.zeros(6, 6, dtype=torch.double))
    (choices,) = d._trace(d._sample(50, 5)).choices
    noisy = choices.noisy(3)
    for alpha, of_package in ((1.5, entmax.entmax15), (2, entmax.sparsemax)):
        sparse = choices.relaxed(noisy, 0.5, alpha)
        assert_probabilities(sparse, of_package(noisy / 0.5, dim=-1))
        assert bool((sparse == 0).any())
    with pytest.raises(ValueError, match=r"alpha must be at least 1, found 0.5"):
        GumbelCRF(alpha=0.5)


@every
def test_hard_samples_are_structures(example: Example) -> None:
    d = example.make()
    exact = draw(d, StraightThroughMarginals())
    events = d.sample((3,), Generator().manual_seed(5))
    for a, b in zip(flat(exact), flat(d.to_parts(events)), strict=True):
        assert torch.equal(a, b)
    if example.invertible:
        best = draw(d, PerturbAndMAP())
        like = d.to_dense() if low_rank(d) else d
        for a, b in zip(flat(best), flat(like.to_parts(like.from_parts(best))), strict=True):
            assert torch.equal(a, b)


@every
def test_relaxed_gradients(example: Example) -> None:
    """Against finite differences, the noise held fixed; straight-through is the relaxed gradient exactly."""

    chain = isinstance(example.make(), LinearChain)
    for relaxation in (StochasticSoftmax(), GumbelCRF())[: 1 + chain]:
        fn, inputs = function(
            example, lambda d, m=relaxation: tuple(flat(draw(d, m, samples=2, temperature=0.7)))
        )
        if inputs:
            assert gradcheck(fn, inputs, fast_mode=True)

    def gradients(method: Any, **options: Any) -> Any:
        fn, inputs = function(example, lambda d: flat(draw(d, method, **options)))
        loss = sum((x * torch.arange(1.0, 1.0 + x.numel()).reshape(x.shape).cos()).sum() for x in fn(*inputs))
        return gradient_of(loss, inputs)

    pairs = zip(
        gradients(StochasticSoftmax(), temperature=0.7),
        gradients(PerturbAndMAP(), temperature=0.7),
        strict=True,
    )
    for a, b in pairs:
        assert torch.equal(a, b)


@pytest.mark.parametrize("alpha", [1, 1.5])
@every
def test_gradients_of_relaxed_choices(example: Example, alpha: float) -> None:
    """Against finite differences, sample and noise held fixed; what is drawn has that gradient."""
    d = example.make()
    if not of_choices(d):
        pytest.skip("the choices of this structure are not implemented")
    event = d._by_choices()._sample(2, 5)
    choices = d._by_choices()._trace(event).choices
    seeds = [nth_seed(5, 1 + i) for i in range(len(choices))]
    noise = [
        (c.perturbed(s) - c.flat()).detach().nan_to_num(0.0) for c, s in zip(choices, seeds, strict=True)
    ]

    def fixed(d: Any) -> tuple[Tensor, ...]:
        trace = d._by_choices()._trace(event)
        noisy = [c.flat() + g for c, g in zip(trace.choices, noise, strict=True)]
        return tuple(flat(trace.weighed(noisy, 0.7, alpha)))

    fn, inputs = function(example, fixed)
    if not inputs:
        return
    assert gradcheck(fn, inputs, fast_mode=True)

    def gradients(of: Any) -> list[Tensor]:
        fn, inputs = function(example, of)
        loss = sum((x * torch.arange(1.0, 1.0 + x.numel()).reshape(x.shape).cos()).sum() for x in fn(*inputs))
        return gradient_of(loss, inputs)

    drawn = gradients(lambda d: tuple(flat(d._by_choices()._trace(event).relaxed(5, 0.7, alpha))))
    for a, b in zip(drawn, gradients(fixed), strict=True):
        assert_second_order(a, b)


@every
def test_the_straight_through_gradient_is_that_of_the_marginals(example: Example) -> None:
    weight = [torch.randn(x.shape, dtype=torch.float64) for x in flat(example.make().marginals())]

    def total(parts: Any) -> Tensor:
        return sum(((x * w).sum() for x, w in zip(flat(parts), weight, strict=True)), torch.zeros(()))

    found, inputs = function(example, lambda d: total(draw(d, StraightThroughMarginals(), samples=2)))
    wanted, same = function(example, lambda d: 2 * total(d.marginals()))
    for a, b in zip(gradient_of(found(*inputs), inputs), gradient_of(wanted(*same), same), strict=True):
        assert_second_order(a, b)


def test_implicit_gradient_of_a_chain() -> None:
    """By its definition, with the noise found from the outside."""
    torch.manual_seed(0)
    unary = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    transition = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 2, 4, 3, dtype=torch.float64), torch.randn(5, 2, 3, 3, dtype=torch.float64)
    d = LinearChain(unary, transition)
    parts = draw(d, IMLE(step=2.0), samples=5)
    (sum((w * x).sum() for w, x in zip(weights, parts, strict=True))).backward()
    noisy = d._perturbed(5, int(torch.randint(0, 2**63 - 1, (), generator=Generator().manual_seed(5))))
    moved = LinearChain(noisy.unary - 2.0 * weights[0], transition - 2.0 * weights[1]).detach()
    best, other = noisy.to_parts(noisy.argmax()), moved.to_parts(moved.argmax())
    assert unary.grad is not None
    assert transition.grad is not None
    assert torch.equal(unary.grad, (best.unary - other.unary).sum(0) / 2.0)
    assert torch.equal(transition.grad, (best.transition - other.transition).sum((0, 1)) / 2.0)
    assert unary.grad.abs().sum() > 0


def _leaves(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_leaves, value))
    score = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().requires_grad_() if score else value


@every
def test_implicit_gradients_are_differences_of_structures(example: Example) -> None:
    """The gradient of a score counts where z is used and z' is not: whole numbers over the step."""
    if low_rank(example.make()):
        pytest.skip("the scores of dense rules are sums over ranks")
    d = example.make()
    d = d._rebuild(**{name: _leaves(getattr(d, name)) for name in d._parameters})
    parts = draw(d, IMLE(step=0.5), samples=4)
    torch.manual_seed(3)
    weight = [torch.randn(x.shape, dtype=torch.float64) for x in flat(parts)]
    leaves = [x for x in flat([getattr(d, n) for n in d._parameters]) if x.requires_grad]
    loss = sum(((w * x).sum() for w, x in zip(weight, flat(parts), strict=True)), torch.zeros(()))
    for x in gradient_of(loss, leaves):
        assert torch.equal(x * 0.5, (x * 0.5).round())


@methods
def test_items_have_noise_of_their_own(method: Any) -> None:
    """Identical items and samples give different structures, and all of them."""
    d = LinearChain(torch.zeros(500, 3, 2), torch.zeros(2, 2))
    found = draw(d, method, samples=4).unary.detach().reshape(2000, -1)
    if method in (StochasticSoftmax(), GumbelCRF()):
        assert len(found.unique(dim=0)) == 2000
    else:
        _, counts = found.unique(dim=0, return_counts=True)
        assert len(counts) == 8
        assert int(counts.min()) > 180  # of 250 each: by symmetry the noisy best is uniform here


@methods
@pytest.mark.parametrize(
    "name", ["shared transition", "shared rules", "binary tree", "two chains", "three separate chains"]
)
def test_the_seed_is_all_that_a_draw_depends_on(name: str, method: Any) -> None:
    d = BY_NAME[name].make()
    first, again, other = (flat(draw(d, method, samples=20, seed=seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) or not torch.equal(first[-1], other[-1])


@methods
def test_a_draw_does_not_depend_on_padding_or_on_others(method: Any) -> None:
    torch.manual_seed(1)
    unary, transition = torch.randn(5, 6, 3), torch.randn(3, 3)
    lengths = torch.tensor([4, 6, 1, 0, 3])
    all_of_them = draw(LinearChain(unary, transition, lengths=lengths), method).unary
    some = draw(LinearChain(unary[:2, :4], transition, lengths=lengths[:2].clamp(max=4)), method).unary
    assert torch.equal(all_of_them[:, 0, :4], some[:, 0])
    assert not all_of_them[:, 3].any()


@methods
def test_trees_do_not_depend_on_padding(method: Any) -> None:
    torch.manual_seed(2)
    root, rules, unary = torch.randn(2), torch.randn(2, 5, 5), torch.randn(3, 6, 3)
    lengths = torch.tensor([4, 6, 2])
    padded = draw(TreePosterior(root, rules, unary, lengths=lengths), method)
    alone = draw(TreePosterior(root, rules, unary[:1, :4]), method)
    assert torch.allclose(padded.spans[:, :1, :4, :4], alone.spans, atol=1e-6)
    assert torch.allclose(padded.unary[:, :1, :4], alone.unary, atol=1e-6)


@pytest.mark.parametrize("name", ["three chains, ragged", "scores of each chain", "ragged"])
def test_temperature_per_item(name: str) -> None:
    d = BY_NAME[name].make()
    t = torch.tensor([0.5, 1.0, 3.0, 0.1], dtype=torch.float64)[: d.batch_shape[0]]
    found = draw(d, temperature=t)
    for b, value in enumerate(t.tolist()):
        same = draw(d, temperature=value)
        for x, y in zip(flat(found), flat(same), strict=True):
            assert_probabilities(x[:, b], y[:, b])


def test_shapes_of_samples() -> None:
    d = LinearChain(torch.zeros(2, 4, 3), torch.zeros(3, 3))
    assert d.has_rsample
    assert d.rsample().unary.shape == (2, 4, 3)
    assert d.rsample((2, 5)).transition.shape == (2, 5, 2, 3, 3)
    assert d.rsample((0,), method=PerturbAndMAP()).unary.shape == (0, 2, 4, 3)


def test_refusals() -> None:
    d = LinearChain(torch.zeros(2, 4, 3), torch.zeros(3, 3, requires_grad=True))
    for method in (IMLE(), StraightThroughMarginals()):
        with pytest.raises(ValueError, match="has no temperature"):
            d.rsample(method=method, temperature=0.5)
    with pytest.raises(ValueError, match="temperature must be positive"):
        d.rsample(temperature=0.0)
    with pytest.raises(ValueError, match="step must be positive"):
        IMLE(step=0.0)
    (loss,) = torch.autograd.grad(d.rsample().unary.pow(2).sum(), d.transition, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative"):
        loss.sum().backward()
