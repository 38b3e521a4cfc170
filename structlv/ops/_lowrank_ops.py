"""The low-rank PCFG's operators: those of every family but scores, which are not linear; marginals, samples.

Operators take (root, head, left, right, unary, spans, lengths), here ``potentials``. Derivatives are those of
:mod:`structlv.ops._family`; second order on the CPU is :func:`structlv.reference.lowrank.hvp`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.ops import _lowrank_fakes as fakes
from structlv.ops._family import Family, discrete, keep, present
from structlv.ops._register import Operator
from structlv.ops._vmap import Rules
from structlv.reference import lowrank as reference

_POTENTIALS = (
    "Tensor root, Tensor? head, Tensor left, Tensor right, Tensor unary, Tensor? spans, Tensor? lengths"
)
_HVP = (
    "(Tensor? grad, Tensor v_root, Tensor? v_head, Tensor v_left, Tensor v_right, Tensor v_unary, "
    f"Tensor? v_spans, {_POTENTIALS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_rules = Rules(cores=((1,), (2,), (2,), (2,), (2,), (3,)), carrier=4, event=2)
FAMILY = Family(
    "lowrank",
    "PCFG",
    count=7,
    required=5,
    fakes=fakes,
    rules=_rules,
    hvp=(_HVP, reference.hvp),
    linear=False,
)


def _marginals_setup(ctx: Any, inputs: tuple, output: Any) -> None:
    rules, spans = inputs[7:]
    ctx.wanted = (True, rules and inputs[1] is not None, rules, rules, True, spans)
    keep(ctx, *inputs[:7])


def _marginals_backward(ctx: Any, *directions: Tensor | None) -> tuple:
    potentials = ctx.saved_tensors
    directions = tuple(v if wanted else None for v, wanted in zip(directions, ctx.wanted, strict=True))
    if all(v is None for v in directions):
        return (None,) * 9
    _, *gradients = FAMILY.directional(potentials, directions)
    return *present(tuple(gradients), potentials), None, None


def _marginals_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
    """One direction per item, so what is shared becomes (as a view) one per item; and spans are all there."""
    root, head, left, right, unary, spans, lengths = ctx.saved_tensors
    batch, n, nonterminals = unary.shape[:-2], unary.shape[-2], root.shape[-1]
    tangents = tuple(FAMILY.directions(ctx.saved_tensors, tangents))
    tables: tuple[Any, ...] = (head, left, right)
    if ctx.wanted[2]:
        tables = tuple(None if x is None else x.expand(*batch, *x.shape[-2:]) for x in tables)
    if ctx.wanted[5]:
        spans = unary.new_zeros(1) if spans is None else spans
        spans = spans.expand(*batch, n, n, nonterminals)
    expanded = (root.expand(*batch, nonterminals), *tables, unary, spans, lengths)
    moved = FAMILY.directional(expanded, tangents)[1:]
    return tuple(x if wanted else x.new_empty(0) for x, wanted in zip(moved, ctx.wanted, strict=True))


MARGINALS = Operator(
    "lowrank_marginals",
    fake=fakes.parts,
    setup=_marginals_setup,
    backward=_marginals_backward,
    jvp=_marginals_jvp,
    vmap=_rules.query(7, outputs=6),
)
SAMPLE = discrete("lowrank", "sample", fakes.events, _rules.query(7, at=1))


def has_nan(*potentials: Any) -> bool:
    """The one operator without derivatives: its answer is no tensor."""
    return torch.ops.structlv.lowrank_has_nan.default(*potentials)
