"""What is particular to distributions over trees; the laws are in ``test_laws.py``."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.distributions import ConstituencyTree, DenseTreePosterior, TreeParts, TreePosterior
from structlv.ops import pcfg
from tests.distributions.laws import close
from tests.distributions.tree_cases import tree_scores, tree_structures

INF = float("inf")
NT, T, S = 2, 2, 4


def potentials(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grammar(*batch: int, n: int = 4, spans: Tensor | bool | None = None, **options: Any) -> TreePosterior:
    """Shared rules, a batch of sentences; ``spans`` True for some scores."""
    made = {
        "root": potentials(NT, seed=1),
        "rules": potentials(NT, S, S, seed=2),
        "unary": potentials(*batch, n, T, seed=3),
        "spans": potentials(n, n, NT, seed=4) if spans is True else spans,
    }
    return TreePosterior(**{**made, **options})


# ---- arguments ------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"root": torch.zeros(())}, ValueError, r"root must have shape \(\*b, NT\) with NT >= 1, found \(\)"),
    ({"root": torch.zeros(0)}, ValueError, "NT >= 1"),
    ({"root": torch.zeros(3)}, ValueError, r"rules must have shape \(\*b, NT, S, S\).*\(3, 5, 5\)"),
    ({"root": torch.zeros(2).long()}, TypeError, "root must be a floating-point tensor, found dtype"),
    ({"root": torch.zeros(7, 2)}, ValueError, r"batch shapes.*root \(7,\)"),
    ({"rules": torch.zeros(2, 4, 5)}, ValueError, r"rules must have shape .*found \(2, 4, 5\)"),
    ({"rules": torch.zeros(2, 4, 4).double()}, TypeError, "float32.*float64"),
    ({"rules": [[[0.0]]]}, TypeError, "rules must be .*Tensor.*, found list"),
    ({"unary": torch.zeros(2)}, ValueError, r"unary must have shape \(\*b, n, T\) with T >= 1, found \(2,\)"),
    ({"unary": torch.zeros(3, 0)}, ValueError, "T >= 1"),
    ({"unary": [0.0]}, TypeError, "unary must be a torch.Tensor, found list"),
    (
        {"spans": torch.zeros(3, 3)},
        ValueError,
        r"spans must have shape \(\*b, n, n, NT\) or \(\*b, n, n, 1\)",
    ),
    ({"spans": torch.zeros(3, 3, 3)}, ValueError, "spans must have shape"),
    ({"spans": torch.zeros(3, 3, 2, device="meta")}, ValueError, "spans must be on the device of unary, cpu"),
    ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, "lengths must be a tensor of integers"),
    ({"lengths": torch.tensor([4, 3])}, ValueError, r"lengths must be in 0..3, found values from 3 to 4"),
    ({"lengths": torch.tensor([1, 2, 3])}, ValueError, r"batch shapes.*lengths \(3,\)"),
    ({"unary": torch.full((2, 3, 2), torch.nan)}, ValueError, "NaN in unary"),
    ({"rules": torch.full((2, 4, 4), torch.nan)}, ValueError, "NaN in rules"),
    (
        {"spans": torch.full((3, 3, 1), torch.nan), "root": torch.full((2,), torch.nan)},
        ValueError,
        "root, spans",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "root": torch.zeros(2),
        "rules": torch.zeros(2, 4, 4),
        "unary": torch.zeros(2, 3, 2),
    }
    with pytest.raises(error, match=message):
        TreePosterior(**{**good, **wrong})


def test_values_are_not_checked_when_told_not_to() -> None:
    d = grammar(2, lengths=torch.tensor([9, -3]), validate_args=False)
    close(d.log_partition(), torch.stack([grammar(2).log_partition()[0], torch.tensor(-INF)]))
    grammar(unary=potentials(3, T) * torch.nan, validate_args=False)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        (torch.zeros(2, 6, 3).long(), ValueError, "event must have shape"),
        (torch.zeros(7, 3), TypeError, "tensor of integers"),
        (torch.full((7, 3), 4), ValueError, r"spans must be in -1..3, found values from 4 to 4"),
        (torch.tensor([[0, 1, 4]]).expand(7, 3), ValueError, "symbols must be in -1..3"),
        (torch.zeros(3, 7, 3).long(), ValueError, "batch shapes"),
    ],
)
def test_wrong_events(event: Any, error: type[Exception], message: str) -> None:
    d = grammar(2)
    for query in (d.log_prob, d.score, d.to_parts):
        with pytest.raises(error, match=message):
            query(event)


def test_what_is_not_a_tree_has_probability_zero() -> None:
    d = grammar(n=3)
    tree = torch.tensor([[0, 2, 0], [0, 1, 1], [0, 0, 2], [1, 1, 3], [2, 2, 2]])
    assert d.log_prob(tree).isfinite()
    assert bool(d.support.check(tree))
    for row, column, value in (
        (0, 1, 1),  # not the whole sentence
        (1, 0, 1),  # the children do not meet
        (2, 2, 0),  # a nonterminal over one word
        (1, 2, 3),  # a preterminal over two
        (4, 0, 1),
        (3, 2, -1),
    ):
        bad = tree.clone()
        bad[row, column] = value
        assert d.log_prob(bad) == -INF
        assert not bool(d.support.check(bad))
    assert d.log_prob(torch.full_like(tree, -1)) == -INF


def test_another_kind_of_rules_is_another_class() -> None:
    class Doubled:
        def __init__(self, half: Tensor) -> None:
            self.half = half

    try:

        class DoubledPosterior(DenseTreePosterior, rules=Doubled):
            _rule_dims = {"half": 3}  # noqa: RUF012

            @classmethod
            def _rule_tensors(cls, rules: Any) -> dict[str, Tensor | None]:
                return {"half": rules.half}

            @classmethod
            def _rules_of(cls, tensors: dict[str, Any]) -> Any:
                return Doubled(tensors["half"])

            @property
            def rules(self) -> Tensor:  # type: ignore[override]
                return 2 * self.half  # type: ignore[attr-defined]

            @property
            def _args(self) -> tuple[Any, ...]:
                return self.root, self.rules, self.unary, self.spans, self.lengths

        d = grammar(2)
        other = grammar(2, rules=Doubled(potentials(NT, S, S, seed=2) / 2))
        assert type(d) is DenseTreePosterior
        assert type(other) is DoubledPosterior
        assert "half: (2, 4, 4)" in repr(other[0])
        close(other.expand((3, 2)).log_partition(), d.log_partition().expand(3, 2))
        with pytest.raises(TypeError, match="expected another DenseTreePosterior, found DoubledPosterior"):
            d.kl(other)
    finally:
        TreePosterior._kinds.pop(Doubled, None)


def test_wrong_pairs() -> None:
    d = grammar(2)
    with pytest.raises(ValueError, match="event shape"):
        d.kl(grammar(2, n=3))
    with pytest.raises(ValueError, match=r"nonterminals and preterminals, found \(2, 2\) and \(1, 3\)"):
        d.kl(TreePosterior(torch.zeros(1), torch.zeros(1, 4, 4), torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="same lengths"):
        d.kl(grammar(2, lengths=torch.tensor([4, 3])))
    with pytest.raises(ValueError, match="parts must hold 4 tensors"):
        d.expectation((torch.zeros(2),))
    with pytest.raises(ValueError, match="only None"):
        d.expectation((None, None, None, None))


def test_torch_distributions_grammar() -> None:
    d = TreePosterior(potentials(NT), potentials(4, NT, S, S), potentials(2, 1, 5, T))
    assert isinstance(d, torch.distributions.Distribution)
    assert d.batch_shape == (2, 4)
    assert d.event_shape == (9, 3)
    assert (d.num_nonterminals, d.num_preterminals) == (NT, T)
    assert d.sample((3, 2)).shape == (3, 2, 2, 4, 9, 3)
    assert d.sample(torch.Size([0])).shape == (0, 2, 4, 9, 3)
    assert d.log_prob(d.sample((3,))).shape == (3, 2, 4)
    assert d.has_rsample
    assert isinstance(d.support, ConstituencyTree)
    assert "TreePosterior(batch_shape: (2, 4), event_shape: (9, 3), root: (2,)" in repr(d)
    assert repr(d.support) == "ConstituencyTree(length=5, inner=range(0, 2), leaves=range(2, 4))"
    with pytest.raises(ValueError, match=r"events must have shape \(\*, 9, 3\), found \(9, 2\)"):
        d.support.check(torch.zeros(9, 2))
    assert d.arg_constraints["unary"].check(d.unary).all()


# ---- layout ---------------------------------------------------------------------------------------


def test_indexing() -> None:
    d = grammar(2, 3, spans=True, lengths=torch.tensor([[4, 1, 0], [2, 3, 4]]))
    log_z = d.log_partition()
    for index in (1, -1, (0, 2), slice(1), (slice(None), 1), (..., 0), (None, 0), [1, 0]):
        close(d[index].log_partition(), log_z[index])
    mask = torch.tensor([[True, False, True], [False, True, True]])
    close(d[mask].log_partition(), log_z[mask])
    assert d[0].rules.data_ptr() == d.rules.data_ptr()  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        d[0, 0, 0]
    assert [x.batch_shape for x in d] == [(3,), (3,)]


def test_moving_detaching_and_validation() -> None:
    unary = potentials(2, 4, T).requires_grad_()
    d = grammar(unary=unary, lengths=torch.tensor([4, 2]), validate_args=False)
    single = d.to(torch.float32)
    assert single.unary.dtype == single.root.dtype == torch.float32
    assert single.log_partition().requires_grad
    assert not d.detach().log_partition().requires_grad
    assert d.to("meta").unary.device.type == "meta"
    for other in (d[0], d.expand((2, 2)), single, d.with_temperature(2.0), d.condition()):
        assert other._validate_args is False


@pytest.mark.parametrize("spans", [None, True])
def test_padding_changes_nothing(spans: bool) -> None:
    n, extra = 3, 2
    short = grammar(2, n=n, spans=spans)
    size = n + extra
    unary = torch.full((2, size, T), torch.nan, dtype=torch.float64)
    unary[:, :n] = short.unary
    chart = torch.full((size, size, NT), INF, dtype=torch.float64)
    if short.spans is not None:
        chart[:n, :n] = short.spans
    long = grammar(2, unary=unary, spans=chart if spans else None, lengths=torch.tensor([n, n]))
    rows = 2 * n - 1
    for query in ("log_partition", "entropy", "max", "log_count"):
        close(getattr(long, query)(), getattr(short, query)())
    close(long.kl(long.with_temperature(2.0)), short.kl(short.with_temperature(2.0)))
    close(long.marginals().unary[:, :n], short.marginals().unary)
    close(long.marginals().rules, short.marginals().rules)
    assert bool((long.marginals().spans[:, :, n:] == 0).all())
    draws = [d.sample((30,), generator=torch.Generator().manual_seed(1)) for d in (long, short)]
    assert torch.equal(draws[0][..., :rows, :], draws[1])
    assert bool((draws[0][..., rows:, :] == -1).all())
    for event in (long.argmax(), long.decode(), long.topk(2)[1]):
        assert bool((event[..., rows:, :] == -1).all())
    junk = torch.where(draws[0] == -1, 77, draws[0])
    close(long.log_prob(junk), short.log_prob(draws[1]))
    for found, want in zip(long.to_parts(junk), long.to_parts(draws[0]), strict=True):
        assert torch.equal(found, want)
    assert bool(long.support.check(junk).all())


def test_the_other_items_of_a_batch_change_nothing() -> None:
    one = grammar(1)
    many = grammar(unary=torch.cat([one.unary, potentials(4, 4, T, seed=9) * 50]))
    assert torch.equal(one.log_partition(), many.log_partition()[:1])
    draws = [d.sample((30,), generator=torch.Generator().manual_seed(2))[:, :1] for d in (one, many)]
    assert torch.equal(*draws)


def test_permuting_symbols_permutes_everything() -> None:
    d = grammar(2, spans=True)
    inner, leaf = torch.tensor([1, 0]), torch.tensor([1, 0])
    order = torch.cat([inner, NT + leaf])
    p = TreePosterior(
        d.root[inner],
        potentials(NT, S, S, seed=2)[inner][:, order][:, :, order],
        d.unary[..., leaf],
        spans=d.spans[..., inner],  # type: ignore[index]
    )
    close(p.log_partition(), d.log_partition())
    close(p.marginals().spans, d.marginals().spans[..., inner])
    event = p.argmax()
    assert torch.equal(torch.stack([*event[..., :2].unbind(-1), order[event[..., 2]]], -1), d.argmax())


@pytest.mark.parametrize("shift", [1e5, -1e5])
def test_shifts_move_the_log_partition_alone(shift: float) -> None:
    d = grammar(2, n=5)
    moved = grammar(unary=d.unary + shift, rules=potentials(NT, S, S, seed=2) - shift)
    close(moved.log_partition(), d.log_partition() + shift)  # 5 words, 4 rules
    torch.testing.assert_close(moved.entropy(), d.entropy(), rtol=0, atol=1e-8)
    torch.testing.assert_close(moved.span_marginals(), d.span_marginals(), rtol=0, atol=1e-9)


def test_mirroring_a_grammar_mirrors_its_trees() -> None:
    d = grammar(n=5)
    m = grammar(unary=d.unary.flip(0), rules=potentials(NT, S, S, seed=2).mT)
    close(m.log_partition(), d.log_partition())
    close(m.span_marginals().flip(0, 1).mT, d.span_marginals())


# ---- queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "nonterminals", "preterminals"), [(2, 3, 2), (12, 3, 2), (40, 2, 1)])
def test_the_number_of_trees_is_catalan(n: int, nonterminals: int, preterminals: int) -> None:
    symbols = nonterminals + preterminals
    d = TreePosterior(
        torch.randn(nonterminals), torch.randn(nonterminals, symbols, symbols), torch.randn(n, preterminals)
    )
    catalan = math.lgamma(2 * n - 1) - math.lgamma(n) - math.lgamma(n + 1)
    want = catalan + (n - 1) * math.log(nonterminals) + n * math.log(preterminals)
    assert float(d.log_count()) == pytest.approx(want, rel=1e-12)


def test_every_tree_has_as_many_parts() -> None:
    d = grammar(3, n=6, lengths=torch.tensor([6, 4, 2]))
    parts = d.marginals()
    close(parts.root.sum(-1), torch.ones(3))
    close(parts.unary.sum((-2, -1)), torch.tensor([6.0, 4.0, 2.0]))
    for part in (parts.spans, parts.rules):
        close(part.sum((-3, -2, -1)), torch.tensor([5.0, 3.0, 1.0]))
    close(parts.rules.sum((-2, -1)), parts.spans.sum((-3, -2)))
    chart = d.span_marginals()
    close(chart.sum((-2, -1)), torch.tensor([11.0, 7.0, 3.0]))
    close(chart.diagonal(dim1=1, dim2=2), (torch.arange(6) < d.lengths.unsqueeze(-1)).double())  # type: ignore


def test_span_marginals_are_differentiable() -> None:
    point = potentials(3, T).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: grammar(unary=u).span_marginals(), (point,))


def test_rules_are_left_out_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, bool]] = []
    original = pcfg.marginals

    def spy(*args: Any, with_rules: bool = True, with_spans: bool = True) -> Any:
        asked.append((with_rules, with_spans))
        return original(*args, with_rules=with_rules, with_spans=with_spans)

    monkeypatch.setattr(pcfg, "marginals", spy)
    d, with_spans = grammar(2), grammar(2, spans=True)
    d.span_marginals(), d.decode(), d.decode(labelled=True)
    assert asked == [(False, True)] * 3
    asked.clear()
    d.entropy(), with_spans.entropy(), d.kl(with_spans), d.cross_entropy(d)
    assert asked == [(True, False), (True, True), (True, True), (True, False)]
    asked.clear()
    d.expectation((torch.ones(2).double(), None, torch.ones(4, T).double(), None))
    d.expectation(TreeParts(None, None, None, torch.ones(4, 4, 1).double()))
    assert asked == [(False, False), (False, True)]


def test_expectations_of_some_parts() -> None:
    d = grammar(2)
    close(d.expectation((None, None, torch.ones(4, T).double(), None)), torch.tensor([4.0, 4.0]))
    widths = (torch.arange(4) - torch.arange(4).unsqueeze(-1) + 1.0).double().unsqueeze(-1)
    mean = (d.marginals().spans * widths).sum((-3, -2, -1))
    close(d.expectation((None, None, None, widths)), mean)


def test_divergences_between_distributions_with_and_without_spans() -> None:
    p, q = grammar(2, n=3), grammar(n=3, spans=True)
    for a, b in ((p, q), (q, p)):
        for i in range(2):
            x, y = (d[i] if d.batch_shape else d for d in (a, b))
            events = tree_structures(x)
            left, right = (tree_scores(d, events).log_softmax(0) for d in (x, y))
            close(a.kl(b)[i], (left.exp() * (left - right)).sum())
    chart = torch.zeros(3, 3, 1).double()
    chart[0, 1] = -INF
    banned = grammar(2, n=3, spans=chart)
    assert bool((p.kl(banned) == INF).all())
    assert bool(banned.kl(p).isfinite().all())


def test_maxima_have_the_best_tree_as_gradient() -> None:
    unary, rules = potentials(2, 4, T).requires_grad_(), potentials(NT, S, S, seed=2).requires_grad_()
    d = grammar(unary=unary, rules=rules)
    best = d.to_parts(d.argmax())
    grads = torch.autograd.grad(d.max().sum(), (unary, rules))
    close(grads[0], best.unary)
    close(grads[1], best.rules.sum(0))
    scores, events = d.topk(3)
    (grad,) = torch.autograd.grad(scores[2].sum(), unary)
    close(grad, d.to_parts(events[2]).unary)


def test_max_marginals_say_that_they_have_no_gradient() -> None:
    d = grammar(unary=potentials(3, T).requires_grad_())
    result = d.max_marginals().unary
    if result.requires_grad:
        with pytest.raises(NotImplementedError, match="differentia"):
            result.sum().backward()


def test_ties_go_to_the_lowest_split_and_symbols() -> None:
    d = TreePosterior(torch.zeros(NT), torch.zeros(NT, S, S), torch.zeros(3, T))
    want = [[0, 2, 0], [0, 0, 2], [1, 2, 0], [1, 1, 2], [2, 2, 2]]
    assert d.argmax().tolist() == want
    assert d.topk(2)[1][0].tolist() == want
    assert d.decode().tolist() == [[i, j, 0] for i, j, _ in want]


@pytest.mark.parametrize("labelled", [False, True])
def test_decoding_minimises_expected_errors(labelled: bool) -> None:
    for seed in range(3):
        d = grammar(unary=potentials(2, 4, T, seed=seed) * 3, lengths=torch.tensor([4, 3]))
        decoded = d.decode(labelled=labelled)
        for i in range(2):
            events = tree_structures(d[i])
            p = d[i].log_prob(events).exp()
            parts = d[i].to_parts(events)
            if labelled:
                found = torch.cat([parts.spans.flatten(1), parts.unary.flatten(1)], -1)
            else:
                found = parts.spans.sum(-1).flatten(1)
            gain = found @ (p @ found)  # expected constituents in common with the true tree
            mine = decoded[i]
            if labelled:
                chart = d[i].to_parts(mine)
                mine = torch.cat([chart.spans.flatten(), chart.unary.flatten()])
                close(mine @ (p @ found), gain.max())
            else:
                spans = {(a, b) for a, b, _ in mine.tolist() if a < b}
                index = [all((a, b) in spans for a, b, _ in e.tolist() if a < b) for e in events]
                close(gain[torch.tensor(index)].max(), gain.max())
                assert set(mine[..., 2].tolist()) <= {0, -1}


def test_nothing_is_decoded_where_nothing_is_possible() -> None:
    d = grammar(3, lengths=torch.tensor([4, 1, 0]))
    d = d.condition(allowed=torch.tensor([False, True, True])[:, None, None].expand(3, 4, 4))
    for event in (d.decode(), d.decode(labelled=True), d.argmax(), d.sample((2,))):
        assert bool((event == -1).all())


def test_sentences_of_zero_and_one_words_have_no_tree() -> None:
    for n in (0, 1):
        d = grammar(2, n=n)
        assert bool((d.log_partition() == -INF).all())
        assert bool((d.entropy() == 0).all())
        assert bool((d.log_count() == -INF).all())
        assert d.argmax().shape == (2, max(2 * n - 1, 0), 3)
        assert bool((d.argmax() == -1).all())
        assert bool((d.topk(2)[0] == -INF).all())
        assert bool((d.log_prob(d.argmax()) == -INF).all())
        assert d.span_marginals().shape == (2, n, n)
    assert grammar(0).log_partition().shape == (0,)
    assert grammar(0).argmax().shape == (0, 7, 3)
