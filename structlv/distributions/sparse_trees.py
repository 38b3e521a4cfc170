"""Trees of a grammar whose rules are a list, unary rules included."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from structlv.distributions import tree_events
from structlv.distributions.sparse_choices import sparse_trace
from structlv.distributions.traces import Trace
from structlv.distributions.tree_decoding import minimum_risk
from structlv.distributions.tree_parts import TreeParts
from structlv.distributions.trees import TreePosterior
from structlv.distributions.validation import is_eager
from structlv.ops import sparse_pcfg
from structlv.ops.sparse_pcfg import SparseRules

Self = TypeVar("Self", bound="SparseTreePosterior")


class SparseTreePosterior(TreePosterior, rules=SparseRules):
    """``TreePosterior`` of ``SparseRules``: binary rules A -> y z and unary rules A -> y.

    Any symbol may cover any span, one word too, where rules build it. An event has (1 + c)(2n - 1) rows, c
    being the number of unary rules in the longest chain of them (``depth``): a unary parent stands right
    above its child, with the same span. One word has a tree if unary rules lead to a preterminal.

    The parts ``rules`` are the listed rules, (*b, r). The part ``spans`` says whether words i..j, i < j, are
    a constituent, (*b, n, n, 1); where the potential ``spans`` has symbols, which of them cover the words,
    (*b, n, n, NT). As a potential, (*b, n, n, 1) counts once for a constituent, whatever symbols cover it.

    O(n^3 r) time at worst: only symbols that are possible on a span, and rules through them, are visited.
    """

    _operators: ClassVar[Any] = sparse_pcfg
    _rule_dims: ClassVar[dict[str, int]] = {"index": 2, "scores": 1}
    index: Tensor
    scores: Tensor

    def __init__(self, root: Tensor, rules: SparseRules, unary: Tensor, **options: Any) -> None:
        self.depth = rules.depth
        super().__init__(root, rules, unary, **options)

    @property
    def rules(self) -> SparseRules:
        """The rules as they were given."""
        return SparseRules(self.index, self.scores, depth=self.depth)

    # ---- hooks for the kind of rules -------------------------------------------------------------------

    @classmethod
    def _rule_tensors(cls, rules: Any) -> dict[str, Tensor | None]:
        return {"index": rules.index, "scores": rules.scores}

    def _rebuild(self: Self, **parameters: Any) -> Self:
        rules = SparseRules(parameters.pop("index"), parameters.pop("scores"), depth=self.depth)
        return type(self)(rules=rules, **parameters, validate_args=False)

    def _check_rule_shapes(self) -> None:
        if self.index.device != self.unary.device:
            raise ValueError(f"rules must be on {self.unary.device}, found {self.index.device}")
        if is_eager(self.index):
            sparse_pcfg.check_symbols(self.index, self.num_nonterminals, self.num_preterminals)

    def _rule_scores(self) -> Tensor:
        return self.scores

    def _rule_counts(self, event: Tensor) -> Tensor:
        return tree_events.counted(self._rules_used(event), len(self.index))

    def _rules_used(self, event: Tensor) -> Tensor:
        """The rule of every row (*, m), -1 where there is none."""
        first, second = (tree_events.symbols_at(event, rows) for rows in tree_events.children(event))
        used = self._key(event[..., 2], first, second).masked_fill(first < 0, -1)
        keys, order = self._key(*self.index.unbind(-1)).sort()
        place = torch.searchsorted(keys, used).clamp_max(max(len(keys) - 1, 0))
        known = keys[place] == used if len(keys) else torch.zeros_like(used, dtype=torch.bool)
        return torch.where(known, order[place] if len(keys) else -1, -1)

    def _key(self, parent: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """A number for each rule."""
        symbols = self.num_nonterminals + self.num_preterminals
        return (parent * symbols + first) * (symbols + 1) + second + 1

    def _num_rows(self, n: int) -> int:
        return (1 + self.depth) * tree_events.rows_of(n)

    def _without_padding(self, event: Tensor) -> Tensor:
        behind = (event[..., 0] < 0).cumsum(-1) > 0
        return event.masked_fill(behind.unsqueeze(-1), -1)

    def _check_same_structures(self, q: Any) -> None:
        super()._check_same_structures(q)
        same = self.index.shape == q.index.shape
        if not same or (is_eager(self.index) and is_eager(q.index) and not torch.equal(self.index, q.index)):
            raise ValueError("both must have the same rules, in the same order")

    # ---- queries ---------------------------------------------------------------------------------------

    def argmax(self) -> Tensor:
        """The best tree (Viterbi), (*b, m, 3) int64; all -1 where none is possible.

        Ties go to binary rules, the lowest split, the lowest symbols, then to unary rules and their symbols.
        """
        return sparse_pcfg.argmax(*self._args, depth=self.depth)

    def _best(self, k: int) -> Tensor:
        return sparse_pcfg.topk(*self._args, k=k, depth=self.depth)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        return sparse_pcfg.sample(*self._args, num_samples=num_samples, seed=seed, depth=self.depth)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        return sparse_pcfg.sample_distinct(*self._args, k=k, seed=seed, depth=self.depth)

    def span_marginals(self) -> Tensor:
        """The probability that the words i..j are a constituent, (*b, n, n); leaves are on the diagonal."""
        found = sparse_pcfg.marginals(*self._args, with_rules=False, labelled=False)
        return found[3].sum(-1) + torch.diag_embed(found[2].sum(-1))  # type: ignore[union-attr]

    def decode(self, labelled: bool = False) -> Tensor:
        """The binary tree with the most expected constituents, an event of 2n - 1 rows: no unary rules.

        As for other rules; ``labelled`` takes memory for every symbol of every span.
        """
        found = sparse_pcfg.marginals(*self.detach()._args, with_rules=False, labelled=labelled)
        assert found[3] is not None
        return minimum_risk(found[2], found[3], self.lengths, self.num_nonterminals, labelled)

    def condition(  # type: ignore[override]
        self: Self, *, spans: Tensor | None = None, allowed: Tensor | None = None
    ) -> Self:
        """The trees that agree with the evidence; its log Z minus this one's is log p(evidence).

        As for other rules, but that with unary rules ``spans`` cannot name symbols: several may cover a span.

        Raises:
            NotImplementedError: ``spans`` name symbols and there are unary rules, or ``allowed`` does where
            the potential ``spans`` is of constituents.
        """
        if self.depth and spans is not None and spans.shape[-1:] == (3,):
            raise NotImplementedError(
                "evidence of symbols (i, j, symbol) is not implemented with unary rules"
            )
        symbols = allowed is not None and allowed.dim() > len(self.batch_shape) + 2
        if symbols and self.spans is not None and self.spans.shape[-1] == 1 < self.num_nonterminals:
            raise NotImplementedError("allowed symbols are not implemented beside scores of constituents")
        return super().condition(spans=spans, allowed=allowed)

    def _trace(self, event: Tensor) -> Trace:
        """The symbol at the top, and of every nonterminal which rule builds it and where it splits.

        With R the most rules that a nonterminal has: O(s b n^2 R) time and memory, and those of the chart.
        """
        return sparse_trace(self, event)

    def to_parts(self, event: Tensor) -> TreeParts:
        """How often each part occurs in ``event``: the shapes of ``marginals()`` after (*s)."""
        event = self._without_padding(self._checked_event(event))
        n, preterminals = self.unary.shape[-2:]
        root = tree_events.counted(event[..., :1, 2], self.num_nonterminals)
        if self._span_labels > 1:
            words, spans = tree_events.to_charts(event, n, preterminals, self.num_nonterminals)
        else:
            i, j, symbol = event.unbind(-1)
            word = symbol - self.num_nonterminals
            leaf = torch.where(word >= 0, i * preterminals + word, -1)
            words = tree_events.counted(leaf, n * preterminals).unflatten(-1, (n, preterminals))
            inner = torch.where(i < j, i * n + j, -1)
            again = torch.zeros_like(inner, dtype=torch.bool)
            again[..., 1:] = inner[..., 1:] == inner[..., :-1]  # a unary child
            spans = tree_events.counted(inner.masked_fill(again, -1), n * n).unflatten(-1, (n, n, 1))
        return TreeParts(*(x.to(self._dtype) for x in (root, self._rule_counts(event), words, spans)))

    def from_parts(self, parts: Any) -> Tensor:
        """Not implemented: with unary rules, several trees can have the same parts."""
        raise NotImplementedError("from_parts is not implemented: several trees can have the same parts")

    @property
    def _span_labels(self) -> int:
        return 1 if self.spans is None else self.spans.shape[-1]

    @property
    def support(self) -> Constraint:
        """The trees that the listed rules build, whatever their scores."""
        return RuleTree(self)


class RuleTree(Constraint):
    """Trees that listed rules build, as rows (i, j, symbol) in pre-order, shape (*, m, 3)."""

    is_discrete = True
    event_dim = 2

    def __init__(self, trees: SparseTreePosterior) -> None:
        self.trees = trees
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(*) bool, for events (*, m, 3)."""
        zeroed = self.trees._rescored(torch.zeros_like)
        return zeroed._score(zeroed._checked_event(value)) == 0

    def __repr__(self) -> str:
        return f"RuleTree(of {len(self.trees.index)} rules)"
