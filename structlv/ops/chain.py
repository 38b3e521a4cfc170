"""The chain's queries: checks, the choice between kernel and reference, and half precision.

Arguments and shapes are those of :mod:`structlv.reference.chain`. Every function raises ``ValueError`` for a
wrong shape, value or device and ``TypeError`` for a wrong type or dtype; dtypes are not mixed. Half precision
(and, under autocast, everything but float64) is computed in float32; then scalars come back in float32,
marginals and gradients in the dtype of the input. Lengths are clamped to ``0..n``. Time O(b n k^2) unless a
docstring says otherwise.

The kernels are for the CPU, those of log_partition, marginals, argmax, sample, sample_distinct, filter and
relaxed_sample, with their derivatives, for GPUs too; whatever has none runs the reference.
"""

from __future__ import annotations

from torch import Tensor

from structlv import reference
from structlv.ops import _chain_ops as ops
from structlv.ops._check import check_chain, check_states, require_int
from structlv.ops._register import transformed
from structlv.ops._route import MAX_SEED, RAW, RECORDED, RETRY, SLOW, Route, mode

_route = Route(check_chain)


def log_partition(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all structures, ``(*b)`` nats; ``-inf`` if none is possible.

    Differentiable twice; a third order raises ``NotImplementedError``. With ``as_double`` the result is
    float64, as the kernel has it, whatever the dtype of the potentials.
    """
    try:
        found = mode(unary, transition, initial, final, lengths)
        if found == RAW:
            return ops.LOG_PARTITION.raw(unary, transition, initial, final, lengths, as_double)
        if found == RECORDED:
            return ops.INSIDE.record(unary, transition, initial, final, lengths, as_double)
    except RETRY:
        pass
    p = _route.prepare(unary, transition, initial, final, lengths)
    if not p.runs(ops.LOG_PARTITION):
        return reference.chain.log_partition(*p.args, as_double=as_double)
    if p.recorded or transformed():
        return ops.INSIDE(*p.args, as_double)[0]
    return ops.LOG_PARTITION(*p.args, as_double)


def marginals(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    edges: bool = False,
) -> tuple[Tensor, Tensor]:
    """Posterior probabilities of states ``(*b, n, k)`` and of edges; 0 in padding or if nothing is possible.

    Edges are ``(*b, n-1, k, k)`` for a per-step transition or ``edges=True``, else ``(*b, k, k)``, their sum.
    Differentiable once; a second order raises ``NotImplementedError``.
    """
    try:
        found = mode(unary, transition, initial, final, lengths)
        if found == RAW:
            return ops.MARGINALS.raw(unary, transition, initial, final, lengths, edges)
        if found == RECORDED:
            return ops.MARGINALS.record(unary, transition, initial, final, lengths, edges)
    except RETRY:
        pass
    p = _route.prepare(unary, transition, initial, final, lengths)
    if not p.runs(ops.MARGINALS):
        return p.narrow(reference.chain.marginals(*p.args, edges=edges))
    return p.narrow(ops.MARGINALS(*p.args, edges))


def state_marginals(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The first of :func:`marginals` alone, ``(*b, n, k)``: the weights of edges are not formed."""
    try:
        found = mode(unary, transition, initial, final, lengths)
        if found == RAW:
            return ops.MARGINALS.raw(unary, transition, initial, final, lengths, None)[0]
        if found == RECORDED:
            return ops.MARGINALS.record(unary, transition, initial, final, lengths, None)[0]
    except RETRY:
        pass
    p = _route.prepare(unary, transition, initial, final, lengths)
    return p.narrow(
        ops.MARGINALS(*p.args, None) if p.runs(ops.MARGINALS) else reference.chain.marginals(*p.args)
    )[0]


def argmax(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The best structure, ``(*b, n)`` states, -1 in the padding, all -1 if none is possible.

    Ties go to the lowest index, decided from the last position to the first. Not differentiable.
    """
    return _route.choose(ops.ARGMAX, reference.chain.argmax, (unary, transition, initial, final, lengths))


def max_marginals(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best score of any structure that uses a state ``(*b, n, k)`` or an edge; ``-inf`` where none does.

    Edges are ``(*b, n-1, k, k)`` for a per-step transition, else ``(*b, k, k)``, at any step. Differentiating
    raises ``NotImplementedError``.
    """
    potentials = (unary, transition, initial, final, lengths)
    try:
        found = mode(*potentials)
        if found != SLOW:
            operator = ops.MAX_MARGINALS
            return operator.raw(*potentials) if found == RAW else operator.record(*potentials)
    except RETRY:
        pass
    p = _route.prepare(*potentials)
    return p.narrow(
        ops.MAX_MARGINALS(*p.args) if p.runs(ops.MAX_MARGINALS) else reference.chain.max_marginals(*p.args)
    )


def topk(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    k: int,
) -> Tensor:
    """The k best structures, best first: ``(k, *b, n)``, -1 in the padding and where fewer than k exist.

    Not differentiable. Time O(b n S (S + k) log k) for S states, or a little more.
    """
    require_int("k", k, 0)
    return _route.choose(ops.TOPK, reference.chain.topk, (unary, transition, initial, final, lengths), k=k)


def sample(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples ``(num_samples, *b, n)``, -1 in the padding and where nothing is possible.

    A draw is a function of (seed in [0, 2^63), item of the flattened batch, sample, position) alone. Not
    differentiable. Time O(b n k^2 + num_samples b n k).
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (unary, transition, initial, final, lengths)
    return _route.choose(ops.SAMPLE, reference.chain.sample, potentials, num_samples=num_samples, seed=seed)


def sample_distinct(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    k: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """``k`` different structures without replacement: ``(k, *b, n)``, and their perturbed log-probabilities
    ``(k, *b)`` float64 nats, descending; -1 and ``-inf`` where there are fewer.

    Those are log p + standard Gumbel noise, the largest k over all structures. A draw is a function of (seed
    in [0, 2^63), item of the flattened batch) alone; fewer are the first of more. Not differentiable.
    Time O(b n S^2 + k b n S) for S states.
    """
    require_int("k", k, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (unary, transition, initial, final, lengths)
    return _route.choose(ops.SAMPLE_DISTINCT, reference.chain.sample_distinct, potentials, k=k, seed=seed)


def filter(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """``log p(z_t = i | potentials of steps <= t)``, normalised over i: ``(*b, n, k)`` nats; no ``final``.

    Rows are ``-inf`` in the padding and where no prefix is possible. Differentiable once.
    """
    try:
        found = mode(unary, transition, initial, final, lengths)
        if found == RAW:
            return ops.FILTER.raw(unary, transition, initial, final, lengths)
        if found == RECORDED:
            return ops.FILTER_INSIDE.record(unary, transition, initial, final, lengths)
    except RETRY:
        pass
    p = _route.prepare(unary, transition, initial, final, lengths)
    if p.runs(ops.FILTER) and not transformed():
        return p.narrow((ops.FILTER_INSIDE(*p.args)[0] if p.recorded else ops.FILTER(*p.args),))[0]
    return p.narrow((reference.chain.filter(*p.args),))[0]


def relaxed_sample(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    temperature: Tensor,
    num_samples: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Exact samples ``(num_samples, *b, n)`` by Gumbel noise, and what they are relaxed to, ``(..., n, k)``.

    Backwards from the end, state by state: the argmax of the perturbed log-probabilities given what follows,
    and their softmax at ``temperature (*b)``, positive. -1 and 0 in the padding and where nothing is
    possible. The noise is that of :func:`structlv.ops.noise.gumbel`. The relaxed samples are differentiable
    once, in potentials and temperature. Time O(b n k^2 + num_samples b n k).
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    args: tuple = (unary, transition, initial, final, lengths, temperature)
    found = _route.quick(ops.RELAXED, args, num_samples, seed)
    if found is not None:
        return found[1], found[0]
    p = _route.prepare(*args[:5])
    unary, transition, initial, final, lengths = p.args
    temperature = temperature.to(unary.dtype)
    if p.runs(ops.RELAXED) and not transformed():
        relaxed, states = ops.RELAXED(*p.args, temperature, num_samples, seed)[:2]
    else:
        filtered = filter(unary, transition, initial, None, lengths)
        states, relaxed = reference.chain.relaxed_sample(
            filtered, transition, final, lengths, temperature, num_samples=num_samples, seed=seed
        )
    return states, relaxed.to(p.dtype)


def pairs(states: Tensor) -> Tensor:
    """Sums over t of ``states[t, i] states[t+1, j]`` for soft states ``(*b, n, k)``: pairs of neighbours.

    ``(*b, k, k)``, differentiable to any order. Time O(b n k^2).
    """
    found = _route.quick(ops.PAIRS, (states,))
    if found is not None:
        return found
    return states[..., :-1, :].mT @ states[..., 1:, :]


def score(
    states: Tensor,
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The score of ``states (*s, *b, n)``: ``(*s, *b)`` float64 nats; ``-inf`` if one is not in 0..k-1.

    Linear in the potentials and differentiable to any order. Time O(s b n).
    """
    try:
        found = mode(unary, transition, initial, final, lengths)
        if found == RAW:
            return ops.SCORE.raw(states, unary, transition, initial, final, lengths)
        if found == RECORDED:
            return ops.SCORE.record(states, unary, transition, initial, final, lengths)
    except RETRY:
        pass
    p = _route.prepare(unary, transition, initial, final, lengths)
    check_states(states, p.args[0])
    return ops.SCORE(states, *p.args) if p.runs(ops.SCORE) else reference.chain.score(states, *p.args)


def has_nan(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> bool:
    """Whether some potential is NaN; padding is ignored. For eager mode: the answer is a Python bool."""
    potentials = (unary, transition, initial, final, lengths)
    try:
        if mode(*potentials) != SLOW:
            return ops.has_nan(*potentials)
    except RETRY:
        pass
    p = _route.prepare(*potentials)
    return ops.has_nan(*p.args) if p.native else reference.chain.has_nan(*p.args)
