"""The sparse PCFG's operators: those of every family, marginals, and choices among trees.

Operators take (root, scores, unary, spans, index, lengths), here ``potentials``: first what has derivatives,
which are those of :mod:`structlv.ops._family`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.ops import _sparse_fakes as fakes
from structlv.ops._family import Family, discrete, distinct, keep, present
from structlv.ops._register import Operator
from structlv.ops._vmap import Rules

_NAME, _COUNT = "sparse_pcfg", 6
_rules = Rules(cores=((1,), (1,), (2,), (3,)), carrier=2, event=2)
FAMILY = Family(_NAME, "PCFG", count=_COUNT, required=3, fakes=fakes, rules=_rules)


def _marginals_setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.with_rules, ctx.labels = inputs[_COUNT:]
    keep(ctx, *inputs[:_COUNT])


def _marginals_backward(ctx: Any, *directions: Tensor | None) -> tuple:
    potentials, wanted = ctx.saved_tensors, (True, ctx.with_rules, True, ctx.labels)
    directions = tuple(v if x else None for v, x in zip(directions, wanted, strict=True))
    if all(v is None for v in directions):
        return (None,) * (_COUNT + 2)
    _, *gradients = FAMILY.directional(potentials, directions)
    return *present(tuple(gradients), potentials), None, None


def _marginals_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
    """One direction per item, so what is shared becomes (as a view) one per item; and spans are all there."""
    root, scores, unary, spans, index, lengths = ctx.saved_tensors
    batch, n, labels = unary.shape[:-2], unary.shape[-2], ctx.labels
    tangents = tuple(FAMILY.directions(ctx.saved_tensors, tangents))
    root, scores = (x.expand(*batch, x.shape[-1]) for x in (root, scores))
    if labels and spans is not None and spans.shape[-1] != labels:
        raise NotImplementedError(
            "marginals in forward mode: spans and their marginals must both have labels, or neither"
        )
    if labels:
        spans = (unary.new_zeros(1) if spans is None else spans).expand(*batch, n, n, labels)
    moved = FAMILY.directional((root, scores, unary, spans, index, lengths), tangents)[1:]
    wanted = (True, ctx.with_rules, True, labels)
    return tuple(x if w else x.new_empty(0) for x, w in zip(moved, wanted, strict=True))


MARGINALS = Operator(
    f"{_NAME}_marginals",
    fake=fakes.parts,
    setup=_marginals_setup,
    backward=_marginals_backward,
    jvp=_marginals_jvp,
    vmap=_rules.query(_COUNT, outputs=4),
)
MAX_MARGINALS = discrete(_NAME, "max_marginals", fakes.parts, _rules.query(_COUNT, outputs=4), floats=True)
ARGMAX = discrete(_NAME, "argmax", fakes.events, _rules.query(_COUNT))
TOPK = discrete(_NAME, "topk", fakes.events, _rules.query(_COUNT, at=1))
SAMPLE = discrete(_NAME, "sample", fakes.events, _rules.query(_COUNT, at=1))
SAMPLE_DISTINCT = distinct(_NAME, fakes.events, _rules, _COUNT)


def has_nan(*potentials: Any) -> bool:
    """The one operator without derivatives: its answer is no tensor."""
    return torch.ops.structlv.sparse_pcfg_has_nan.default(*potentials)
