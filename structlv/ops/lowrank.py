"""The low-rank PCFG's queries: checks, the choice between kernel and reference, and half precision.

Arguments, shapes and events are those of :mod:`structlv.reference.lowrank`. Every function raises
``ValueError`` for a wrong shape, value or device and ``TypeError`` for a wrong type or dtype; dtypes are not
mixed. Half precision (and, under autocast, everything but float64) is computed in float32; then scalars come
back in float32, marginals and gradients in the dtype of the input. Lengths are clamped to ``0..n``; a
sentence of fewer than two words has no tree. Time O(b (n^3 r + n^2 r NT + n r T)).

The kernels are for the CPU and for GPUs; other devices, and installations without kernels, run the reference.
So do second derivatives. A query that is not here has no recursion over ranks: form the dense rules and ask
:mod:`structlv.ops.pcfg`.
"""

from __future__ import annotations

from torch import Tensor

from structlv import reference
from structlv.ops import _lowrank_ops as ops
from structlv.ops._check import check_event, check_lowrank, require_int
from structlv.ops._route import MAX_SEED, RETRY, SLOW, Route, mode

_route = Route(check_lowrank)


def log_partition(
    root: Tensor,
    head: Tensor | None,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all trees, ``(*b)`` nats; ``-inf`` if none is possible.

    Differentiable twice; a third order raises ``NotImplementedError``. With ``as_double`` the result is
    float64, as the kernel has it, whatever the dtype of the potentials.
    """
    potentials = (root, head, left, right, unary, spans, lengths)
    return _route.log_partition(ops.FAMILY, reference.lowrank.log_partition, potentials, as_double)


def marginals(
    root: Tensor,
    head: Tensor | None,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    with_rules: bool = True,
    with_spans: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor | None]:
    """Posterior expectations; 0 in padding or if nothing is possible. None for an absent head, and for what
    is not asked for: rules (head, left and right), spans.

    The symbol at the top ``(*b, NT)``; how often a nonterminal takes a rank ``(*b, NT, r)``, a rank a left
    and a right symbol ``(*b, r, S)``; the preterminal of a word ``(*b, n, T)``; whether a nonterminal covers
    the words i..j, i < j, ``(*b, n, n, NT)``. Differentiable once; a second order raises
    ``NotImplementedError``.
    """
    potentials = (root, head, left, right, unary, spans, lengths)
    found = _route.quick(ops.MARGINALS, potentials, with_rules, with_spans)
    if found is None:
        p = _route.prepare(*potentials)
        if not p.runs(ops.MARGINALS):
            fallback = reference.lowrank.marginals
            return p.narrow(fallback(*p.args, with_rules=with_rules, with_spans=with_spans))
        found = p.narrow(ops.MARGINALS(*p.args, with_rules, with_spans))
    top, *rules, words, covers = found
    ranks, lefts, rights = rules if with_rules else (None, None, None)
    return top, None if head is None else ranks, lefts, rights, words, covers if with_spans else None


def sample(
    root: Tensor,
    head: Tensor | None,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples: events ``(num_samples, *b, max(2n - 1, 0), 3)``, -1 where no tree is possible.

    A draw is a function of (seed in [0, 2^63), item of the flattened batch, sample, span) alone, O(r + n +
    NT) a node after the inside pass. Not differentiable.
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (root, head, left, right, unary, spans, lengths)
    fallback = reference.lowrank.sample
    return _route.choose(ops.SAMPLE, fallback, potentials, num_samples=num_samples, seed=seed)


def score(
    event: Tensor,
    root: Tensor,
    head: Tensor | None,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The score of ``event (*s, *b, m, 3)``: ``(*s, *b)`` float64 nats; ``-inf`` if it is no tree.

    Differentiable to any order. Reads the rows of the grammar that the tree uses: time O(s b n r).
    """
    p = _route.prepare(root, head, left, right, unary, spans, lengths)
    check_event(event, p.args[4])
    return reference.lowrank.score(event, *p.args)


def to_dense(head: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """The dense rules ``(*b, NT, S, S)`` of a low-rank grammar, differentiable.

    O(NT r S^2) time, and as much memory for a gradient; O((NT + r) S^2) memory without one.
    """
    return reference.lowrank.to_dense(head, left, right)


def has_nan(
    root: Tensor,
    head: Tensor | None,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> bool:
    """Whether some potential is NaN; padding is ignored. For eager mode: the answer is a Python bool."""
    potentials = (root, head, left, right, unary, spans, lengths)
    try:
        if mode(*potentials) != SLOW:
            return ops.has_nan(*potentials)
    except RETRY:
        pass
    p = _route.prepare(*potentials)
    return ops.has_nan(*p.args) if p.native else reference.lowrank.has_nan(*p.args)
