"""Defects of neighbouring libraries, and complaints of their users, about trees and grammars: defect -> test.

* pytorch-struct: SentCFG has log_prob, sample, count and kl, and all of them raise
  -> test_every_query_of_a_grammar
* pytorch-struct: a sentence of one word scores -99999.5 -> test_a_sentence_of_one_word_is_impossible
* pytorch-struct PR #116: SentCFG.argmax returns 4 tensors, not 3 -> test_a_tree_is_one_tensor
* pytorch-struct: zero is -1e5, so potentials below it were replaced; SynJax: infinity is 1e5, nan_to_num on
  marginals; TN-PCFG: a floor of 1e-9 -> test_no_sentinel_stands_in_for_infinity
* pytorch-struct: log_prob(argmax) NaN where parts are -inf; pytorch #31829, #49724: NaN gradients where
  everything is -inf -> test_infinite_parts_never_give_nan
* pytorch-struct: requires_grad_ on the caller's tensor; a graph under no_grad (#80)
  -> test_the_caller_and_no_grad
* pytorch-struct: counts in float32 overflow -> test_counts_do_not_overflow
* pytorch-struct: k best padded with -1e5, wrong beyond the best (#50, #59)
  -> test_k_best_beyond_the_number_of_trees
* pytorch-struct: max(lengths) had to be n (#101), one batch dimension only, sample() needed a shape
  -> test_plain_calls_work
* pytorch-struct #52, #54: rules of NeuralCFG normalised over the wrong dimensions
  -> test_rules_are_normalised_over_pairs_of_children
* pytorch-struct #64: marginals mistaken for logs -> test_names_say_what_is_a_logarithm
* pytorch-struct #34, #63: how to get labels of spans -> test_events_are_labelled_spans
* pytorch-struct #84, PR #93: no max-marginals, no expected value -> test_every_query_of_a_grammar
* pytorch-struct: 43 MB saved for two sentences of 20 words (#115); genbmm #6: B n^2 NT^3 expansions;
  nner_as_parsing #2, yzhangcs/parser #28: out of memory -> test_memory_saved_for_backward
* pytorch-struct: fails under vmap, half precision summed in half -> test_vmap_and_half_precision
* pytorch-struct #61: log_prob above 0 where scores are large -> test_log_prob_is_never_positive
* pytorch-struct #72: doubtful gradients through marginals -> test_second_order
* pytorch-struct #110, #114: a batch larger than 1 went wrong -> test_batches_and_singles_agree
* pytorch-struct: one noise vector shared by a whole batch -> test_identical_sentences_are_sampled_differently
* TN-PCFG #10, vpcfg #3: span marginals and the partition are separate programs, and not differentiable
  -> test_span_marginals_and_partition_together
* TN-PCFG #11: Viterbi crashes -> test_viterbi_of_any_size
* supar: one sample only -> test_many_samples_in_one_call
* supar's partial=True has no counterpart elsewhere -> test_partial_annotation
* parser #6, #18, #21: decoded trees that are none -> test_decoded_trees_are_well_formed
* SynJax: its low-rank grammar cannot decode -> test_decoded_trees_are_well_formed
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from structlv.distributions import PCFG, BinaryTree, TreePosterior
from tests.distributions.laws import close

INF = float("inf")


def parse(*batch: int, n: int = 5, symbols: tuple[int, int] = (2, 3), **options: Any) -> TreePosterior:
    inner, leaf = symbols
    size = inner + leaf
    tables = torch.randn(inner), torch.randn(inner, size, size), torch.randn(*batch, n, leaf)
    return TreePosterior(*(t.double() for t in tables), **options)


def test_every_query_of_a_grammar() -> None:
    d = PCFG(torch.randn(2), torch.randn(2, 5, 5), torch.randn(3, 7)).posterior(torch.randint(0, 7, (2, 6)))
    assert d.log_prob(d.sample((4,))).shape == (4, 2)
    assert d.log_count().exp().round().tolist() == [42 * 2**5 * 3**6] * 2
    assert bool((d.kl(d.with_temperature(2.0)) > 0).all())
    assert d.entropy().shape == d.max().shape == d.cross_entropy(d).shape == (2,)
    assert d.topk(3)[1].shape == (3, 2, 11, 3)
    assert d.max_marginals().spans.shape == (2, 6, 6, 2)
    close(d.expectation((None, None, torch.ones(6, 3), None)), torch.tensor([6.0, 6.0]))


def test_a_sentence_of_one_word_is_impossible() -> None:
    assert parse(n=1).log_partition() == -INF
    g = PCFG(torch.randn(2), torch.randn(2, 5, 5), torch.randn(3, 7))
    assert g.log_prob(torch.tensor([[3, 0]]), torch.tensor([1])).tolist() == [-INF]


def test_a_tree_is_one_tensor() -> None:
    assert parse(2).argmax().shape == (2, 9, 3)
    assert parse(2).argmax().dtype == torch.int64


@pytest.mark.parametrize("shift", [-2e5, -1e9, 1e9])
def test_no_sentinel_stands_in_for_infinity(shift: float) -> None:
    d = parse(2)
    moved = TreePosterior(d.root, d.rules, d.unary + shift)  # type: ignore[attr-defined]
    close(moved.log_partition(), d.log_partition() + 5 * shift)
    allowed = torch.ones(5, 5, dtype=torch.bool)
    allowed[1, 2] = False
    banned = moved.condition(allowed=allowed)
    assert bool((banned.span_marginals()[:, 1, 2] == 0).all())
    assert bool((banned.max_marginals().spans[:, 1, 2] == -INF).all())
    close(banned.marginals().root.sum(-1), torch.ones(2))


def test_infinite_parts_never_give_nan() -> None:
    root, rules, unary = torch.randn(2), torch.randn(2, 4, 4), torch.randn(3, 4, 2)
    rules[0, 1] = -INF
    unary[0, 1, 0] = -INF
    unary[1] = -INF
    leaves = [x.requires_grad_() for x in (root, rules, unary)]
    d = TreePosterior(*leaves)
    assert d.log_prob(d.argmax())[0].isfinite()
    assert d.log_prob(d.argmax())[1] == -INF
    results = (d.log_partition(), d.log_prob(d.argmax()), d.entropy(), d.kl(d), *d.marginals(), d.max())
    for result in results:
        assert not bool(result.isnan().any())
        finite = result.masked_fill(result == -INF, 0.0).sum()
        for grad in torch.autograd.grad(finite, leaves, retain_graph=True):
            assert bool(grad.isfinite().all())


def test_the_caller_and_no_grad() -> None:
    unary = torch.randn(2, 4, 2)
    d = TreePosterior(torch.randn(2), torch.randn(2, 4, 4), unary)
    d.marginals(), d.argmax(), d.entropy(), d.sample(), d.topk(2), d.decode()
    assert not unary.requires_grad
    parameter = unary.clone().requires_grad_()
    assert parameter.is_leaf
    with torch.no_grad():
        spans = TreePosterior(torch.randn(2), torch.randn(2, 4, 4), parameter).span_marginals()
    assert spans.grad_fn is None


def test_counts_do_not_overflow() -> None:
    n = 60
    catalan = math.lgamma(2 * n - 1) - math.lgamma(n) - math.lgamma(n + 1)
    want = catalan + (n - 1) * math.log(2) + n * math.log(3)
    assert float(parse(n=n).to(torch.float32).log_count()) == pytest.approx(want, rel=1e-12)


def test_k_best_beyond_the_number_of_trees() -> None:
    d = parse(2, n=3, symbols=(1, 1))
    scores, events = d.topk(5)
    assert bool((scores[2:] == -INF).all())
    assert bool((events[2:] == -1).all())
    close(scores[:2], d.score(events[:2]))
    close(scores[:2].logsumexp(0), d.log_partition())


def test_plain_calls_work() -> None:
    d = parse(2, 3, validate_args=True)
    assert d.sample().shape == (2, 3, 9, 3)
    short = TreePosterior(d.root, d.rules, d.unary, lengths=torch.full((2, 3), 2))  # type: ignore[attr-defined]
    close(
        short.log_partition(),
        TreePosterior(d.root, d.rules, d.unary[..., :2, :]).log_partition(),  # type: ignore[attr-defined]
    )


def test_rules_are_normalised_over_pairs_of_children() -> None:
    g = PCFG(torch.randn(3), torch.randn(3, 5, 5) * 3, torch.randn(2, 7))
    close(g.rule_logits.exp().sum((-2, -1)), torch.ones(3))
    close(g.root_logits.exp().sum(), torch.tensor(1.0))
    close(g.emission_logits.exp().sum(-1), torch.ones(2))


def test_names_say_what_is_a_logarithm() -> None:
    d = TreePosterior(torch.zeros(1), torch.zeros(1, 2, 2), torch.zeros(4, 1))
    close(d.log_partition(), torch.tensor(math.log(5)))
    close(d.span_marginals()[0], torch.tensor([1.0, 0.4, 0.4, 1.0]))


def test_events_are_labelled_spans() -> None:
    d = parse(3)
    i, j, symbol = d.argmax().unbind(-1)
    assert torch.equal(symbol >= 2, i == j)
    chart = d.to_parts(d.argmax()).spans
    assert chart[0, i[0, 1], j[0, 1]].argmax() == symbol[0, 1] or i[0, 1] == j[0, 1]
    assert torch.equal(d.from_parts(d.to_parts(d.argmax())), d.argmax())


def test_memory_saved_for_backward(native: None) -> None:
    """Two sentences of 20 words, 20 nonterminals and 20 preterminals."""
    tables = torch.randn(2, 20), torch.randn(2, 20, 40, 40), torch.randn(2, 20, 20)
    leaves = [t.requires_grad_() for t in tables]
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        TreePosterior(*leaves).log_partition()
    assert sum(saved.values()) < 2e6  # 43 MB there


def test_vmap_and_half_precision() -> None:
    root, rules, unary = torch.randn(2), torch.randn(2, 5, 5), torch.randn(3, 7, 3)
    mapped = torch.vmap(lambda u: TreePosterior(root, rules, u).log_partition())(unary)
    close(mapped, TreePosterior(root, rules, unary).log_partition())
    for dtype in (torch.bfloat16, torch.float16):
        half = TreePosterior(root.to(dtype), rules.to(dtype), unary.to(dtype))
        close(half.log_partition(), half.to(torch.float32).log_partition())
        assert half.marginals().rules.dtype == dtype


def test_log_prob_is_never_positive() -> None:
    for scale in (1.0, 1e3, 8e5):
        tables = torch.randn(2) * scale, torch.randn(2, 5, 5) * scale, torch.randn(4, 8, 3) * scale
        d = TreePosterior(*tables, lengths=torch.tensor([8, 5, 2, 0]))
        for event in (d.argmax(), d.sample()):
            assert bool((d.log_prob(event) <= 1e-5 * max(1.0, scale * 1e-3)).all())
        assert bool((d.span_marginals() <= 1 + 1e-5).all())


def test_second_order() -> None:
    point = [x.double().requires_grad_() for x in (torch.randn(2), torch.randn(2, 4, 4), torch.randn(3, 2))]
    assert gradgradcheck(lambda *p: TreePosterior(*p).log_partition(), point)
    assert gradcheck(lambda *p: TreePosterior(*p).span_marginals(), point)
    assert gradcheck(lambda *p: TreePosterior(*p).entropy(), point)


def test_batches_and_singles_agree() -> None:
    d = parse(5)
    for query in (TreePosterior.log_partition, TreePosterior.entropy, TreePosterior.max):
        close(query(d), torch.stack([query(item) for item in d]))


def test_identical_sentences_are_sampled_differently() -> None:
    d = TreePosterior(torch.zeros(1), torch.zeros(1, 2, 2), torch.zeros(2000, 6, 1))
    assert len(d.sample().unique(dim=0)) == 42  # all trees of 6 words
    b = BinaryTree(torch.zeros(2000, 4, 4, 2))
    assert len(b.sample().unique(dim=0)) > 500  # of 5 * 2^7


def test_span_marginals_and_partition_together() -> None:
    leaf = torch.randn(2, 6, 3).double().requires_grad_()
    d = TreePosterior(torch.randn(2).double(), torch.randn(2, 5, 5).double(), leaf)
    spans = d.span_marginals()
    (grad,) = torch.autograd.grad(d.log_partition().sum() + (spans**2).sum(), leaf)
    assert bool(grad.isfinite().all())
    assert bool((grad != d.marginals().unary).any())


@pytest.mark.parametrize(("n", "inner", "leaf"), [(2, 1, 1), (7, 1, 9), (9, 5, 1), (16, 17, 3)])
def test_viterbi_of_any_size(n: int, inner: int, leaf: int) -> None:
    d = parse(2, n=n, symbols=(inner, leaf))
    assert bool(d.support.check(d.argmax()).all())
    close(d.max(), d.max_marginals().root.amax(-1))


def test_many_samples_in_one_call() -> None:
    assert parse(2).sample((300,)).shape == (300, 2, 9, 3)
    assert parse(2).sample((10, 20)).shape == (10, 20, 2, 9, 3)


def test_partial_annotation() -> None:
    d = parse(2)
    known = d.condition(spans=torch.tensor([[[1, 3, 0]], [[0, 1, -1]]]))
    evidence = known.log_partition() - d.log_partition()
    close(evidence.exp()[0], d.marginals().spans[0, 1, 3, 0])
    close(evidence.exp()[1], d.span_marginals()[1, 0, 1])


def test_decoded_trees_are_well_formed() -> None:
    d = parse(20, n=9, lengths=torch.randint(2, 10, (20,)))
    for event in (d.argmax(), d.decode(labelled=True), d.sample()):
        assert bool(d.support.check(event).all())
    b = BinaryTree(torch.randn(20, 9, 9))
    for event in (b.argmax(), b.decode(), b.sample()):
        assert bool(b.support.check(event).all())


def test_the_table_is_complete() -> None:
    listed = set(re.findall(r"-> (test_\w+)", __doc__ or ""))
    defined = {name for name in globals() if name.startswith("test_")} - {"test_the_table_is_complete"}
    assert listed == defined
