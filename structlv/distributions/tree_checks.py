"""What the arguments of a distribution over trees must satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor

from structlv.distributions.validation import (
    broadcast_batch,
    is_eager,
    require_events,
    require_lengths,
    require_same_lengths,
)

if TYPE_CHECKING:
    from structlv.distributions.trees import TreePosterior


def check_shapes(trees: TreePosterior) -> Size:
    """The batch shape; ``ValueError`` where shapes do not fit."""
    root, unary, spans = trees.root, trees.unary, trees.spans
    if unary.dim() < 2 or unary.shape[-1] == 0:
        raise ValueError(f"unary must have shape (*b, n, T) with T >= 1, found {tuple(unary.shape)}")
    if root.dim() < 1 or root.shape[-1] == 0:
        raise ValueError(f"root must have shape (*b, NT) with NT >= 1, found {tuple(root.shape)}")
    trees._check_rule_shapes()
    if spans is not None:
        n, symbols = unary.shape[-2], root.shape[-1]
        symbols = 1 if spans.shape[-1:] == (1,) else symbols
        require_events("spans", spans, "(*b, n, n, NT) or (*b, n, n, 1)", n, n, symbols)
    return broadcast_batch(
        {
            name: value.shape[: value.dim() - trees._event_dims(name)]
            for name in trees._parameters
            if (value := getattr(trees, name)) is not None
        }
    )


def check_values(trees: TreePosterior) -> None:
    """``ValueError`` where a length is out of range or a potential that counts is NaN (eager only)."""
    if trees.lengths is not None:
        require_lengths(trees.lengths, trees.unary.shape[-2])
    if trees._operators.has_nan(*trees._args):
        raise ValueError(f"potentials must not be NaN, found NaN in {', '.join(_with_nan(trees))}")


def _with_nan(trees: TreePosterior) -> list[str]:
    """The names of the potentials that hold a NaN where it counts."""

    values: dict[str, Tensor | None] = {name: getattr(trees, name) for name in trees._parameters}
    floats = {name: x for name, x in values.items() if x is not None and x.is_floating_point()}
    zeroed = {**values, **{name: torch.zeros_like(x) for name, x in floats.items()}}
    return [
        name for name, value in floats.items() if trees._operators.has_nan(*{**zeroed, name: value}.values())
    ]


def require_same_grammar(p: TreePosterior, q: TreePosterior) -> None:
    """``ValueError`` unless both have as many symbols of each kind and, eagerly, the same lengths."""
    mine, other = ((d.num_nonterminals, d.num_preterminals) for d in (p, q))
    if mine != other:
        raise ValueError(f"both must have as many nonterminals and preterminals, found {mine} and {other}")
    if p._validate_args and is_eager(p.unary):
        require_same_lengths(p.lengths, q.lengths, p.unary.shape[-2])


def has_labels(scores: Tensor, labelled: bool | None) -> bool:
    """Whether the last dimension is labels; ``ValueError`` where the shape does not fit, or does not say."""
    shape = tuple(scores.shape)
    without = len(shape) >= 2 and shape[-1] == shape[-2]
    with_labels = len(shape) >= 3 and shape[-2] == shape[-3] and shape[-1] > 0
    if not (without or with_labels) or (labelled and not with_labels) or (labelled is False and not without):
        raise ValueError(f"span_scores must have shape (*b, n, n) or (*b, n, n, labels), found {shape}")
    if labelled is None and without and with_labels:
        raise ValueError(f"span_scores of shape {shape} may or may not have labels: say which with labelled=")
    return with_labels if labelled is None else labelled
