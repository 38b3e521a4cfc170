"""What is particular to binary trees over span scores; the laws are in ``test_laws.py``."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.distributions import BinaryTree, TreePosterior
from tests.distributions.laws import chi_square, close
from tests.distributions.tree_cases import binary_scores, binary_structures

INF = float("inf")


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"span_scores": torch.zeros(3)}, ValueError, r"span_scores must have shape \(\*b, n, n\) or"),
    ({"span_scores": torch.zeros(3, 4)}, ValueError, r"found \(3, 4\)"),
    ({"span_scores": torch.zeros(3, 3), "labelled": True}, ValueError, r"found \(3, 3\)"),
    ({"span_scores": torch.zeros(3, 3, 2), "labelled": False}, ValueError, r"found \(3, 3, 2\)"),
    ({"span_scores": torch.zeros(3, 3, 0)}, ValueError, r"found \(3, 3, 0\)"),
    ({"span_scores": torch.zeros(3, 3, 3)}, ValueError, "say which with labelled="),
    ({"span_scores": torch.zeros(3, 3).long()}, TypeError, "span_scores must be a floating-point tensor"),
    ({"span_scores": [[0.0]]}, TypeError, "span_scores must be a torch.Tensor, found list"),
    ({"lengths": torch.tensor([1.0])}, TypeError, "lengths must be a tensor of integers"),
    ({"lengths": torch.tensor([4, 3])}, ValueError, "lengths must be in 0..3"),
    ({"lengths": torch.tensor([1, 2, 3])}, ValueError, r"batch shapes.*lengths \(3,\)"),
    (
        {"lengths": torch.ones(2, device="meta").long()},
        ValueError,
        "lengths must be on the device of span_sc",
    ),
    ({"span_scores": torch.full((2, 3, 3), torch.nan)}, ValueError, "span_scores must not be NaN"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BinaryTree(**{"span_scores": torch.zeros(2, 3, 3), **wrong})


def test_wrong_events_and_pairs() -> None:
    d = BinaryTree(torch.zeros(2, 3, 3))
    for event, message in (
        (torch.zeros(2, 4, 3).long(), "event must have shape"),
        (torch.full((5, 3), 3), r"spans must be in -1..2"),
        (torch.tensor([0, 0, 1]).expand(5, 3), "labels must be in -1..0"),
    ):
        with pytest.raises(ValueError, match=message):
            d.log_prob(event)
    with pytest.raises(ValueError, match="same labels"):
        d.kl(BinaryTree(torch.zeros(2, 3, 3, 2)))
    with pytest.raises(ValueError, match="same lengths"):
        d.kl(BinaryTree(torch.zeros(2, 3, 3), lengths=torch.tensor([3, 2])))
    with pytest.raises(TypeError, match="expected another BinaryTree, found DenseTreePosterior"):
        d.kl(TreePosterior(torch.zeros(1), torch.zeros(1, 2, 2), torch.zeros(3, 1)))  # type: ignore[arg-type]


def test_whether_there_are_labels() -> None:
    for shape, labelled, batch, labels in (
        ((3, 3), None, (), 1),
        ((2, 3, 3), None, (2,), 1),
        ((3, 3, 2), None, (), 2),
        ((2, 3, 3, 2), None, (2,), 2),
        ((3, 3, 3), False, (3,), 1),
        ((3, 3, 3), True, (), 3),
        ((3, 3, 1), None, (), 1),
    ):
        d = BinaryTree(torch.zeros(*shape), labelled=labelled)
        assert d.batch_shape == batch
        assert d.num_labels == labels
        assert d.expand((4, *batch)).marginals().spans.shape == (4, *shape)
        assert d.to(torch.float64).num_labels == labels


def test_torch_distributions_grammar() -> None:
    d = BinaryTree(scores(2, 4, 4, 3), lengths=torch.tensor([4, 2]))
    assert d.event_shape == (7, 3)
    assert d.sample((3, 2)).shape == (3, 2, 2, 7, 3)
    assert d.log_prob(d.sample((3,))).shape == (3, 2)
    assert d.has_rsample
    assert "BinaryTree(batch_shape: (2,), event_shape: (7, 3), span_scores: (2, 4, 4, 3)" in repr(d)
    close(d[1].log_partition(), d.log_partition()[1])
    assert BinaryTree(torch.zeros(3, 3), lengths=torch.tensor([3, 1])).batch_shape == (2,)
    for other in (d.detach(), d.to(torch.float32), d[0], d.condition(), d.with_temperature(2.0)):
        assert other.num_labels == 3


@pytest.mark.parametrize(("n", "labels"), [(1, 3), (2, 1), (9, 4), (60, 30)])
def test_the_number_of_trees_is_catalan(n: int, labels: int) -> None:
    catalan = math.lgamma(2 * n - 1) - math.lgamma(n) - math.lgamma(n + 1)
    d = BinaryTree(torch.randn(n, n, labels), labelled=True)
    assert float(d.log_count()) == pytest.approx(catalan + (2 * n - 1) * math.log(labels), rel=1e-12)


def test_a_grammar_of_one_symbol_is_the_same_distribution() -> None:
    chart = scores(2, 5, 5)
    d = BinaryTree(chart, lengths=torch.tensor([5, 3]))
    g = TreePosterior(
        torch.zeros(1).double(),
        torch.zeros(1, 2, 2).double(),
        chart.diagonal(dim1=1, dim2=2).unsqueeze(-1),
        spans=chart.unsqueeze(-1),
        lengths=d.lengths,
    )
    for query in ("log_partition", "entropy", "max", "span_marginals"):
        close(getattr(d, query)(), getattr(g, query)())
    assert torch.equal(d.argmax()[..., :2], g.argmax()[..., :2])
    assert torch.equal(d.decode(), g.decode())


def test_labels_are_summed_over() -> None:
    labelled = BinaryTree(scores(2, 4, 4, 3), lengths=torch.tensor([4, 1]))
    plain = BinaryTree(labelled.span_scores.logsumexp(-1), lengths=labelled.lengths)
    close(labelled.log_partition(), plain.log_partition())
    close(labelled.span_marginals(), plain.span_marginals())
    tree = labelled.argmax()
    given = labelled.marginals().spans / labelled.span_marginals().unsqueeze(-1)
    i, j, label = tree[0].unbind(-1)
    bare = tree * torch.tensor([1, 1, 0])
    close(given[0, i, j, label].log().sum(), labelled.log_prob(tree)[0] - plain.log_prob(bare)[0])


def test_below_the_diagonal_and_in_padding_nothing_counts() -> None:
    chart = scores(2, 4, 4)
    junk = chart.clone()
    junk.masked_fill_(torch.ones(4, 4).tril(-1).bool(), torch.nan)
    junk[1, :, 3] = INF
    lengths = torch.tensor([4, 3])
    for a, b in ((chart, junk), (torch.stack([chart, chart], -1), torch.stack([junk, junk], -1))):
        a, b = (x.clone().requires_grad_() for x in (a, b))
        clean, dirty = (BinaryTree(x, lengths=lengths) for x in (a, b))
        for query in ("log_partition", "entropy", "max", "span_marginals", "argmax"):
            close(getattr(dirty, query)(), getattr(clean, query)())
        grads = torch.autograd.grad((clean.log_partition() + clean.entropy() + clean.max()).sum(), a)
        theirs = torch.autograd.grad((dirty.log_partition() + dirty.entropy() + dirty.max()).sum(), b)
        close(*theirs, *grads)
    event = clean.sample((4,))
    close(dirty.log_prob(torch.where(event == -1, 99, event)), clean.log_prob(event))


def test_short_sentences() -> None:
    chart = scores(4, 3, 3, 2)
    chart[3, 0, 0] = -INF
    d = BinaryTree(chart, lengths=torch.tensor([0, 1, 2, 1]))
    one = chart[1, 0, 0].logsumexp(-1)
    close(d.log_partition()[:2], torch.stack([torch.zeros(()).double(), one]))
    assert d.log_partition()[3] == -INF
    close(d.entropy()[[0, 3]], torch.zeros(2))
    assert bool((d.argmax()[0] == -1).all())
    assert d.argmax()[1, 0].tolist() == [0, 0, int(chart[1, 0, 0].argmax())]
    close(d.marginals().spans[1, 0, 0], chart[1, 0, 0].softmax(-1))
    best, events = d.topk(3)
    assert best[:, 0].tolist() == [0, -INF, -INF]
    close(best[:2, 1], chart[1, 0, 0].sort(descending=True).values)
    assert bool((events[2, 1] == -1).all())
    assert bool((best[:, 3] == -INF).all())
    close(d.log_prob(d.argmax())[0], torch.tensor(0.0))
    assert d.log_prob(d.argmax())[3] == -INF
    assert d.decode()[1, 0].tolist() == [0, 0, 0]
    assert bool((d.decode(labelled=True)[3] == -1).all())
    empty = BinaryTree(torch.zeros(2, 0, 0, 3), labelled=True)
    assert empty.log_partition().tolist() == [0, 0]
    assert empty.topk(2)[0].tolist() == [[0, 0], [-INF, -INF]]
    assert empty.sample((3,)).shape == (3, 2, 0, 3)
    assert BinaryTree(torch.zeros(0, 3, 3)).log_partition().shape == (0,)


@pytest.mark.parametrize(("n", "labels", "k"), [(1, 2, 4), (2, 3, 40), (3, 2, 70), (4, 2, 25)])
def test_the_k_best_labelled_trees(n: int, labels: int, k: int) -> None:
    d = BinaryTree(scores(n, n, labels), labelled=True)
    found, events = d.topk(k)
    every = binary_structures(d)
    want = binary_scores(d, every).sort(descending=True, stable=True)
    count = min(k, len(every))
    close(found[:count], want.values[:count])
    assert torch.equal(events[:count], every[want.indices[:count]])
    assert bool((found[count:] == -INF).all())
    assert bool((events[count:] == -1).all())


def test_equal_trees_are_ranked_by_split_then_labels() -> None:
    d = BinaryTree(torch.zeros(3, 3, 2))
    assert torch.equal(d.topk(8)[1], binary_structures(d)[:8])
    assert d.argmax().tolist() == binary_structures(d)[0].tolist()


def test_labels_are_drawn_for_each_constituent_by_itself() -> None:
    d = BinaryTree(scores(2, 2, 3).expand(2, 2, 2, 3))
    draws = d.sample((4000,), generator=torch.Generator().manual_seed(0))
    codes = (draws[..., 2] * torch.tensor([9, 3, 1])).sum(-1)  # (s, 2)
    p = d[0].log_prob(binary_structures(d[0])).exp()
    joint = torch.zeros(27, 27).double()
    joint.index_put_((codes[:, 0], codes[:, 1]), torch.ones(4000).double(), accumulate=True)
    chi_square(joint.flatten(), (p.outer(p) * 4000).flatten())


def test_samples_do_not_depend_on_padding_or_company() -> None:
    chart = scores(2, 3, 3, 2)
    wide = torch.full((2, 5, 5, 2), torch.nan, dtype=torch.float64)
    wide[:, :3, :3] = chart
    short, long = BinaryTree(chart), BinaryTree(wide, lengths=torch.tensor([3, 3]))
    one = BinaryTree(chart[:1])
    a, b, c = (d.sample((20,), generator=torch.Generator().manual_seed(4)) for d in (short, long, one))
    assert torch.equal(a, b[..., :5, :])
    assert torch.equal(a[:, :1], c)


@pytest.mark.parametrize("labelled", [False, True])
def test_decoding_minimises_expected_errors(labelled: bool) -> None:
    d = BinaryTree(scores(4, 4, 2) * 2)
    events = binary_structures(d)
    p, parts = d.log_prob(events).exp(), d.to_parts(events).spans
    parts = parts if labelled else parts.sum(-1, keepdim=True)
    parts = parts.flatten(1)
    gain = parts @ (p @ parts)
    best = d.decode(labelled=labelled)
    mine = d.to_parts(best).spans if labelled else d.to_parts(best).spans.sum(-1, keepdim=True)
    close(mine.flatten() @ (p @ parts), gain.max())


def test_labels_are_exact_in_single_precision() -> None:
    chart = torch.randn(6, 6, 4) * 1e4
    d = BinaryTree(chart)
    double = d.to(torch.float64)
    close(d.log_prob(d.argmax()), double.log_prob(double.argmax()))
    close(d.entropy(), double.entropy().float())
    assert d.marginals().spans.dtype == torch.float32


def test_maxima_have_the_best_tree_as_gradient() -> None:
    chart = scores(2, 4, 4, 2).requires_grad_()
    d = BinaryTree(chart)
    (grad,) = torch.autograd.grad(d.max().sum(), chart)
    close(grad, d.to_parts(d.argmax()).spans)
    value, events = d.topk(3)
    (grad,) = torch.autograd.grad(value[2].sum(), chart)
    close(grad, d.to_parts(events[2]).spans)
