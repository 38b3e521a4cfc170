"""Probabilistic context-free grammars whose rules are of low rank."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from structlv.distributions.derivations import Derivations, choice
from structlv.distributions.emissions import normalized_table
from structlv.distributions.grammar import Grammar, require_symbols
from structlv.distributions.lowrank_trees import LowRankRules
from structlv.distributions.validation import (
    broadcast_batch,
    is_eager,
    require_events,
    require_no_nan,
    uniform_floats,
)
from structlv.reference import semiring
from structlv.reference.semiring import log_normalize

_matrix = constraints.independent(constraints.real, 2)


class _FactoredGrammar(Grammar):
    """What grammars of low rank share; their parameters are named in ``_parameters``, some without a head."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "root_logits": constraints.real_vector,
        "head": _matrix,
        "left": _matrix,
        "right": _matrix,
        "emission_logits": _matrix,
    }
    head: Tensor | None = None
    left: Tensor
    right: Tensor

    def _prepare(self, logits: dict[str, Tensor], validate_args: bool | None) -> None:
        """Checks and normalises; ``logits`` are named as the parameters."""
        floats = dict(zip(logits, uniform_floats(**logits), strict=True))
        root, emission = floats["root_logits"], floats["emission_logits"]
        require_symbols(root, emission)
        nonterminals, symbols = root.shape[-1], root.shape[-1] + emission.shape[-2]
        rank = floats["left"].shape[-2] if "head" in floats and floats["left"].dim() > 1 else nonterminals
        if "head" in floats:
            require_events("head", floats["head"], "(*b, NT, r)", nonterminals, rank)
        shape = "(*b, r, S)" if "head" in floats else "(*b, NT, S)"
        for name in ("left", "right"):
            require_events(name, floats[name], shape, rank, symbols)
        batch = broadcast_batch({n: x.shape[: x.dim() - self._event_dims(n)] for n, x in floats.items()})
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(root):
            require_no_nan(**floats)
        rows = {name: log_normalize(x) for name, x in floats.items() if name != "emission_logits"}
        self._assign(batch, **rows, emission_logits=normalized_table(emission))

    def _rules(self) -> LowRankRules:
        return LowRankRules(self.head, self.left, self.right)

    def _derivations(self, max_length: int) -> Derivations:
        return LowRankDerivations(self.root_logits, self._rules(), max_length)

    def _event_dims(self, name: str) -> int:
        return 1 if name == "root_logits" else 2


class LowRankPCFG(_FactoredGrammar):
    """``PCFG`` whose rules are sums over a rank: p(y z | A) = sum_q p(q | A) p(y | q) p(z | q).

    A nonterminal draws a rank, the rank both children, independently of each other. With r ranks ``log_prob``
    takes O(n^3 r + n^2 r NT + n r T) time per sentence, whatever the number of rules, which are never formed:
    grammars of hundreds of symbols. Logits are normalised here, each over its last dimension; a row that is
    all -inf stays so. Everything else is as for ``PCFG``; posteriors are ``LowRankTreePosterior``.

    Yang, Zhao and Tu (2021), "PCFGs can do better: inducing probabilistic context-free grammars with many
    symbols", section 3; Cohen, Satta and Collins (2013), section 4.

    Args:
        root_logits: (*b, NT), of the symbol at the top.
        head: (*b, NT, r), of the rank given the nonterminal.
        left: (*b, r, S), of the left child's symbol given the rank, S = NT + T.
        right: (*b, r, S), of the right child's.
        emission_logits: (*b, T, v), of words 0..v-1 given the preterminal.
        validate_args: whether to check values (NaN, words, lengths); None for structlv's default (on).

    Attributes:
        root_logits, head, left, right, emission_logits: normalised log-probabilities.

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together, there is no symbol or no word, a logit is NaN.
    """

    _parameters = ("root_logits", "head", "left", "right", "emission_logits")

    def __init__(
        self,
        root_logits: Tensor,
        head: Tensor,
        left: Tensor,
        right: Tensor,
        emission_logits: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        logits = {"root_logits": root_logits, "head": head, "left": left, "right": right}
        self._prepare({**logits, "emission_logits": emission_logits}, validate_args)


class SimplePCFG(_FactoredGrammar):
    """``PCFG`` whose children are independent given their parent: p(y z | A) = p(y | A) p(z | A).

    ``log_prob`` takes O(n^3 NT + n^2 NT^2 + n NT T) time per sentence. Logits are normalised here, each over
    its last dimension; a row that is all -inf stays so. Everything else is as for ``PCFG``; posteriors are
    ``LowRankTreePosterior``. Liu, Yang, Kim and Tu (2023), "Simple hardware-efficient PCFGs with independent
    left and right productions", section 3.

    Args:
        root_logits: (*b, NT), of the symbol at the top.
        left: (*b, NT, S), of the left child's symbol given the parent, S = NT + T.
        right: (*b, NT, S), of the right child's.
        emission_logits: (*b, T, v), of words 0..v-1 given the preterminal.
        validate_args: whether to check values (NaN, words, lengths); None for structlv's default (on).

    Attributes:
        root_logits, left, right, emission_logits: normalised log-probabilities.

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together, there is no symbol or no word, a logit is NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        name: value for name, value in _FactoredGrammar.arg_constraints.items() if name != "head"
    }
    _parameters = ("root_logits", "left", "right", "emission_logits")

    def __init__(
        self,
        root_logits: Tensor,
        left: Tensor,
        right: Tensor,
        emission_logits: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        logits = {"root_logits": root_logits, "left": left, "right": right}
        self._prepare({**logits, "emission_logits": emission_logits}, validate_args)


class LowRankDerivations:
    """``Derivations`` of low-rank rules. O(max_length r (S + max_length)) time.

    Args:
        root: (*b, NT) log-probabilities, with the whole batch shape.
        rules: log-probabilities; batch dimensions broadcast.
        max_length: the most words.
    """

    def __init__(self, root: Tensor, rules: LowRankRules, max_length: int) -> None:
        self.max_length = max_length
        batch = root.shape[:-1]
        given = {name: x for name, x in rules._asdict().items() if x is not None}
        shared = broadcast_batch({name: x.shape[:-2] for name, x in given.items()})
        count = torch.arange(shared.numel(), device=root.device).reshape(shared)
        self._grammar = count.expand(batch).flatten()  # of each item
        self._root = semiring.softmax(root.double(), -1)
        tables = {
            name: semiring.softmax(x.double(), -1).expand(*shared, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
            for name, x in given.items()
        }
        self._head, self._left, self._right = tables.get("head"), tables["left"], tables["right"]
        self._below, self._first, self._second, self._rank = self._tables()

    def _tables(self) -> tuple[Tensor, ...]:
        """p(symbol, w) (g, w, S); as children of a rank and at its head, (g, w, r) each."""
        g, rank, symbols = self._left.shape
        size, nonterminals = self.max_length + 1, self._root.shape[-1]
        below = self._left.new_zeros(g, size, symbols)
        first, second, top = (self._left.new_zeros(g, size, rank) for _ in range(3))
        below[:, 1:2, nonterminals:] = 1.0
        for width in range(1, size):
            if width > 1:
                top[:, width] = (first[:, 1:width] * second[:, 1:width].flip(1)).sum(1)
                node = top[:, width]
                below[:, width, :nonterminals] = (
                    node if self._head is None else (self._head @ node[..., None])[..., 0]
                )
            first[:, width] = (self._left @ below[:, width, :, None])[..., 0]
            second[:, width] = (self._right @ below[:, width, :, None])[..., 0]
        return below, first, second, top

    def tops(self) -> Tensor:
        below = self._below[self._grammar, :, : self._root.shape[-1]]
        return self._root.unsqueeze(-2) * below.reshape(*self._root.shape[:-1], *below.shape[1:])

    def children(self, item: Tensor, symbol: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        g, rank = self._grammar[item], symbol
        if self._head is not None:
            rank = choice(self._head[g, symbol] * self._rank[g, width], u[:, 3])
        words = torch.arange(self.max_length + 1, device=u.device)
        other = (width.unsqueeze(-1) - words).clamp_min(0)  # 0 words: weight 0
        split = choice(self._first[g, :, rank] * self._second[g, :, rank].gather(-1, other), u[:, 0])
        left = choice(self._left[g, rank] * self._below[g, split], u[:, 1])
        right = choice(self._right[g, rank] * self._below[g, width - split], u[:, 2])
        return split, left, right
