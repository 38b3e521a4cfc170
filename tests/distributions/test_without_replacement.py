"""Structures without replacement: that wrong samplers are found out, what a draw depends on, derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from structlv import BinaryTree, FactorialChain, LinearChain, SparseRules, TreePosterior, reference
from structlv.distributions import DistinctSamples
from structlv.reference import distinct
from tests.distributions.chances import assert_without_replacement
from tests.distributions.examples import BY_NAME, chain_structures
from tests.distributions.oracle import Oracle
from tests.tolerance import assert_nats, assert_probabilities

SEEDS = range(10)
KINDS = [
    "shared transition",
    "shared rules",
    "rank 2",
    "listed rules of each item",
    "binary tree",
    "labelled binary tree",
    "two chains",
    "three separate chains",
]


def draw(d: Any, k: int = 3, seed: int = 5) -> DistinctSamples:
    return d.sample_without_replacement(k, Generator().manual_seed(seed))


@pytest.mark.parametrize("name", KINDS)
def test_the_law_for_every_seed(name: str) -> None:
    example = BY_NAME[name]
    d = example.make()
    item = d[(0,) * len(d.batch_shape)] if d.batch_shape else d
    oracle = Oracle(example, item)
    for seed in SEEDS:
        assert_without_replacement(draw(item.expand((300,)), 2, seed), oracle.events, oracle.probabilities)


# ---- samplers that are wrong ---------------------------------------------------------------------


def peaked() -> LinearChain:
    generator = Generator().manual_seed(2)
    return LinearChain(
        torch.randn(3, 2, dtype=torch.float64, generator=generator) * 1.5,
        torch.randn(2, 2, dtype=torch.float64, generator=generator),
    )


def check(draws: DistinctSamples) -> None:
    events = chain_structures(peaked())
    assert_without_replacement(draws, events, peaked().log_prob(events).exp())


def by_reference(count: int = 200) -> DistinctSamples:
    d = peaked().expand((count,))
    events, perturbed = reference.chain.sample_distinct(*d._args, k=3, seed=11)
    return DistinctSamples(events, perturbed, d.log_prob(events))


def test_the_reference_passes() -> None:
    check(by_reference())


def test_noise_shared_by_the_items_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    own = distinct._noise
    monkeypatch.setattr(distinct, "_noise", lambda seed, item, opened, count: own(seed, 0, opened, count))
    with pytest.raises(AssertionError):
        check(by_reference())


def test_noise_shared_by_the_openings_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    own = distinct._noise
    monkeypatch.setattr(distinct, "_noise", lambda seed, item, opened, count: own(seed, item, 0, count))
    with pytest.raises(AssertionError):
        check(by_reference())


def test_noise_that_forgets_the_maximum_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "given_maximum", lambda perturbed, maximum: perturbed)
    with pytest.raises(AssertionError):
        check(by_reference())


def test_noise_that_is_moved_to_the_maximum_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shifting all of them by the same amount leaves the largest right, and the others wrong."""
    shifted = lambda g, maximum: g + (maximum - g.amax(-1)).unsqueeze(-1)  # noqa: E731
    monkeypatch.setattr(distinct, "given_maximum", shifted)
    with pytest.raises(AssertionError):
        check(by_reference())


def test_samples_with_replacement_fail() -> None:
    """Also where what is drawn again is thrown away, unless that is done until there are enough."""
    d, noise = peaked(), torch.rand(3, 1500).log().sort(dim=0, descending=True)[0].double()
    events = d.expand((1500,)).sample((3,), Generator().manual_seed(1))
    log_prob = d.expand((1500,)).log_prob(events)
    with pytest.raises(AssertionError):
        check(DistinctSamples(events, noise, log_prob))
    codes = (events * torch.tensor([4, 2, 1])).sum(-1)
    again = torch.stack([(codes[:i] == codes[i]).any(0) for i in range(3)])
    events, noise = events.masked_fill(again.unsqueeze(-1), -1), noise.masked_fill(again, -torch.inf)
    with pytest.raises(AssertionError):
        check(DistinctSamples(events, noise, log_prob))


def test_the_best_with_noise_on_the_states_fails() -> None:
    """Perturbing nodes, as relaxations do, and listing the best is not exact."""
    d = peaked().expand((1500,))
    scores, events = d._perturbed(1, 3)[0].topk(3)
    with pytest.raises(AssertionError):
        check(DistinctSamples(events, scores - d.log_partition(), d.log_prob(events)))


# ---- what a draw depends on ----------------------------------------------------------------------


def assert_same(whole: DistinctSamples, part: DistinctSamples, index: Any = slice(None)) -> None:
    """The first steps or rows of the items of ``part`` are the same structures, and -1 follows."""
    for rank, (a, b) in enumerate(zip(whole.events, part.events, strict=True)):
        mine = a[index]
        cut = mine[tuple(slice(0, size) for size in b.shape)]
        assert torch.equal(cut, b), rank
        assert int((mine >= 0).sum()) == int((b >= 0).sum())
    assert_nats(whole.perturbed[:, index], part.perturbed)
    assert_nats(whole.log_prob[:, index], part.log_prob)


def padded(kind: str) -> tuple[Any, Any]:
    """Five items, and the second of them alone but for the first, without the padding."""
    torch.manual_seed(1)
    n, lengths = 5, torch.tensor([3, 2, 5, 0, 1])
    unary, two = torch.randn(5, n, 3, dtype=torch.float64), torch.randn(5, n, 2, dtype=torch.float64)
    moves, small = torch.randn(3, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    few, cut = lengths[:2], (slice(0, 2), slice(0, 3))
    if kind == "chain":
        return LinearChain(unary, moves, lengths=lengths), LinearChain(unary[cut], moves, lengths=few)
    if kind == "separate chains":
        return (
            FactorialChain((unary, two), (moves, small), lengths=lengths),
            FactorialChain((unary[cut], two[cut]), (moves, small), lengths=few),
        )
    if kind in ("binary tree", "labelled tree"):
        scores = torch.randn(5, n, n, *[2] * (kind == "labelled tree"), dtype=torch.float64)
        whole = BinaryTree(scores, lengths=lengths, labelled=kind == "labelled tree")
        return whole, BinaryTree(scores[:2, :3, :3], lengths=few, labelled=kind == "labelled tree")
    root = torch.randn(2, dtype=torch.float64)
    rules: Any = torch.randn(2, 5, 5, dtype=torch.float64)
    if kind == "listed rules":
        index = torch.tensor([[0, 1, 1], [0, 2, 1], [1, 2, 3], [1, 4, -1], [1, 0, 2], [0, 3, -1]])
        rules = SparseRules(index, torch.randn(6, dtype=torch.float64))
    return (
        TreePosterior(root, rules, unary, lengths=lengths),
        TreePosterior(root, rules, unary[cut], lengths=few),
    )


@pytest.mark.parametrize(
    "kind", ["chain", "separate chains", "binary tree", "labelled tree", "dense rules", "listed rules"]
)
def test_a_draw_does_not_depend_on_padding_or_on_others(kind: str) -> None:
    whole, part = padded(kind)
    for seed in range(3):
        assert_same(draw(whole, 6, seed), draw(part, 6, seed), slice(0, 2))


def test_items_have_noise_of_their_own() -> None:
    """2,000 identical items: all structures, and no relation of one half to the other."""
    draws = draw(LinearChain(torch.zeros(2000, 3, 2), torch.zeros(2, 2)))
    codes = (draws.events * torch.tensor([4, 2, 1])).sum(-1)
    for rank in range(3):
        assert int(torch.bincount(codes[rank], minlength=8).min()) > 180  # of 250 each
        left, right = draws.perturbed[rank].double().chunk(2)
        assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.1


def test_long_chains() -> None:
    """Of more structures than could be listed: different ones, in order, with the noise that they say."""
    torch.manual_seed(4)
    d = LinearChain(torch.randn(3, 60, 7) * 3, torch.randn(7, 7) * 3, lengths=torch.tensor([60, 41, 3]))
    draws = draw(d, 50)
    assert_nats(draws.log_prob, d.log_prob(draws.events))
    assert bool((draws.events[:, :, 0] >= 0).all())
    for b in range(3):
        assert len({tuple(z) for z in draws.events[:, b].tolist()}) == 50
    assert bool((draws.perturbed.diff(dim=0) <= 0).all())
    assert bool(
        (draws.perturbed - draws.log_prob)[:, 0].gt(0).all()
    )  # what is found among so many has much noise


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_potentials_of_any_size(scale: float) -> None:
    """Structures of probability exp(-scale) are found after all others, and without NaN."""
    unary = torch.tensor([[0.0, -scale], [0.0, 1.0]], dtype=torch.float64)
    draws = draw(LinearChain(unary.expand(50, 2, 2), torch.zeros(2, 2, dtype=torch.float64)), 5)
    assert bool((draws.events[:2, :, 0] == 0).all())
    assert bool((draws.events[2:4, :, 0] == 1).all())
    assert bool(draws.perturbed[:4].isfinite().all())
    assert bool((draws.perturbed[2:4] < -scale / 2).all())
    assert bool((draws.perturbed[4] == -torch.inf).all())


# ---- types and derivatives -----------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_log_probabilities_are_differentiable_and_perturbed_ones_are_not(name: str) -> None:
    example = BY_NAME[name]
    parameters = {
        key: x.requires_grad_() if x is not None and x.is_floating_point() else x
        for key, x in example.parameters(0).items()
    }
    d = example.build(**parameters)
    leaves = [x for x in parameters.values() if x is not None and x.requires_grad]
    draws = draw(d)
    assert not draws.perturbed.requires_grad
    weight = torch.randn(draws.log_prob.shape, dtype=torch.float64)
    found = torch.autograd.grad((draws.log_prob * weight).sum(), leaves)
    wanted = torch.autograd.grad((d.log_prob(draws.events) * weight).sum(), leaves)
    for a, b in zip(found, wanted, strict=True):
        assert_probabilities(a, b)


def test_missing_structures_have_no_gradient() -> None:
    scores = torch.zeros(2, 2, 2, dtype=torch.float64)
    scores[0, 0, 1] = scores[1, 0] = -torch.inf
    scores.requires_grad_()
    draws = draw(LinearChain(scores, torch.zeros(2, 2, dtype=torch.float64)), 4)
    assert (draws.log_prob > -torch.inf).sum(0).tolist() == [2, 0]
    there = draws.log_prob.masked_fill(draws.log_prob == -torch.inf, 0.0)
    (found,) = torch.autograd.grad(there.sum(), scores)
    assert bool(found.isfinite().all())
    assert not found[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    draws = draw(LinearChain(torch.zeros(2, 3, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype)))
    scalar = torch.float64 if dtype == torch.float64 else torch.float32
    assert [x.dtype for x in draws] == [torch.int64, scalar, scalar]


@pytest.mark.parametrize("k", [0, -1, 1.0, "two", None])
def test_refusals(k: Any) -> None:
    with pytest.raises(ValueError, match=f"k must be a positive integer, found {k!r}"):
        LinearChain(torch.zeros(3, 2), torch.zeros(2, 2)).sample_without_replacement(k)


def test_the_conditional_maximum_is_one() -> None:
    """The largest becomes the maximum, the others keep their order, -inf stays."""
    g = torch.randn(50, 6, dtype=torch.float64, generator=Generator().manual_seed(3)) * 5
    g[:, 2] = -torch.inf
    maximum = torch.linspace(-30, 30, 50, dtype=torch.float64)
    moved = distinct.given_maximum(g, maximum)
    assert torch.equal(moved.amax(-1), maximum)
    assert bool((moved[:, 2] == -torch.inf).all())
    assert torch.equal(moved.gather(1, g.argsort(-1)).sort(-1)[0], moved.gather(1, g.argsort(-1)))
    plain: Tensor = -((-maximum).exp()[:, None] - (-g.amax(-1, keepdim=True)).exp() + (-g).exp()).log()
    easy = (moved > -torch.inf) & (maximum.abs() < 8)[:, None]
    assert bool(((moved - plain).abs()[easy] < 1e-6).all())
