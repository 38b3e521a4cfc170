"""The PCFG over sentences, against sums over all trees."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor
from torch.autograd import gradcheck

from structlv.distributions import PCFG, TreePosterior
from tests.distributions.laws import chi_square, close
from tests.distributions.tree_cases import every_tree

INF = float("inf")
NT, T, S, V = 2, 2, 4, 3


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(**changes: Any) -> PCFG:
    made = {
        "root_logits": logits(NT, seed=1),
        "rule_logits": logits(NT, S, S, seed=2),
        "emission_logits": logits(T, V, seed=3),
    }
    return PCFG(**{**made, **changes})


def joint(g: PCFG, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every tree of one sentence, and log p(tree, x), one factor at a time, from the unnormalised rows."""
    n = len(x)
    events = every_tree(n, 2 * n - 1, range(NT), range(NT, S))
    scores = []
    for event in events.tolist():
        tree = {(i, j): symbol for i, j, symbol in event}
        score = g.root_logits[event[0][2]]
        for at, (i, j, symbol) in enumerate(event):
            if i < j:
                left = event[at + 1]
                score = score + g.rule_logits[symbol, left[2], tree[left[1] + 1, j]]
            elif mask is None or mask[i]:
                score = score + g.emission_logits[symbol - NT, x[i]]
        scores.append(score)
    return events, torch.stack(scores)


def sentences(n: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(V), repeat=n)))


def length_probability(g: PCFG, n: int) -> Tensor:
    """log p(length n): of a sentence whose words are all missing."""
    return g.log_prob(torch.zeros(n).long(), mask=torch.zeros(n, dtype=torch.bool))


def test_log_prob_equals_brute_force() -> None:
    g = plain()
    for n in (2, 3, 4):
        x = torch.randint(0, V, (2, n))
        for i in range(2):
            events, scores = joint(g, x[i])
            close(g.log_prob(x)[i], scores.logsumexp(0))
            close(g.posterior(x[i]).log_prob(events), scores.log_softmax(0))


def test_sentences_of_one_length_sum_to_the_probability_of_the_length() -> None:
    g = plain()
    for n in (2, 3, 4):
        close(g.log_prob(sentences(n)).logsumexp(0), length_probability(g, n))


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_lengths_follow_the_branching_process(p: float) -> None:
    """S -> w w, w S or S S: each child is S with probability p, so that p(n) is Catalan-like."""
    child = torch.tensor([p, 1 - p], dtype=torch.float64)
    g = PCFG(torch.zeros(1).double(), child.outer(child).log()[None], torch.zeros(1, 1).double())
    # f(w) = p(S has w leaves) satisfies f = (p f + (1-p) [w = 1]) convolved with itself
    f = [0.0, 0.0]
    below = [0.0, 1 - p]
    for w in range(2, 12):
        f.append(sum(below[k] * below[w - k] for k in range(1, w)))
        below.append(p * f[w])
    found = torch.stack([length_probability(g, n) for n in range(2, 12)])
    close(found.exp(), torch.tensor(f[2:], dtype=torch.float64))


def test_parameters_are_normalised_and_impossible_rows_stay_impossible() -> None:
    root, rules, emission = logits(NT), logits(NT, S, S), logits(T, V)
    rules[1] = -INF
    emission[1] = -INF
    leaves = [t.requires_grad_() for t in (root, rules, emission)]
    g = PCFG(*leaves)
    close(g.root_logits.exp().sum(), torch.tensor(1.0))
    close(g.rule_logits.exp().sum((-2, -1)), torch.tensor([1.0, 0.0]))
    close(g.emission_logits.exp().sum(-1), torch.tensor([1.0, 0.0]))
    x = torch.tensor([[0, 1, 2], [2, 2, 0]])
    close(g.log_prob(x)[0], joint(g, x[0])[1].logsumexp(0))
    for grad in torch.autograd.grad(g.log_prob(x).sum(), leaves):
        assert bool(grad.isfinite().all())


def test_ragged_batches_equal_their_sentences() -> None:
    g = plain()
    x = torch.tensor([[0, 1, 2, 0], [1, 2, -1, 99], [2, -1, -1, -1], [-1, -1, -1, -1]])
    found = g.log_prob(x, torch.tensor([4, 2, 1, 0]))
    close(found[0], g.log_prob(x[0]))
    close(found[1], g.log_prob(x[1, :2]))
    assert found[2:].tolist() == [-INF, -INF]


def test_missing_words_are_summed_over() -> None:
    g = plain()
    x, mask = torch.tensor([0, 77, 2]), torch.tensor([True, False, True])
    close(g.log_prob(x, mask=mask), joint(g, x, mask)[1].logsumexp(0))
    filled = torch.stack([torch.tensor([0, w, 2]) for w in range(V)])
    close(g.log_prob(x, mask=mask), g.log_prob(filled).logsumexp(0))


def test_batches_of_grammars_and_of_sentences() -> None:
    g = PCFG(logits(2, 1, NT), logits(3, NT, S, S), logits(2, 3, T, V))
    assert g.batch_shape == (2, 3)
    x = torch.randint(0, V, (4, 2, 3, 3))
    found = g.log_prob(x)
    assert found.shape == (4, 2, 3)
    for index in itertools.product(range(2), range(3)):
        close(found[(0, *index)], joint(g[index], x[(0, *index)])[1].logsumexp(0))
    close(g.log_prob(x[0, 0, 0]), torch.stack([d.log_prob(x[0, 0, 0]) for d in g]))


def test_a_shared_grammar_is_not_copied() -> None:
    g = plain()
    posterior = g.posterior(torch.randint(0, V, (64, 5)))
    assert isinstance(posterior, TreePosterior)
    assert posterior.batch_shape == (64,)
    assert posterior.rules.data_ptr() == g.rule_logits.data_ptr()  # type: ignore[attr-defined]
    assert posterior.rules.shape == (NT, S, S)  # type: ignore[attr-defined]
    assert g.expand((7,)).rule_logits.shape == (NT, S, S)


def test_no_table_of_all_words_is_made_for_each_position() -> None:
    """60 thousand words, 3000 positions, 4 preterminals: (b, n, T, v) would be 3 GB."""
    g = PCFG(torch.zeros(1), torch.zeros(1, 5, 5), torch.zeros(4, 60_000).requires_grad_())
    x = torch.randint(0, 60_000, (300, 10))
    log_prob = g.log_prob(x)
    close(log_prob - log_prob[0], torch.zeros(300))
    log_prob.sum().backward()


def test_gradients_reach_all_parameters() -> None:
    x, lengths = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([3, 2])
    point = tuple(t.requires_grad_() for t in (logits(NT), logits(NT, S, S), logits(T, V)))
    assert gradcheck(lambda r, u, e: PCFG(r, u, e).log_prob(x, lengths), point)


# ---- samples --------------------------------------------------------------------------------------


def test_samples_have_the_law_of_sentences_up_to_a_length() -> None:
    g = plain()
    x = g.sample((8000,), 3, generator=torch.Generator().manual_seed(1))
    assert x.shape == (8000, 3)
    every = torch.cat([torch.nn.functional.pad(sentences(2), (0, 1), value=-1), sentences(3)])
    lengths = (every >= 0).sum(-1)
    p = g.log_prob(every, lengths).softmax(0)
    counts = (x.unsqueeze(1) == every).all(-1).double().sum(0)
    assert counts.sum() == len(x)
    chi_square(counts, p * len(x))


def test_samples_and_their_trees_have_the_joint_law() -> None:
    g = plain(emission_logits=logits(T, 1))  # one word: the trees are all there is
    x, trees = g.sample((8000,), 3, with_trees=True, generator=torch.Generator().manual_seed(2))
    assert trees.shape == (8000, 5, 3)
    every = torch.cat([every_tree(n, 5, range(NT), range(NT, S)) for n in (2, 3)])
    scores = torch.cat([joint(g, torch.zeros(n).long())[1] for n in (2, 3)])
    counts = (trees.unsqueeze(1) == every).flatten(2).all(-1).double().sum(0)
    chi_square(counts, scores.softmax(0) * len(x))


def test_samples_of_batches_are_of_their_own_grammars() -> None:
    """The word says which grammar and preterminal it is from."""
    table = torch.full((2, T, 4), -INF).double()
    for item, preterminal in itertools.product(range(2), range(T)):
        table[item, preterminal, 2 * item + preterminal] = 0.0
    g = PCFG(logits(NT), logits(2, NT, S, S) - 2 * torch.eye(S).double(), table)
    x, trees = g.sample((300,), 6, with_trees=True)
    assert x.shape == (300, 2, 6)
    assert trees.shape == (300, 2, 11, 3)
    posterior = g.posterior(x, (x >= 0).sum(-1))
    assert bool(posterior.log_prob(trees).isfinite().all())
    assert bool(posterior.support.check(trees).all())
    lengths = (x >= 0).sum(-1)
    for i in range(2):
        p = torch.stack([length_probability(g[i], n) for n in range(2, 7)]).softmax(0)
        chi_square(torch.bincount(lengths[:, i], minlength=7)[2:].double(), p * 300)


def test_a_seed_fixes_each_sample_by_itself() -> None:
    g = plain(rule_logits=logits(2, NT, S, S))
    before = torch.get_rng_state()
    draws = [
        g.sample((5,), 8, generator=torch.Generator().manual_seed(s), with_trees=True) for s in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][1], draws[2][1])
    first = g[:1].sample((5,), 8, generator=torch.Generator().manual_seed(1), with_trees=True)
    assert torch.equal(first[1], draws[0][1][:, :1])
    assert len(g.expand((200, 2)).sample((), 8, with_trees=True)[1].flatten(0, 1).unique(dim=0)) > 50


def test_sentences_that_would_not_end_are_not_drawn() -> None:
    """Most derivations of this grammar never end; p(x | at most 4 words) is drawn from all the same."""
    rules = torch.tensor([[[0.999, 0.0], [0.0, 0.001]]], dtype=torch.float64).log()
    g = PCFG(torch.zeros(1).double(), rules, torch.zeros(1, 2).double())
    x = g.sample((500,), 4)
    n = (x >= 0).sum(-1)
    assert set(n.tolist()) <= {2, 4}
    assert float(length_probability(g, 2)) == pytest.approx(math.log(0.001))


def test_where_no_sentence_is_short_enough() -> None:
    only = torch.full((2, 3, 3), -INF).double()
    only[0, 1, 1] = 0.0  # S -> A A
    only[1, 2, 2] = 0.0  # A -> w w
    g = PCFG(torch.tensor([0.0, -INF]).double(), only, torch.zeros(1, 2).double())
    for n in (0, 1, 3):
        words, trees = g.sample((3,), n, with_trees=True)
        assert words.shape == (3, n)
        assert trees.shape == (3, max(2 * n - 1, 0), 3)
        assert bool((words == -1).all())
        assert bool((trees == -1).all())
    words, trees = g.sample((3,), 5, with_trees=True)
    assert bool(((words >= 0).sum(-1) == 4).all())
    assert (
        trees[0].tolist()
        == [[0, 3, 0], [0, 1, 1], [0, 0, 2], [1, 1, 2], [2, 3, 1], [2, 2, 2], [3, 3, 2]] + [[-1, -1, -1]] * 2
    )


def test_no_samples() -> None:
    g = plain(rule_logits=logits(2, NT, S, S))
    assert g.sample((0,), 4).shape == (0, 2, 4)
    assert g[:0].sample((3,), 4, with_trees=True)[1].shape == (3, 0, 7, 3)


def test_deep_sentences() -> None:
    """S -> w S | w w: a tree of 400 words is 400 deep."""
    rules = torch.full((1, 2, 2), -INF).double()
    rules[0, 1, 0], rules[0, 1, 1] = math.log(0.99), math.log(0.01)
    g = PCFG(torch.zeros(1).double(), rules, torch.zeros(1, 2).double())
    words, trees = g.sample((400,), 400, with_trees=True)
    lengths = (words >= 0).sum(-1)
    assert int(lengths.max()) > 300
    assert bool(g.posterior(words[:2], lengths[:2]).support.check(trees[:2]).all())
    assert float(length_probability(g, 50)) == pytest.approx(48 * math.log(0.99) + math.log(0.01))


@pytest.mark.parametrize("max_length", [None, -1, 2.0])
def test_the_longest_sentence_must_be_known(max_length: Any) -> None:
    with pytest.raises(ValueError, match="max_length must be a non-negative integer"):
        plain().sample((), max_length)


# ---- arguments, and as a distribution --------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"root_logits": torch.zeros(()).double()}, ValueError, r"root_logits must have shape \(\*b, NT\)"),
    ({"root_logits": torch.zeros(0).double()}, ValueError, "NT >= 1"),
    ({"root_logits": torch.zeros(2)}, TypeError, "root_logits torch.float32, rule_logits torch.float64"),
    ({"rule_logits": logits(NT, S, S + 1)}, ValueError, r"rule_logits must have shape \(\*b, NT, S, S\)"),
    ({"rule_logits": [[[0.0]]]}, TypeError, "rule_logits must be a torch.Tensor, found list"),
    ({"emission_logits": logits(T)}, ValueError, r"emission_logits must have shape \(\*b, T, v\)"),
    ({"emission_logits": logits(T, 0)}, ValueError, "T, v >= 1"),
    ({"emission_logits": logits(T + 1, V)}, ValueError, r"last dimensions \(2, 5, 5\)"),
    ({"root_logits": logits(2, NT), "rule_logits": logits(5, NT, S, S)}, ValueError, "batch shapes must"),
    ({"rule_logits": logits(NT, S, S) * torch.nan}, ValueError, "rule_logits must not be NaN"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_parameters(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plain(**wrong)


X = torch.tensor([[0, 1, 2], [2, 0, 1]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.double(),), TypeError, "x must be a tensor of integers"),
        ((torch.tensor(1),), ValueError, "x must have shape"),
        ((X + 1,), ValueError, "x must be in 0..2, found values from 1 to 3"),
        ((X, torch.tensor([3, 4])), ValueError, "lengths must be in 0..3"),
        ((X, None, torch.ones(2, 3)), TypeError, "mask must be a bool tensor"),
        ((X.to("meta"),), ValueError, "x must be on the device of root_logits"),
    ],
)
def test_wrong_sentences(arguments: Any, error: type[Exception], message: str) -> None:
    for query in (plain().log_prob, plain().posterior):
        with pytest.raises(error, match=message):
            query(*arguments)


def test_torch_distributions_grammar() -> None:
    g = PCFG(logits(2, NT), logits(NT, S, S), logits(T, V))
    assert isinstance(g, td.Distribution)
    assert g.batch_shape == (2,)
    assert g.event_shape == ()
    assert g.support.check(X).tolist() == [True, True]
    assert "PCFG(batch_shape: (2,)" in repr(g)
    assert not g.has_rsample
    close(g.expand((4, 2)).log_prob(X), g.log_prob(X).expand(4, 2))
    close(g[1].log_prob(X[1]), g.log_prob(X)[1])
    assert g.to(torch.float32).log_prob(X).dtype == torch.float32
    for other in (copy.deepcopy(g), pickle.loads(pickle.dumps(g)), g.detach()):
        assert torch.equal(other.log_prob(X), g.log_prob(X))
    unchecked = plain(validate_args=False)
    assert unchecked[...]._validate_args is False
    assert unchecked.posterior(X)._validate_args is False


def test_transforms_of_torch() -> None:
    x, tables, root, emission = torch.tensor([0, 2, 1]), logits(4, NT, S, S), logits(NT), logits(T, V)

    def run(rules: Tensor) -> Tensor:
        return PCFG(root, rules, emission).log_prob(x)

    close(torch.vmap(run)(tables), torch.stack([run(t) for t in tables]))
    leaf = tables[0].clone().requires_grad_()
    close(torch.func.grad(run)(tables[0]), torch.autograd.grad(run(leaf), leaf)[0])


def test_half_precision_is_computed_in_single() -> None:
    half = PCFG(*(t.bfloat16() for t in (logits(NT), logits(NT, S, S), logits(T, V))))
    assert half.log_prob(X).dtype == torch.float32
    close(half.log_prob(X), half.to(torch.float32).log_prob(X))
