"""What is particular to trees of listed rules."""

import pytest
import torch

import structlv
from structlv.distributions import SparseRules, SparseTreePosterior, TreePosterior
from tests.distributions.tree_cases import BINARY_RULES, RULES, sparse_scores, sparse_structures
from tests.tolerance import assert_nats, assert_probabilities


def made(rules=RULES, n=4, batch=(), spans=None, **options):
    scores = torch.randn(len(rules), dtype=torch.float64)
    unary = torch.randn(*batch, n, 2, dtype=torch.float64)
    between = None if spans is None else torch.randn(*batch, n, n, spans, dtype=torch.float64)
    root = torch.randn(3, dtype=torch.float64)
    listed = SparseRules(torch.tensor(rules), scores)
    return TreePosterior(root, listed, unary, spans=between, **options)


def test_the_kind_of_rules_decides():
    d = made()
    assert type(d) is SparseTreePosterior
    assert structlv.SparseRules is SparseRules
    assert d.depth == d.rules.depth == 3
    assert d.event_shape == (4 * 7, 3)
    assert d.with_temperature(2.0).depth == 3
    with pytest.raises(TypeError, match="rules must be"):
        TreePosterior(d.root, [[0, 1, 2]], d.unary)
    with pytest.raises(ValueError, match=r"children in 0\.\.4"):
        made([[0, 1, 5]])
    with pytest.raises(TypeError, match="floating dtypes must not be mixed"):
        TreePosterior(d.root, SparseRules(d.index, d.scores.float()), d.unary)
    with pytest.raises(ValueError, match="NaN in scores"):
        TreePosterior(d.root, SparseRules(d.index, d.scores * torch.nan), d.unary)


@pytest.mark.parametrize("spans", [None, 1, 3])
def test_span_marginals_are_of_constituents(spans):
    d = made(spans=spans)
    events, weights = sparse_structures(d), sparse_scores(d, sparse_structures(d)).softmax(0)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for event, weight in zip(events.tolist(), weights, strict=True):
        for i, j in {(i, j) for i, j, _ in event if i >= 0}:
            expected[i, j] += weight
    assert_probabilities(d.span_marginals(), expected)


def test_conditioning_on_constituents():
    d = made(n=4)
    events, scores = sparse_structures(d), sparse_scores(d, sparse_structures(d))
    has = torch.tensor([any((i, j) == (1, 2) for i, j, _ in event) for event in events.tolist()])
    evidence = d.condition(spans=torch.tensor([[1, 2], [-1, -1]]))
    assert_nats(evidence.log_partition(), scores[has].logsumexp(0))
    allowed = torch.ones(4, 4, dtype=torch.bool)
    allowed[1, 2] = False
    assert_nats(d.condition(allowed=allowed).log_partition(), scores[~has].logsumexp(0))
    symbols = torch.ones(4, 4, 3, dtype=torch.bool)
    symbols[1, 2, 1] = False
    without = torch.tensor([[1, 2, 1] not in event for event in events.tolist()])
    assert_nats(d.condition(allowed=symbols).log_partition(), scores[without].logsumexp(0))
    with pytest.raises(NotImplementedError, match="with unary rules"):
        d.condition(spans=torch.tensor([[1, 2, 1]]))
    with pytest.raises(NotImplementedError, match="scores of constituents"):
        made(spans=1).condition(allowed=symbols)


def test_minimum_risk():
    d = made(n=4)
    for labelled in (False, True):
        tree = d.decode(labelled)
        assert tree.shape == (7, 3)
        covers = d.span_marginals()
        best = sum(float(covers[i, j]) for i, j, _ in tree.tolist() if i < j)
        for event in sparse_structures(d).tolist():
            other = sum(float(covers[i, j]) for i, j in {(i, j) for i, j, _ in event if 0 <= i < j})
            assert labelled or other <= best + 1e-12


def test_labelled_evidence_without_unary_rules():
    rules = torch.tensor([*BINARY_RULES, [0, 1, 0]])
    d = TreePosterior(torch.zeros(1), SparseRules(rules, torch.zeros(5)), torch.zeros(3, 2))
    kept = [d.condition(spans=torch.tensor([row])).log_count().exp() for row in ([0, 1, 0], [1, 2, 0])]
    assert_nats(sum(kept), d.log_count().exp())


def test_the_rules_must_be_the_same():
    p, q = made(), made(RULES[::-1])
    with pytest.raises(ValueError, match="same rules"):
        p.kl(q)


def test_support():
    d = made()
    tree = d.argmax()
    assert d.support.check(tree)
    assert not d.support.check(torch.full_like(tree, -1))
    assert "9 rules" in repr(d.support)
    assert "9 rules" in repr(d.rules)


def test_compile_and_vmap():
    d = made(n=3)

    def entropy(root, scores, unary):
        listed = SparseRules(d.index, scores, depth=3)
        return TreePosterior(root, listed, unary, validate_args=False).entropy()

    given = d.root, d.scores, d.unary
    assert_nats(torch.compile(entropy, backend="aot_eager", fullgraph=True)(*given), entropy(*given))
    pairs = [torch.stack([x, x * 0.5]) for x in given]
    assert_nats(torch.vmap(entropy)(*pairs)[1], entropy(*[x * 0.5 for x in given]))
