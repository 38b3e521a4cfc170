"""Sums over rules and splits whose terms are never all in memory: formed again on the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.reference import semiring
from structlv.reference._sparse import Semiring, Sentences
from structlv.reference._trees import splits


def lean_join(s: Sentences, chart: list[Tensor], add: Semiring) -> Tensor:
    """``join`` in the log semiring: O(p r) memory, whatever the number of splits. Differentiable once."""
    scores = s.scores[..., None, s.binary].expand(*s.lengths.shape, 1, len(s.binary))
    return _Join.apply(s.rules[s.binary], scores, *chart)


class _Join(torch.autograd.Function):
    """Rules (r, 3), their scores (*b, 1, r) and a chart to the cells (*b, p, S) that are one word wider."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rules: Tensor, scores: Tensor, *chart: Tensor) -> Tensor:
        (parent, y, z), width = rules.unbind(-1), len(chart) + 1
        ways = torch.full_like(scores, -torch.inf)
        for left, right in splits(chart, width):
            ways = torch.logaddexp(ways, left[..., y] + right[..., z])
        return semiring.scatter_logsumexp(ways + scores, parent, chart[0].shape[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        rules, scores, *chart = inputs
        ctx.save_for_backward(rules, scores, output, *chart)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        rules, scores, cell, *chart = ctx.saved_tensors
        (parent, y, z), width = rules.unbind(-1), len(chart) + 1
        grad = grad[..., parent]
        above = scores - torch.where(cell == -torch.inf, 0.0, cell)[..., parent]
        of_chart, of_scores = [torch.zeros_like(x) for x in chart], torch.zeros_like(scores)
        pairs = zip(splits(chart, width), splits(of_chart, width), strict=True)
        for (left, right), (of_left, of_right) in pairs:
            share = (left[..., y] + right[..., z] + above).exp() * grad
            of_left.index_add_(-1, y, share)
            of_right.index_add_(-1, z, share)
            of_scores += share.sum(-2, keepdim=True)
        return None, of_scores, *of_chart
