"""Trees of a grammar whose rules are a dense tensor."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from structlv.distributions import tree_events
from structlv.distributions.traces import Trace, tree_trace
from structlv.distributions.tree_parts import TreeParts
from structlv.distributions.trees import TreePosterior
from structlv.distributions.validation import require_events
from structlv.ops import pcfg
from structlv.reference.pcfg import inside_scores


class DenseTreePosterior(TreePosterior, rules=Tensor):
    """``TreePosterior`` of rules (*b, NT, S, S)."""

    _operators: ClassVar[Any] = pcfg
    _rule_dims: ClassVar[dict[str, int]] = {"rules": 3}
    rules: Tensor

    @classmethod
    def _rule_tensors(cls, rules: Any) -> dict[str, Tensor | None]:
        return {"rules": rules}

    @classmethod
    def _rules_of(cls, tensors: dict[str, Any]) -> Any:
        return tensors["rules"]

    def _check_rule_shapes(self) -> None:
        symbols = self.num_nonterminals + self.num_preterminals
        require_events("rules", self.rules, "(*b, NT, S, S)", self.num_nonterminals, symbols, symbols)

    def _rule_scores(self) -> Tensor:
        return self.rules

    def _rule_counts(self, event: Tensor) -> Tensor:
        nonterminals, symbols = self.num_nonterminals, self.num_nonterminals + self.num_preterminals
        first, second = (tree_events.symbols_at(event, rows) for rows in tree_events.children(event))
        rule = (event[..., 2] * symbols + first) * symbols + second
        counts = tree_events.counted(rule.masked_fill(second < 0, -1), nonterminals * symbols * symbols)
        return counts.unflatten(-1, (nonterminals, symbols, symbols))

    def _trace(self, event: Tensor) -> Trace:
        """The symbol at the top, and of every nonterminal where it splits and into which pair of symbols."""
        chart = inside_scores(*self._args)
        trace = tree_trace(event, chart, self.root.to(chart.dtype), self.rules.to(chart.dtype))
        above = self.num_nonterminals
        words = torch.eye(self.unary.shape[-2], dtype=torch.bool, device=chart.device).unsqueeze(-1)

        def parts(weights: list[Tensor]) -> TreeParts:
            root, rules, nodes = (x.to(self._dtype) for x in trace.parts(weights))
            leaves = nodes.diagonal(dim1=-3, dim2=-2).movedim(-1, -2)[..., above:]
            return TreeParts(root, rules, leaves, nodes[..., :above].masked_fill(words, 0.0))

        return Trace(trace.choices, parts)
