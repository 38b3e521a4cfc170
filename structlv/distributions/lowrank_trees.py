"""Trees of a grammar whose rules are sums of rank-one terms."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from structlv.distributions import tree_events
from structlv.distributions.dense_trees import DenseTreePosterior
from structlv.distributions.trees import TreePosterior
from structlv.distributions.validation import require_events
from structlv.ops import lowrank
from structlv.reference import semiring

Self = TypeVar("Self", bound="LowRankTreePosterior")


class LowRankRules(NamedTuple):
    """Rules of a grammar as sums over a rank.

    rules[A, y, z] = log sum_q exp(head[A, q] + left[q, y] + right[q, z])

    Accepted by ``TreePosterior`` in place of dense rules, which are never formed. Cohen, Satta and Collins
    (2013), "Approximate PCFG parsing using tensor decomposition", section 4.

    Attributes:
        head: (*b, NT, r) scores of rank q given nonterminal A; or None, and then r = NT and the rank is the
            nonterminal: rules[A, y, z] = left[A, y] + right[A, z] (Liu et al. 2023, "Simple
            hardware-efficient PCFGs with independent left and right productions", section 3).
        left: (*b, r, S) scores of the left child's symbol, S = NT + T.
        right: (*b, r, S) scores of the right child's symbol.
    """

    head: Tensor | None
    left: Tensor
    right: Tensor

    def to_dense(self) -> Tensor:
        """``rules`` (*b, NT, S, S), differentiable. O(NT r S^2) time; as much memory for a gradient."""
        return lowrank.to_dense(*self)


class LowRankParts(NamedTuple):
    """One number for each part of a tree under low-rank rules: marginals, max-marginals, counts or scores.

    A tree does not say which rank a rule took: counts of a tree are expected ones, given the tree.

    Attributes:
        root: (*b, NT), the symbol of the whole sentence.
        head: (*b, NT, r), how often a nonterminal takes a rank.
        left: (*b, r, S), how often a rank has a symbol as its left child.
        right: (*b, r, S), and as its right child.
        unary: (*b, n, T), the preterminal of each word.
        spans: (*b, n, n, NT), nonterminal A over the words i..j, i < j; 0 (max-marginals: -inf) elsewhere.
    """

    root: Tensor | None
    head: Tensor | None
    left: Tensor | None
    right: Tensor | None
    unary: Tensor | None
    spans: Tensor | None


class SimpleParts(NamedTuple):
    """``LowRankParts`` of rules without a head: left and right (*b, NT, S) are of nonterminals."""

    root: Tensor | None
    left: Tensor | None
    right: Tensor | None
    unary: Tensor | None
    spans: Tensor | None


class LowRankTreePosterior(TreePosterior, rules=LowRankRules):
    """``TreePosterior`` of :class:`LowRankRules`: O(n^3 r + n^2 r NT + n r T) time, O(n^2 (r + NT)) memory.

    In the space of ranks: the log-partition, marginals, samples, minimum-risk trees, scores, conditioning and
    log-probabilities. What is no sum over ranks (the best tree, the k best, k without replacement,
    max-marginals, entropy and divergences, counts and temperatures: the score of a rule is the logarithm of a
    sum) goes through ``to_dense``, with the cost of dense rules.
    """

    _operators: ClassVar[Any] = lowrank
    _rule_dims: ClassVar[dict[str, int]] = {"head": 2, "left": 2, "right": 2}
    head: Tensor | None
    left: Tensor
    right: Tensor

    @classmethod
    def _rule_tensors(cls, rules: Any) -> dict[str, Tensor | None]:
        return {"head": rules.head, "left": rules.left, "right": rules.right}

    @classmethod
    def _rules_of(cls, tensors: dict[str, Any]) -> Any:
        return LowRankRules(**tensors)

    def _check_rule_shapes(self) -> None:
        nonterminals, symbols = self.num_nonterminals, self.num_nonterminals + self.num_preterminals
        rank = nonterminals if self.head is None else self.head.shape[-1]
        if rank == 0:
            raise ValueError("head must have shape (*b, NT, r) with r >= 1, found r = 0")
        if self.head is not None:
            require_events("head", self.head, "(*b, NT, r)", nonterminals, rank)
        shape = "(*b, NT, S)" if self.head is None else "(*b, r, S)"
        require_events("left", self.left, shape, rank, symbols)
        require_events("right", self.right, shape, rank, symbols)

    @property
    def rules(self) -> LowRankRules:
        """The rules, as they were given."""
        return LowRankRules(self.head, self.left, self.right)

    def to_dense(self) -> TreePosterior:
        """The same distribution with dense rules (*b, NT, S, S): O(NT r S^2) time; see ``LowRankRules``."""
        dense = DenseTreePosterior(
            self.root,
            self.rules.to_dense(),
            self.unary,
            spans=self.spans,
            lengths=self.lengths,
            validate_args=False,
        )
        dense._validate_args = self._validate_args
        return dense

    def marginals(self) -> Any:
        """Expected counts, a ``LowRankParts`` (``SimpleParts`` where there is no head): of the root symbol,
        of each entry of the rules' tensors, of preterminals and of labelled spans i < j.

        The gradient of the log-partition by each potential. Differentiable once.
        """
        return self._parts(*lowrank.marginals(*self._args))

    def max_marginals(self) -> Any:
        """The best score of any tree that can use a part; -inf where there is none. Not differentiable.

        Through the dense rules, and O(r NT S^2) more.
        """
        best = self._double().to_dense().max_marginals()
        rules, left, right = best.rules, self.left.detach(), self.right.detach()
        assert rules is not None
        tables: tuple[Tensor | None, Tensor, Tensor]
        if self.head is None:
            tables = (None, rules.amax(-1), rules.amax(-2))
        else:
            tables = _best_of_ranks(rules, self.head.detach(), left, right)
        parts = self._parts(best.root, *tables, best.unary, best.spans)
        return type(parts)(*(x.to(self._dtype) for x in parts))

    def argmax(self) -> Tensor:
        """The best tree (Viterbi) by the dense rules, (*b, 2n - 1, 3) int64; all -1 where none is possible.

        Ties go to the lowest split, then to the lowest symbols. ``decode`` needs no dense rules.
        """
        return self._double().to_dense().argmax()

    def entropy(self) -> Tensor:
        """H(p) = -E_p[log p], (*b); differentiable once. Through the dense rules."""
        return self._rounded(self._double().to_dense().entropy())

    def cross_entropy(self, q: Any) -> Tensor:
        """H(p, q) = -E_p[log q], (*b), for q over the same trees, of low rank or dense; by dense rules."""
        return self._rounded(self._double().to_dense().cross_entropy(_dense(q)))

    def kl(self, q: Any) -> Tensor:
        """KL(p || q), (*b), for q over the same trees, of low rank or dense; by dense rules."""
        return self._rounded(self._double().to_dense().kl(_dense(q)))

    def log_count(self) -> Tensor:
        """The log of the number of trees of non-zero weight, (*b) float64. Through dense rules."""
        return self.to_dense().log_count()

    def with_temperature(self, temperature: float | Tensor) -> Any:
        """The distribution p(tree)^(1/t), renormalised: it is not of low rank, so one with dense rules."""
        return self.to_dense().with_temperature(temperature)

    def to_parts(self, event: Tensor) -> Any:
        """How often each part occurs in ``event``: the shapes of ``marginals()`` after (*s).

        Ranks are not part of a tree: their counts are expected ones given it, the gradient of its score.
        """
        event = self._without_padding(self._checked_event(event))
        root = tree_events.counted(event[..., :1, 2], self.num_nonterminals)
        n, preterminals = self.unary.shape[-2:]
        charts = tree_events.to_charts(event, n, preterminals, self.num_nonterminals)
        return self._parts(
            *(None if x is None else x.to(self._dtype) for x in (root, *self._counts(event), *charts))
        )

    def _counts(self, event: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Expected counts of head, left and right given the trees (*s, *b, m, 3)."""
        first, second = (tree_events.symbols_at(event, rows) for rows in tree_events.children(event))
        nonterminals, symbols = self.num_nonterminals, self.left.shape[-1]
        above, y, z = (
            _one_hot(x.masked_fill(second < 0, -1), size)
            for x, size in ((event[..., 2], nonterminals), (first, symbols), (second, symbols))
        )
        if self.head is None:
            return None, above.mT @ y, above.mT @ z
        scores = [
            _select(one, table) for one, table in ((above, self.head), (y, self.left.mT), (z, self.right.mT))
        ]
        share = semiring.softmax(scores[0] + scores[1] + scores[2], -1)
        share = torch.where((second < 0).unsqueeze(-1), 0.0, share)
        return above.mT @ share, share.mT @ y, share.mT @ z

    def _constituents(self) -> tuple[Tensor, Tensor]:
        *_, unary, spans = lowrank.marginals(*self._args, with_rules=False)
        assert spans is not None
        return unary, spans

    def _parts(self, *parts: Any) -> Any:
        return SimpleParts(parts[0], *parts[2:]) if self.head is None else LowRankParts(*parts)

    def _part_scores(self) -> Any:
        return self._parts(self.root, self.head, self.left, self.right, self.unary, self.spans)

    def _weights(self, *scores: Any) -> Any:
        wanted = any(score[-1] is not None for score in scores)
        return self._parts(*lowrank.marginals(*self._args, with_spans=wanted))

    def _perturbed(self, num_samples: int, seed: int) -> Any:
        """Of dense rules: a rule's score is no sum of scores of parts, so that best trees are found there."""
        return self.to_dense()._perturbed(num_samples, seed)

    def _by_choices(self) -> TreePosterior:
        return self.to_dense()

    def _best(self, k: int) -> Tensor:
        return self._double().to_dense()._best(k)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        return self._double().to_dense()._sample_distinct(k, seed)


def _dense(q: Any) -> Any:
    q = q._double() if isinstance(q, TreePosterior) else q
    return q.to_dense() if isinstance(q, LowRankTreePosterior) else q


def _one_hot(index: Tensor, size: int) -> Tensor:
    """(*, m) in -1..size-1 to (*, m, size) float64; -1 is nowhere."""
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).double()


def _select(one: Tensor, table: Tensor) -> Tensor:
    """Rows of ``table (*b, k, r)`` by ``one (*s, *b, m, k)``, one-hot or 0, in float64."""
    rows = one.argmax(-1, keepdim=True).expand(*one.shape[:-1], table.shape[-1])
    return table.double().expand(*one.shape[:-2], *table.shape[-2:]).gather(-2, rows)


def _best_of_ranks(rules: Tensor, head: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the best tree with each rule (*b, NT, S, S) to that with each entry of head, left and right."""
    found: list[list[Tensor]] = [[], [], []]
    for q in range(head.shape[-1]):
        possible = (
            (head[..., q] > -torch.inf)[..., None, None]
            & (left[..., q, :] > -torch.inf)[..., None, :, None]
            & (right[..., q, :] > -torch.inf)[..., None, None, :]
        )
        best = rules.masked_fill(~possible, -torch.inf)
        for part, dims in zip(found, ((-2, -1), (-3, -1), (-3, -2)), strict=True):
            part.append(best.amax(dims))
    return torch.stack(found[0], -1), torch.stack(found[1], -2), torch.stack(found[2], -2)
