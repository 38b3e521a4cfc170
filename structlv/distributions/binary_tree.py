"""Binary trees over the words of a sentence, from scores of their spans."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.distributions import constraints

from structlv.distributions import binary_tree_labels as labels
from structlv.distributions import tree_events
from structlv.distributions.algebra import finite
from structlv.distributions.base import StructuredDistribution
from structlv.distributions.constraints import ConstituencyTree
from structlv.distributions.traces import Trace, tree_trace
from structlv.distributions.tree_checks import has_labels
from structlv.distributions.tree_decoding import minimum_risk
from structlv.distributions.tree_evidence import Sentences, agreeing, masked, permitted
from structlv.distributions.tree_parts import BinaryTreeParts
from structlv.distributions.validation import (
    broadcast_batch,
    checked_lengths,
    is_eager,
    require_events,
    require_floating,
    require_labels,
    require_lengths,
    require_same_lengths,
)
from structlv.ops import pcfg
from structlv.ops.noise import gumbel
from structlv.reference import distinct, semiring
from structlv.reference.pcfg import inside_scores

Self = TypeVar("Self", bound="BinaryTree")


class BinaryTree(StructuredDistribution):
    """Distribution over binary trees from scores of their spans (a constituency CRF).

    p(tree) = exp(score(tree)) / Z, where score(tree) is the sum over the 2n - 1 constituents of a tree, its
    leaves included, of span_scores[i, j] over the words i..j (inclusive), or of span_scores[i, j, label].
    Scores are taken as they are, in nats. A sentence of one word has its leaf alone, one of length 0 one
    empty tree of score 0.

    An event is (*b, 2n - 1, 3) int64: rows (i, j, label) in pre-order, leaves included, label 0 where there
    are none, -1 past the end. Stern, Andreas and Klein (2017), "A minimal span-based neural constituency
    parser", section 3. O(n^3 + n^2 labels) time and O(n^2 labels) memory; ``topk`` costs O(k^2) times that.

    Args:
        span_scores: (*b, n, n), or (*b, n, n, labels). Where i > j they are ignored.
        lengths: (*b) integers in 0..n, or None where every sentence has n words. What is stored past the end
            of a sentence changes nothing: no value, no gradient.
        labelled: whether the last dimension is labels; None to decide by the shape: it is unless the last two
            dimensions are equal.
        validate_args: whether to check values (lengths, NaN, events); None for structlv's default (on).

    Raises:
        TypeError: an argument is not of the right kind.
        ValueError: the shape does not fit, or fits both with and without labels (then say which), a length is
            out of range, a score is NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "span_scores": constraints.independent(constraints.real, 2),
        "lengths": constraints.nonnegative_integer,
    }
    _parameters = _full = ("span_scores", "lengths")

    def __init__(
        self,
        span_scores: Tensor,
        *,
        lengths: Tensor | None = None,
        labelled: bool | None = None,
        validate_args: bool | None = None,
    ) -> None:
        require_floating("span_scores", span_scores)
        self._labelled = has_labels(span_scores, labelled)
        batch = span_scores.shape[: -2 - self._labelled]
        if lengths is not None:
            lengths = checked_lengths(lengths, "span_scores", span_scores)
            batch = broadcast_batch({"span_scores": batch, "lengths": lengths.shape})
            lengths = lengths.expand(batch)
        self.span_scores = span_scores.expand(batch + span_scores.shape[-2 - self._labelled :])
        self.lengths = lengths
        self._batch_shape = batch
        self._event_shape = torch.Size((tree_events.rows_of(self._num_words), 3))
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(span_scores):
            self._check_values()

    # ---- queries ---------------------------------------------------------------------------------------

    def marginals(self) -> BinaryTreeParts:
        """The probability that the words i..j are a constituent (with each label). Differentiable once."""
        scores = self._scores()
        total = self._summed(scores)
        _, _, leaves, spans = pcfg.marginals(*self._grammar(total), with_rules=False)
        assert spans is not None  # they were asked for
        chart = spans.squeeze(-1) + torch.diag_embed(leaves.squeeze(-1))
        chart = torch.where(self._single(total)[..., None, None] & _first(chart), 1.0, chart)
        if self._labelled:
            chart = chart.unsqueeze(-1) * semiring.softmax(scores, -1)
        return BinaryTreeParts(chart.to(self._dtype))

    def span_marginals(self) -> Tensor:
        """The probability that the words i..j are a constituent, (*b, n, n); leaves are on the diagonal.

        0 where i > j and in padding. Differentiable once.
        """
        return self.marginals().spans.sum(-1) if self._labelled else self.marginals().spans

    def max_marginals(self) -> BinaryTreeParts:
        """The best score of any tree that uses a span; -inf where there is none. Not differentiable."""
        scores = self._scores().detach()
        best = scores.amax(-1)
        _, _, leaves, spans = pcfg.max_marginals(*self._grammar(best))
        n = self._num_words
        chart = torch.where(torch.eye(n, dtype=torch.bool, device=best.device), leaves, spans.squeeze(-1))
        chart = torch.where(self._single(best)[..., None, None] & _first(chart), best, chart)
        if self._labelled:
            possible = (chart > -torch.inf).unsqueeze(-1) & (scores > -torch.inf)
            loss = torch.where(possible, scores, 0.0) - finite(best).unsqueeze(-1)
            chart = torch.where(possible, finite(chart).unsqueeze(-1) + loss, -torch.inf)
        return BinaryTreeParts(chart.to(self._dtype))

    def argmax(self) -> Tensor:
        """The best tree, (*b, 2n - 1, 3) int64; all -1 where none is possible.

        Ties go to the lowest split and the lowest label.
        """
        scores = self._scores().detach()
        best = scores.amax(-1)
        event = self._with_single(pcfg.argmax(*self._grammar(best)), best)
        return labels.best(event, scores)

    def decode(self, labelled: bool = False) -> Tensor:
        """The tree with the most expected constituents (minimum Bayes risk), an event.

        As ``TreePosterior.decode``; ``labelled``: whether labels count, and each constituent has its best.
        """
        spans = self.detach().marginals().spans
        spans = spans if self._labelled else spans.unsqueeze(-1)
        leaves = spans.diagonal(dim1=-3, dim2=-2).movedim(-1, -2)
        return minimum_risk(leaves, spans, self.lengths, 0, labelled)

    def condition(  # type: ignore[override]
        self: Self, *, spans: Tensor | None = None, allowed: Tensor | None = None
    ) -> Self:
        """The trees that agree with the evidence; its log Z minus this one's is log p(evidence).

        Args:
            spans: constituents that a tree must have: (*b, m, 2) integer rows (i, j), or (*b, m, 3) rows
                (i, j, label) in which a label of -1 is free; rows that begin with -1 are ignored.
            allowed: bool, the constituents that a tree may have, leaves included: (*b, n, n), or (*b, n, n,
                labels) (then with all batch dimensions, singletons where shared).
        """
        about = Sentences.of(self, "span_scores", self._num_words)
        scores = self.span_scores if self._labelled else self.span_scores.unsqueeze(-1)
        for chart in (
            None if spans is None else agreeing(about, spans, self.num_labels),
            None if allowed is None else permitted(about, allowed, self.num_labels),
        ):
            scores = scores if chart is None else masked(scores, chart, scores)
        result = self._rebuild(
            span_scores=scores if self._labelled else scores.squeeze(-1), lengths=self.lengths
        )
        result._validate_args = self._validate_args
        return result

    def to_parts(self, event: Tensor) -> BinaryTreeParts:
        """How often each constituent occurs in ``event``: the shapes of ``marginals()`` after (*s)."""
        event = tree_events.without_padding(self._checked_event(event), self.lengths)
        index, size = labels.places(event, self._num_words, self.num_labels), self._scores().shape[-3:]
        spans = tree_events.counted(index, size.numel()).unflatten(-1, size)
        return BinaryTreeParts((spans if self._labelled else spans.squeeze(-1)).to(self._dtype))

    def from_parts(self, parts: Any) -> Tensor:
        """The tree (*s, *b, 2n - 1, 3) whose constituents ``parts`` counts; -1 where it counts none."""
        shape = self.span_scores.shape[len(self._batch_shape) :]
        require_events("parts.spans", parts[0], "(*b, n, n), or (*b, n, n, labels)", *shape)
        spans = parts[0] if self._labelled else parts[0].unsqueeze(-1)
        chart = spans.argmax(-1).masked_fill((spans == 0).all(-1), -1)
        return tree_events.from_charts(chart.diagonal(dim1=-2, dim2=-1), chart)

    @property
    def num_labels(self) -> int:
        """1 where constituents have no labels."""
        return self.span_scores.shape[-1] if self._labelled else 1

    @property
    def support(self) -> ConstituencyTree:
        """Binary trees whose labels are in 0..labels-1."""
        known = range(self.num_labels)
        return ConstituencyTree(self._num_words, known, known, self.lengths, minimum=0)

    # ---- hooks -----------------------------------------------------------------------------------------

    def _log_partition(self, *, as_double: bool) -> Tensor:
        total = self._summed(self._scores())
        log_z = pcfg.log_partition(*self._grammar(total), as_double=True)
        few = total.double()[..., :1, :1].sum((-2, -1))  # of the first word, if there is one
        length = self._lengths()
        log_z = torch.where(length > 1, log_z, torch.where(length == 1, few, 0.0))
        return log_z if as_double else self._rounded(log_z)

    def _best(self, k: int) -> Tensor:
        scores = self._scores().detach()
        best = scores.amax(-1)
        events = pcfg.topk(*self._grammar(best), k=k)
        events = torch.cat([self._with_single(events[:1], best), events[1:]])
        return labels.k_best(events, scores, k) if self._labelled else labels.relabelled(events, 0)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        scores = self._scores().detach()
        total = self._summed(scores)
        event = pcfg.sample(*self._grammar(total), num_samples=num_samples, seed=seed)
        event = self._with_single(event, total)
        return (
            labels.drawn(event, scores, seed, self._dtype) if self._labelled else labels.relabelled(event, 0)
        )

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        scores = self._scores().detach()
        total = self._summed(scores)
        events, perturbed = pcfg.sample_distinct(*self._grammar(total), k=k, seed=seed)
        events = torch.cat([self._with_single(events[:1], total), events[1:]])
        few = self._single(total) | (self._lengths() == 0)
        first = torch.where(few, distinct.first_noise(seed, perturbed[0]), perturbed[0])
        perturbed = torch.cat([first.unsqueeze(0), perturbed[1:]])
        if not self._labelled:
            return labels.relabelled(events, 0), perturbed
        sums = labels.total(labels.relabelled(events, 0), total.unsqueeze(-1), self._lengths())
        log_prob = sums - finite(self._log_partition(as_double=True).detach())
        return labels.distinct(events, perturbed, log_prob, scores, seed)

    def _score(self, event: Tensor) -> Tensor:
        event = tree_events.without_padding(event, self.lengths)
        return labels.total(event, self._scores().double(), self._lengths())

    def _part_scores(self) -> BinaryTreeParts:
        return BinaryTreeParts(self.span_scores)

    def _perturbed(self: Self, num_samples: int, seed: int) -> Self:
        scores = self.span_scores if self._labelled else self.span_scores.unsqueeze(-1)
        noise = gumbel(scores, event_dims=3, num_samples=num_samples, seed=seed, spans=True)
        moved = noise if self._labelled else noise.squeeze(-1)
        return self.expand((num_samples, *self._batch_shape))._moved([moved])

    def _trace(self, event: Tensor) -> Trace:
        """Where each constituent splits, and its label."""
        scores = self._scores()
        grammar = self._grammar(self._summed(scores))
        chart = inside_scores(*grammar)
        spans = tree_trace(
            labels.as_grammar(event), chart, grammar[0].to(chart.dtype), grammar[1].to(chart.dtype)
        )
        words = labels.relabelled(event, 0)
        alone = self._single(self._summed(scores)).unsqueeze(-1).unsqueeze(-1) & _first(chart[..., 0])

        def cells(weights: list[Tensor]) -> Tensor:
            """(s, *b, n, n), for a sentence of one word its word."""
            return torch.where(alone, 1.0, spans.parts(weights)[2].sum(-1))

        if not self._labelled:
            return Trace(spans.choices, lambda w: BinaryTreeParts(cells(w).to(self._dtype)))
        choice = labels.choices(event, scores)

        def parts(weights: list[Tensor]) -> BinaryTreeParts:
            chart = cells(weights[:2]).unsqueeze(-1) * labels.spread(words, weights[2], scores)
            return BinaryTreeParts(chart.to(self._dtype))

        return Trace([*spans.choices, choice], parts)

    def _moved(self: Self, parts: Any) -> Self:
        return self._plus(span_scores=parts[0])

    @property
    def _dtype(self) -> torch.dtype:
        return self.span_scores.dtype

    def _event_dims(self, name: str) -> int:
        return 0 if name == "lengths" else 2 + self._labelled

    def _rebuild(self: Self, **parameters: Any) -> Self:
        return type(self)(**parameters, labelled=self._labelled, validate_args=False)

    def _check_same_structures(self, q: Any) -> None:
        super()._check_same_structures(q)
        if self.num_labels != q.num_labels or self._labelled != q._labelled:
            raise ValueError(f"both must have the same labels, found {self.num_labels} and {q.num_labels}")
        if self._validate_args and is_eager(self.span_scores):
            require_same_lengths(self.lengths, q.lengths, self._num_words)

    def _check_labels(self, event: Tensor) -> None:
        event = tree_events.without_padding(event, self.lengths)
        require_labels("spans", event[..., :2], -1, self._num_words - 1)
        require_labels("labels", event[..., 2], -1, self.num_labels - 1)

    # ---- helpers ---------------------------------------------------------------------------------------

    @property
    def _num_words(self) -> int:
        return self.span_scores.shape[-2 - self._labelled]

    def _lengths(self) -> Tensor:
        """(*b), or () where all are the same."""
        n, device = self._num_words, self.span_scores.device
        return torch.full((), n, device=device) if self.lengths is None else self.lengths

    def _scores(self) -> Tensor:
        """(*b, n, n, labels), 0 where no constituent is; in float64 if there are labels to sum over."""
        word = torch.arange(self._num_words, device=self.span_scores.device)
        used = (word.unsqueeze(-1) <= word) & (word < self._lengths()[..., None, None])
        if self._labelled:
            return torch.where(used.unsqueeze(-1), self.span_scores.double(), 0.0)
        return torch.where(used, self.span_scores, 0.0).unsqueeze(-1)

    def _summed(self, scores: Tensor) -> Tensor:
        """(*b, n, n): the log of the sum over labels."""
        return semiring.logsumexp(scores, -1) if self._labelled else scores.squeeze(-1)

    def _grammar(self, chart: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """The grammar of one nonterminal and one preterminal whose trees have the scores of ``chart``."""
        leaves = chart.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        return chart.new_zeros(1), chart.new_zeros(1, 2, 2), leaves, chart.unsqueeze(-1), self.lengths

    def _single(self, chart: Tensor) -> Tensor:
        """(*b) bool: whether the sentence is one word, a tree that no grammar has, and it is possible."""
        return (self._lengths() == 1) & (chart[..., :1, :1] > -torch.inf).flatten(-2).any(-1)

    def _with_single(self, event: Tensor, chart: Tensor) -> Tensor:
        """``event`` with the trees of sentences of one word."""
        rows = torch.arange(event.shape[-2], device=event.device)
        return event.masked_fill((self._single(chart).unsqueeze(-1) & (rows == 0)).unsqueeze(-1), 0)

    def _check_values(self) -> None:
        if self.lengths is not None:
            require_lengths(self.lengths, self._num_words)
        if bool(self._scores().isnan().any()):
            raise ValueError("span_scores must not be NaN")


def _first(chart: Tensor) -> Tensor:
    """(n, n) bool: the span of the first word."""
    word = torch.arange(chart.shape[-1], device=chart.device)
    return (word.unsqueeze(-1) == 0) & (word == 0)
