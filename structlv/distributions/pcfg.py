"""The probabilistic context-free grammar."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.distributions import constraints

from structlv.distributions.derivations import DenseDerivations, Derivations
from structlv.distributions.emissions import normalized_table
from structlv.distributions.grammar import Grammar, require_symbols
from structlv.distributions.validation import (
    broadcast_batch,
    is_eager,
    require_events,
    require_no_nan,
    uniform_floats,
)
from structlv.reference.semiring import log_normalize


class PCFG(Grammar):
    """Distribution over sentences x_1..x_n that a probabilistic context-free grammar generates.

    p(x) = sum over binary trees of p(A at the top) prod p(y z | A) prod p(x_i | preterminal): a nonterminal A
    becomes a pair of symbols y z, a preterminal a word. Symbols 0..NT-1 are nonterminals, NT..NT+T-1
    preterminals, S = NT + T; the sentence's length is part of what is generated. Logits are normalised here,
    the rules of A over all S^2 pairs; a row that is all -inf stays so. Everything is in nats.

    ``batch_shape`` is *b, ``event_shape`` that of one word, (); x is (*b, n) for any n. A grammar shared over
    a batch of sentences is never copied, and no (*b, n, v) table is made. ``log_prob`` takes O(n^3 NT^2 + n^2
    NT^3 + n NT S^2) time per sentence. Lari and Young (1990), "The estimation of stochastic context-free
    grammars using the inside-outside algorithm", section 2.

    Args:
        root_logits: (*b, NT), of the symbol at the top.
        rule_logits: (*b, NT, S, S), of A -> y z, ``[..., A, y, z]``; fewer or singleton batch dimensions
            where shared.
        emission_logits: (*b, T, v), of words 0..v-1 given the preterminal.
        validate_args: whether to check values (NaN, words, lengths); None for structlv's default (on).

    Attributes:
        root_logits, rule_logits, emission_logits: normalised log-probabilities.

    Raises:
        TypeError: an argument is not of the right kind, or float dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together, there is no symbol or no word, a logit is NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "root_logits": constraints.real_vector,
        "rule_logits": constraints.independent(constraints.real, 3),
        "emission_logits": constraints.independent(constraints.real, 2),
    }
    _parameters = ("root_logits", "rule_logits", "emission_logits")
    rule_logits: Tensor

    def __init__(
        self,
        root_logits: Tensor,
        rule_logits: Tensor,
        emission_logits: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        root, rules, emission = uniform_floats(
            root_logits=root_logits, rule_logits=rule_logits, emission_logits=emission_logits
        )
        require_symbols(root, emission)
        nonterminals, symbols = root.shape[-1], root.shape[-1] + emission.shape[-2]
        require_events("rule_logits", rules, "(*b, NT, S, S)", nonterminals, symbols, symbols)
        batch = broadcast_batch(
            {
                "root_logits": root.shape[:-1],
                "rule_logits": rules.shape[:-3],
                "emission_logits": emission.shape[:-2],
            }
        )
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and is_eager(root):
            require_no_nan(root_logits=root, rule_logits=rules, emission_logits=emission)
        self._assign(
            batch,
            root_logits=log_normalize(root),
            rule_logits=log_normalize(rules.flatten(-2)).unflatten(-1, rules.shape[-2:]),
            emission_logits=normalized_table(emission),
        )

    def _rules(self) -> Tensor:
        return self.rule_logits

    def _derivations(self, max_length: int) -> Derivations:
        return DenseDerivations(self.root_logits, self.rule_logits, max_length)

    def _event_dims(self, name: str) -> int:
        return {"root_logits": 1, "rule_logits": 3, "emission_logits": 2}[name]
