"""The PCFG's operators: those of every family, marginals, and choices among trees.

Operators take (root, rules, unary, spans, lengths), here ``potentials``. Derivatives are those of
:mod:`structlv.ops._family`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.ops import _pcfg_fakes as fakes
from structlv.ops._family import Family, discrete, distinct, keep, present
from structlv.ops._register import Operator
from structlv.ops._vmap import Rules

_rules = Rules(cores=((1,), (3,), (2,), (3,)), carrier=2, event=2)
FAMILY = Family("pcfg", "PCFG", count=5, required=3, fakes=fakes, rules=_rules)


def _marginals_setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.wanted = (True, inputs[5], True, inputs[6])
    keep(ctx, *inputs[:5])


def _marginals_backward(ctx: Any, *directions: Tensor | None) -> tuple:
    potentials = ctx.saved_tensors
    directions = tuple(v if wanted else None for v, wanted in zip(directions, ctx.wanted, strict=True))
    if all(v is None for v in directions):
        return (None,) * 7
    _, *gradients = FAMILY.directional(potentials, directions)
    return *present(tuple(gradients), potentials), None, None


def _marginals_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
    """One direction per item, so what is shared becomes (as a view) one per item; and spans are all there."""
    root, rules, unary, spans, lengths = ctx.saved_tensors
    batch, n, nonterminals = unary.shape[:-2], unary.shape[-2], root.shape[-1]
    tangents = tuple(FAMILY.directions(ctx.saved_tensors, tangents))
    root = root.expand(*batch, nonterminals)
    if ctx.wanted[1]:
        rules = rules.expand(*batch, *rules.shape[-3:])
    if ctx.wanted[3]:
        spans = unary.new_zeros(1) if spans is None else spans
        spans = spans.expand(*batch, n, n, nonterminals)
    moved = FAMILY.directional((root, rules, unary, spans, lengths), tangents)[1:]
    return tuple(x if wanted else x.new_empty(0) for x, wanted in zip(moved, ctx.wanted, strict=True))


MARGINALS = Operator(
    "pcfg_marginals",
    fake=fakes.parts,
    setup=_marginals_setup,
    backward=_marginals_backward,
    jvp=_marginals_jvp,
    vmap=_rules.query(5, outputs=4),
)
MAX_MARGINALS = discrete("pcfg", "max_marginals", fakes.parts, _rules.query(5, outputs=4), floats=True)
ARGMAX = discrete("pcfg", "argmax", fakes.events, _rules.query(5))
TOPK = discrete("pcfg", "topk", fakes.events, _rules.query(5, at=1))
SAMPLE = discrete("pcfg", "sample", fakes.events, _rules.query(5, at=1))
SAMPLE_DISTINCT = distinct("pcfg", fakes.events, _rules, 5)
DECODE = discrete("tree", "decode", fakes.decode, Rules(cores=((2,),), carrier=0, event=2).query(2))


def has_nan(*potentials: Any) -> bool:
    """The one operator without derivatives: its answer is no tensor."""
    return torch.ops.structlv.pcfg_has_nan.default(*potentials)
