"""What low-rank posteriors and grammars have beside the laws."""

import pytest
import torch

from structlv.distributions import (
    PCFG,
    LowRankParts,
    LowRankPCFG,
    LowRankRules,
    LowRankTreePosterior,
    SimpleParts,
    SimplePCFG,
    TreePosterior,
)
from structlv.reference import enumerate as brute
from tests.ops.queries import chi_square_p
from tests.tolerance import CHI_SQUARE, assert_nats, assert_probabilities

NT, T, R, V = 3, 4, 5, 6


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def posterior(head=True, batch=(2,), n=5, **options):
    rank = R if head else NT
    rules = LowRankRules(randn(NT, rank) if head else None, randn(rank, NT + T), randn(rank, NT + T))
    return TreePosterior(randn(NT), rules, randn(*batch, n, T), **options)


def grammar(head=True, batch=()):
    sides = [randn(*batch, R if head else NT, NT + T) for _ in range(2)]
    if head:
        return LowRankPCFG(randn(NT), randn(*batch, NT, R), *sides, randn(T, V))
    return SimplePCFG(randn(NT), *sides, randn(T, V))


def as_dense(g):
    return PCFG(g.root_logits, g._rules().to_dense(), g.emission_logits)


heads = pytest.mark.parametrize("head", [True, False], ids=["rank", "simple"])


@heads
def test_the_kind_of_rules_picks_the_class(head):
    d = posterior(head)
    assert type(d) is LowRankTreePosterior
    assert isinstance(d.marginals(), LowRankParts if head else SimpleParts)
    assert isinstance(d.max_marginals(), LowRankParts if head else SimpleParts)
    assert type(d.rules) is LowRankRules
    assert "left: (" in repr(d)
    dense = d.to_dense()
    assert_nats(d.log_partition(), dense.log_partition())
    assert_probabilities(d.marginals().spans, dense.marginals().spans)
    assert_probabilities(d.span_marginals(), dense.span_marginals())
    assert torch.equal(d.argmax(), dense.argmax())


@heads
@pytest.mark.parametrize("labelled", [False, True])
def test_minimum_risk_trees_are_those_of_the_dense_rules(head, labelled):
    d = posterior(head, batch=(6,), n=7, lengths=torch.tensor([7, 5, 2, 1, 0, 6]))
    assert torch.equal(d.decode(labelled), d.to_dense().decode(labelled))


@heads
def test_divergences_from_dense_rules(head):
    p, q = posterior(head), posterior(head)
    assert_nats(p.kl(q.to_dense()), p.to_dense().kl(q.to_dense()))
    assert_nats(p.kl(q), p.cross_entropy(q) - p.entropy())
    assert type(p.with_temperature(2.0)) is not LowRankTreePosterior
    with pytest.raises(TypeError):
        p.kl(3)


@heads
def test_conditioning_stays_in_the_space_of_ranks(head):
    d = posterior(head, batch=())
    given = d.condition(spans=torch.tensor([[1, 3]]))
    assert type(given) is LowRankTreePosterior
    assert_nats(given.log_partition() - d.log_partition(), d.span_marginals()[1, 3].log())


def test_counts_of_a_tree_are_the_gradient_of_its_score():
    d = posterior()
    event = d.sample((2,))
    leaves = [x.clone().requires_grad_() for x in (d.head, d.left, d.right)]
    moved = TreePosterior(d.root, LowRankRules(*leaves), d.unary)
    gradients = torch.autograd.grad(moved.score(event).sum(), leaves)
    for part, gradient in zip(d.to_parts(event)[1:4], gradients, strict=True):
        assert_probabilities(part.sum((0, 1)), gradient)


@heads
def test_wrong_rules(head):
    good = posterior(head)
    with pytest.raises(ValueError, match="left must have shape"):
        TreePosterior(good.root, good.rules._replace(left=good.left[:, 1:]), good.unary)
    with pytest.raises(ValueError, match="found NaN in right"):
        TreePosterior(good.root, good.rules._replace(right=good.right / 0 * 0), good.unary)
    with pytest.raises(TypeError, match="mixed"):
        TreePosterior(good.root, good.rules._replace(left=good.left.float()), good.unary)
    with pytest.raises(TypeError, match="Tensor or LowRankRules"):
        TreePosterior(good.root, 3, good.unary)


# ---- over sentences --------------------------------------------------------------------------------------


@heads
@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
def test_a_grammar_is_its_dense_one(head, batch):
    g = grammar(head, batch)
    x, lengths = torch.randint(0, V, (3, 6)), torch.tensor([6, 4, 2])
    mask = torch.rand(3, 6) < 0.8
    assert_nats(g.log_prob(x, lengths, mask), as_dense(g).log_prob(x, lengths, mask))
    assert type(g.posterior(x)) is LowRankTreePosterior


@heads
def test_rows_are_normalised(head):
    g = grammar(head)
    for name in g._parameters:
        assert_nats(
            getattr(g, name).logsumexp(-1), torch.zeros(getattr(g, name).shape[:-1], dtype=torch.float64)
        )
    rules = g._rules().to_dense().flatten(-2).logsumexp(-1)
    assert_nats(rules, torch.zeros(NT, dtype=torch.float64))


@heads
def test_sentences_have_the_law_of_log_prob(head):
    g = grammar(head)
    words, trees = g.sample((20000,), 3, with_trees=True, generator=torch.Generator().manual_seed(3))
    assert words.shape == (20000, 3)
    lengths = (words >= 0).sum(-1)
    every = torch.cartesian_prod(*[torch.arange(V)] * 3)
    pairs = torch.cartesian_prod(*[torch.arange(V)] * 2)
    log_probs = torch.cat([g.log_prob(pairs), g.log_prob(every)])
    index = torch.where(
        lengths == 2, words[:, 0] * V + words[:, 1], V**2 + (words[:, 0] * V + words[:, 1]) * V + words[:, 2]
    )
    counts = torch.bincount(index, minlength=len(log_probs))
    assert chi_square_p(counts, (log_probs - log_probs.logsumexp(0)).exp()) > CHI_SQUARE
    three = trees[lengths == 3]
    assert bool((g.posterior(words[lengths == 3]).score(three) > -torch.inf).all())
    scores = PCFG(g.root_logits, g._rules().to_dense(), torch.zeros(T, 1, dtype=torch.float64))
    listed = brute.trees(3, NT, T)
    found = (three[:, None] == listed).all(-1).all(-1).sum(0)
    weight = scores.posterior(torch.zeros(3, dtype=torch.long)).score(listed)
    assert chi_square_p(found, (weight - weight.logsumexp(0)).exp()) > CHI_SQUARE


@heads
def test_a_grammar_of_each_item_samples_alone(head):
    g = grammar(head, (2,))
    draw = lambda d: d.sample((4,), 5, with_trees=True, generator=torch.Generator().manual_seed(1))[1]  # noqa: E731
    assert torch.equal(draw(g)[:, :1], draw(g[:1]))


@heads
def test_learning_raises_the_likelihood(head):
    leaves = [
        x.requires_grad_() for x in (randn(NT), randn(NT, R), randn(R, NT + T), randn(R, NT + T), randn(T, V))
    ]
    if not head:
        leaves = [
            leaves[0],
            randn(NT, NT + T).requires_grad_(),
            randn(NT, NT + T).requires_grad_(),
            leaves[-1],
        ]
    kind, x = LowRankPCFG if head else SimplePCFG, torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]])
    optimizer, losses = torch.optim.Adam(leaves, 0.1), []
    for _ in range(20):
        loss = -kind(*leaves).log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1


def test_wrong_logits():
    with pytest.raises(ValueError, match="head"):
        LowRankPCFG(randn(NT), randn(NT, R + 1), randn(R, NT + T), randn(R, NT + T), randn(T, V))
    with pytest.raises(ValueError, match="left"):
        SimplePCFG(randn(NT), randn(R, NT + T), randn(NT, NT + T), randn(T, V))
    with pytest.raises(ValueError, match="NaN"):
        SimplePCFG(randn(NT) * torch.nan, randn(NT, NT + T), randn(NT, NT + T), randn(T, V))
