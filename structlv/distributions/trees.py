"""Constituency trees: a grammar's rules, scores of words and of spans."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.distributions import constraints

from structlv.distributions import tree_events
from structlv.distributions.base import StructuredDistribution
from structlv.distributions.constraints import ConstituencyTree
from structlv.distributions.tree_checks import check_shapes, check_values, require_same_grammar
from structlv.distributions.tree_decoding import minimum_risk
from structlv.distributions.tree_evidence import conditioned
from structlv.distributions.tree_parts import TreeParts
from structlv.distributions.validation import (
    checked_lengths,
    describe,
    is_eager,
    require_events,
    require_labels,
    uniform_floats,
)
from structlv.ops.noise import gumbel

Self = TypeVar("Self", bound="TreePosterior")


class TreePosterior(StructuredDistribution):
    """Distribution over the binary trees that a grammar gives a sentence, from scores of their parts.

    p(tree) = exp(score(tree)) / Z, where score(tree) = root[symbol of the sentence] + the sum over inner
    nodes A -> y z over the words i..j of rules[A, y, z] + spans[i, j, A] + the sum over words of unary[i,
    preterminal - NT]. Potentials are taken as they are, in nats; nothing is normalised. Symbols 0..NT-1 are
    nonterminals, NT..NT+T-1 preterminals, each over one word; S = NT + T. A sentence of fewer than two words
    has no tree.

    An event is (*b, 2n - 1, 3) int64: rows (i, j, symbol), the words i..j inclusive, in pre-order, leaves
    included, -1 past the end. ``structlv.from_brackets`` and ``structlv.to_brackets`` read and write strings.

    The kind of ``rules`` decides the class of the object that is made; a tensor is dense rules. Inside and
    outside: Baker (1979), "Trainable grammars for speech recognition"; Lari and Young (1990), section 2.
    O(n^3 NT^2 + n^2 NT^3 + n NT S^2) time, O(n^2 NT) memory per sentence; shared rules are never copied.

    Args:
        root: (*b, NT) scores of the symbol of the whole sentence.
        rules: (*b, NT, S, S) scores of A -> y z, ``[..., A, y, z]``; fewer or singleton batch dimensions
            where shared.
        unary: (*b, n, T) scores of the preterminals of each word.
        spans: (*b, n, n, NT) scores of nonterminals over spans i < j (inclusive), or (*b, n, n, 1) whatever
            the symbol; the rest is ignored.
        lengths: (*b) integers in 0..n, or None where every sentence has n words. What is stored past the end
            of a sentence changes nothing: no value, no gradient.
        validate_args: whether to check values (lengths, NaN, events); None for structlv's default (on).

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit, there is no symbol, a length is out of range, a NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "root": constraints.real_vector,
        "unary": constraints.independent(constraints.real, 2),
        "spans": constraints.independent(constraints.real, 3),
        "lengths": constraints.nonnegative_integer,
    }
    _full = ("unary", "lengths")
    # What a class for another kind of rules supplies, beside the methods under "hooks for the kind of rules".
    _operators: ClassVar[ModuleType]  # functions named as those of structlv.ops.pcfg, of ``_args``
    _rule_dims: ClassVar[dict[str, int]]  # its tensors, in the operators' order: dimensions but the batch's
    _kinds: ClassVar[dict[type, type[TreePosterior]]] = {}

    def __init_subclass__(cls, rules: type | None = None, **options: Any) -> None:
        """``class Kind(TreePosterior, rules=R)`` is what ``TreePosterior`` makes of rules of type R."""
        super().__init_subclass__(**options)
        cls._parameters = ("root", *cls._rule_dims, "unary", "spans", "lengths")
        if rules is not None:
            TreePosterior._kinds[rules] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> TreePosterior:
        if cls is not TreePosterior:
            return super().__new__(cls)
        rules = kwargs["rules"] if "rules" in kwargs else args[1] if len(args) > 1 else None
        for kind, subclass in TreePosterior._kinds.items():
            if isinstance(rules, kind):
                return super().__new__(subclass)
        names = " or ".join(kind.__name__ for kind in TreePosterior._kinds)
        raise TypeError(f"rules must be {names}, found {describe(rules)}")

    def __init__(
        self,
        root: Tensor,
        rules: Any,
        unary: Tensor,
        *,
        spans: Tensor | None = None,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        tensors = self._rule_tensors(rules)
        scores = {name: x for name, x in tensors.items() if x is None or x.is_floating_point()}
        floats = {"unary": unary, "root": root, **scores, "spans": spans}
        floats = dict(zip(floats, uniform_floats(**floats), strict=True))
        if lengths is not None:
            lengths = checked_lengths(lengths, "unary", unary)
        for name, value in {**tensors, **floats, "lengths": lengths}.items():
            setattr(self, name, value)
        self._batch_shape = check_shapes(self)
        if unary.shape[:-2] != self._batch_shape:
            self.unary = self.unary.expand(self._batch_shape + unary.shape[-2:])
        if lengths is not None and lengths.shape != self._batch_shape:
            self.lengths = lengths.expand(self._batch_shape)
        self._event_shape = torch.Size((self._num_rows(unary.shape[-2]), 3))
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(self.unary):
            check_values(self)

    root: Tensor
    rules: Any
    unary: Tensor
    spans: Tensor | None
    lengths: Tensor | None

    # ---- hooks for the kind of rules -------------------------------------------------------------------

    @classmethod
    def _rule_tensors(cls, rules: Any) -> dict[str, Tensor | None]:
        """The tensors that ``rules`` consists of, named as ``_rule_dims`` names them."""
        raise NotImplementedError

    @classmethod
    def _rules_of(cls, tensors: dict[str, Any]) -> Any:
        """The rules that consist of ``tensors``: the inverse of ``_rule_tensors``."""
        raise NotImplementedError

    def _check_rule_shapes(self) -> None:
        """``ValueError`` unless the rules' tensors fit ``num_nonterminals`` and ``num_preterminals``."""
        raise NotImplementedError

    def _rule_scores(self) -> Tensor:
        """The scores of the rules, which broadcast to their marginals."""
        raise NotImplementedError

    def _rule_counts(self, event: Tensor) -> Tensor:
        """How often ``event`` (*s, *b, m, 3), padding -1, uses each rule: the shape of their marginals."""
        raise NotImplementedError

    def _num_rows(self, n: int) -> int:
        """The rows of an event over n words."""
        return tree_events.rows_of(n)

    def _without_padding(self, event: Tensor) -> Tensor:
        """``event`` with -1 in all rows that are past the end."""
        return tree_events.without_padding(event, self.lengths)

    # ---- queries ---------------------------------------------------------------------------------------

    @property
    def num_nonterminals(self) -> int:
        """NT."""
        return self.root.shape[-1]

    @property
    def num_preterminals(self) -> int:
        """T."""
        return self.unary.shape[-1]

    def marginals(self) -> TreeParts:
        """Expected counts: of the root symbol, of each rule, of preterminals and of labelled spans i < j.

        Differentiable once. The rules' are per item, the largest part: ``span_marginals`` and ``decode`` do
        without them.
        """
        return TreeParts(*self._operators.marginals(*self._args))

    def span_marginals(self) -> Tensor:
        """The probability that the words i..j are a constituent, (*b, n, n); leaves are on the diagonal.

        0 where i > j and in padding. Differentiable once. ``marginals().spans`` has the symbols too.
        """
        unary, spans = self._constituents()
        return spans.sum(-1) + torch.diag_embed(unary.sum(-1))

    def max_marginals(self) -> TreeParts:
        """The best score of any tree that uses a part; -inf where there is none. Not differentiable."""
        return TreeParts(*self._operators.max_marginals(*self._args))

    def argmax(self) -> Tensor:
        """The best tree (Viterbi), (*b, 2n - 1, 3) int64; all -1 where none is possible.

        Ties go to the lowest split, then to the lowest symbols.
        """
        return self._operators.argmax(*self._args)

    def decode(self, labelled: bool = False) -> Tensor:
        """The tree with the most expected constituents (minimum Bayes risk), an event.

        It maximises the expected number of its spans (``labelled``: spans with their symbols) that are
        constituents of the true tree, and may be a tree of probability 0. Goodman (1996), "Parsing algorithms
        and metrics", section 3. O(n^3). All -1 where no tree is possible. Not differentiable.

        Args:
            labelled: whether symbols count; each span then has its best symbol, and each word its best
                preterminal. Where not, every symbol is 0.
        """
        unary, spans = self.detach()._constituents()
        return minimum_risk(unary, spans, self.lengths, self.num_nonterminals, labelled)

    def condition(  # type: ignore[override]
        self: Self, *, spans: Tensor | None = None, allowed: Tensor | None = None
    ) -> Self:
        """The trees that agree with the evidence; its log Z minus this one's is log p(evidence).

        Args:
            spans: constituents that a tree must have: (*b, m, 2) integer rows (i, j), or (*b, m, 3) rows
                (i, j, symbol) in which a symbol of -1 is free; rows that begin with -1 are ignored. What
                would cross them is excluded.
            allowed: bool, the spans i < j that may be constituents: (*b, n, n), or (*b, n, n, NT) with their
                symbols (then with all batch dimensions, singletons where shared). The rest is ignored.
        """
        return conditioned(self, spans, allowed)

    def to_parts(self, event: Tensor) -> TreeParts:
        """How often each part occurs in ``event``: the shapes of ``marginals()`` after (*s)."""
        event = self._without_padding(self._checked_event(event))
        root = tree_events.counted(event[..., :1, 2], self.num_nonterminals)
        n, preterminals = self.unary.shape[-2:]
        charts = tree_events.to_charts(event, n, preterminals, self.num_nonterminals)
        return TreeParts(*(x.to(self._dtype) for x in (root, self._rule_counts(event), *charts)))

    def from_parts(self, parts: Any) -> Tensor:
        """The tree (*s, *b, 2n - 1, 3) whose words and spans ``parts`` counts; -1 where it counts none."""
        unary, spans = parts[-2], parts[-1]
        n, preterminals = self.unary.shape[-2:]
        require_events("parts.unary", unary, "(*b, n, T)", n, preterminals)
        require_events("parts.spans", spans, "(*b, n, n, NT)", n, n, self.num_nonterminals)
        leaves = (unary.argmax(-1) + self.num_nonterminals).masked_fill((unary == 0).all(-1), -1)
        return tree_events.from_charts(leaves, spans.argmax(-1).masked_fill((spans == 0).all(-1), -1))

    @property
    def support(self) -> constraints.Constraint:
        """Binary trees with nonterminals inside and preterminals at the leaves."""
        inner, leaf = self.num_nonterminals, self.num_nonterminals + self.num_preterminals
        return ConstituencyTree(self.unary.shape[-2], range(inner), range(inner, leaf), self.lengths)

    # ---- hooks of the base class -----------------------------------------------------------------------

    @property
    def _args(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._parameters)

    @property
    def _dtype(self) -> torch.dtype:
        return self.unary.dtype

    def _log_partition(self, *, as_double: bool) -> Tensor:
        return self._operators.log_partition(*self._args, as_double=as_double)

    def _best(self, k: int) -> Tensor:
        return self._operators.topk(*self._args, k=k)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        return self._operators.sample(*self._args, num_samples=num_samples, seed=seed)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        return self._operators.sample_distinct(*self._args, k=k, seed=seed)

    def _score(self, event: Tensor) -> Tensor:
        return self._operators.score(event, *self._args)

    def _part_scores(self) -> TreeParts:
        return TreeParts(self.root, self._rule_scores(), self.unary, self.spans)

    def _constituents(self) -> tuple[Tensor, Tensor]:
        """The probabilities of the preterminals of words and of nonterminals over spans."""
        found = self._weights(TreeParts(None, None, self.unary, self.unary))
        return found[2], found[3]

    def _weights(self, *scores: Any) -> Any:
        rules, spans = (any(score[i] is not None for score in scores) for i in (1, 3))
        found = TreeParts(*self._operators.marginals(*self._args, with_rules=rules, with_spans=spans))
        return TreeParts(
            found.root, found.rules if rules else None, found.unary, found.spans if spans else None
        )

    def _event_dims(self, name: str) -> int:
        return {"root": 1, "unary": 2, "spans": 3, "lengths": 0, **self._rule_dims}[name]

    def _rebuild(self: Self, **parameters: Any) -> Self:
        rules = self._rules_of({name: parameters.pop(name) for name in self._rule_dims})
        return type(self)(rules=rules, **parameters, validate_args=False)

    def _perturbed(self: Self, num_samples: int, seed: int) -> Self:
        n = self.unary.shape[-2]
        chart = self.unary.new_empty(()).expand(*self._batch_shape, n, n, self._span_labels)
        return self.expand((num_samples, *self._batch_shape))._plus(
            unary=gumbel(self.unary, event_dims=2, num_samples=num_samples, seed=seed),
            spans=gumbel(chart, event_dims=3, num_samples=num_samples, seed=seed, spans=True),
        )

    def _moved(self: Self, parts: Any) -> Self:
        scores = [name for name in self._rule_dims if getattr(self, name).is_floating_point()]
        return self._plus(**dict(zip(("root", *scores, "unary", "spans"), parts, strict=True)))

    @property
    def _span_labels(self) -> int:
        """The number of labels that the part ``spans`` has."""
        return self.num_nonterminals

    def _check_same_structures(self, q: Any) -> None:
        if type(self) is not type(q):
            raise TypeError(f"expected another {type(self).__name__}, found {type(q).__name__}")
        super()._check_same_structures(q)
        require_same_grammar(self, q)

    def _check_labels(self, event: Tensor) -> None:
        event = self._without_padding(event)
        require_labels("spans", event[..., :2], -1, self.unary.shape[-2] - 1)
        require_labels("symbols", event[..., 2], -1, self.num_nonterminals + self.num_preterminals - 1)
