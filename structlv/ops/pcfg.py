"""The PCFG's queries, dense rules: checks, the choice between kernel and reference, and half precision.

Arguments, shapes and events are those of :mod:`structlv.reference.pcfg`. Every function raises ``ValueError``
for a wrong shape, value or device and ``TypeError`` for a wrong type or dtype; dtypes are not mixed. Half
precision (and, under autocast, everything but float64) is computed in float32; then scalars come back in
float32, marginals and gradients in the dtype of the input. Lengths are clamped to ``0..n``; a sentence of
fewer than two words has no tree. Time O(b n^3 S^2 + b n^2 NT S^2), S = NT + T, unless a docstring says
otherwise.

The kernels are for the CPU, some for GPUs too (log-partition, its gradient, marginals, argmax, samples;
second derivatives are formed on the CPU); what has no kernel runs the reference.
"""

from __future__ import annotations

from torch import Tensor

from structlv import reference
from structlv.ops import _pcfg_ops as ops
from structlv.ops._check import check_event, check_pcfg, check_span_scores, require_int
from structlv.ops._route import MAX_SEED, RETRY, SLOW, Route, mode

_route = Route(check_pcfg)
_decode_route = Route(check_span_scores)


def log_partition(
    root: Tensor,
    rules: Tensor,
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
    potentials = (root, rules, unary, spans, lengths)
    return _route.log_partition(ops.FAMILY, reference.pcfg.log_partition, potentials, as_double)


def marginals(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    with_rules: bool = True,
    with_spans: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Posterior expectations; 0 in padding or if nothing is possible. None for what is not asked for.

    The symbol at the top ``(*b, NT)``; how often a rule is used ``(*b, NT, S, S)``; the preterminal of a word
    ``(*b, n, T)``; whether a nonterminal covers the words i..j, i < j, ``(*b, n, n, NT)``. Differentiable
    once; a second order raises ``NotImplementedError``.
    """
    potentials = (root, rules, unary, spans, lengths)
    found = _route.quick(ops.MARGINALS, potentials, with_rules, with_spans)
    if found is None:
        p = _route.prepare(*potentials)
        if not p.runs(ops.MARGINALS):
            return p.narrow(reference.pcfg.marginals(*p.args, with_rules=with_rules, with_spans=with_spans))
        found = p.narrow(ops.MARGINALS(*p.args, with_rules, with_spans))
    top, rule, words, covers = found
    return top, rule if with_rules else None, words, covers if with_spans else None


def argmax(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The best tree, an event ``(*b, max(2n - 1, 0), 3)``, -1 in the padding, all -1 if none is possible.

    Among equals the first alternative wins: at the top by symbol, below by split, left symbol, right symbol.
    Not differentiable.
    """
    return _route.choose(ops.ARGMAX, reference.pcfg.argmax, (root, rules, unary, spans, lengths))


def max_marginals(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best score of any tree that uses a part; ``-inf`` where none does.

    A top symbol ``(*b, NT)``, a rule anywhere ``(*b, NT, S, S)``, a preterminal at a word ``(*b, n, T)``, a
    nonterminal over the words i..j, i < j, ``(*b, n, n, NT)``. Differentiating raises
    ``NotImplementedError``.
    """
    potentials = (root, rules, unary, spans, lengths)
    found = _route.quick(ops.MAX_MARGINALS, potentials)
    if found is not None:
        return found
    p = _route.prepare(*potentials)
    return p.narrow(ops.MAX_MARGINALS(*p.args) if p.native else reference.pcfg.max_marginals(*p.args))


def topk(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    k: int,
) -> Tensor:
    """The k best trees, best first: events ``(k, *b, max(2n - 1, 0), 3)``, -1 where fewer than k exist.

    Not differentiable.
    """
    require_int("k", k, 0)
    return _route.choose(ops.TOPK, reference.pcfg.topk, (root, rules, unary, spans, lengths), k=k)


def sample(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples: events ``(num_samples, *b, max(2n - 1, 0), 3)``, -1 where no tree is possible.

    A draw is a function of (seed in [0, 2^63), item of the flattened batch, sample, span) alone. Not
    differentiable.
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (root, rules, unary, spans, lengths)
    return _route.choose(ops.SAMPLE, reference.pcfg.sample, potentials, num_samples=num_samples, seed=seed)


def sample_distinct(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    k: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """``k`` different trees without replacement: ``(k, *b, m, 3)``, and their perturbed log-probabilities
    ``(k, *b)`` float64 nats, descending; -1 and ``-inf`` where there are fewer.

    Those are log p + standard Gumbel noise, the largest k over all trees. A draw is a function of (seed
    in [0, 2^63), item of the flattened batch) alone; fewer are the first of more. Not differentiable.
    Time O(NT^2 + S + n) a node of a tree, after the inside pass.
    """
    require_int("k", k, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (root, rules, unary, spans, lengths)
    return _route.choose(ops.SAMPLE_DISTINCT, reference.pcfg.sample_distinct, potentials, k=k, seed=seed)


def score(
    event: Tensor,
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The score of ``event (*s, *b, m, 3)``: ``(*s, *b)`` float64 nats; ``-inf`` if it is no tree.

    A tree has the sentence's words as leaves, preterminals there and nonterminals above, rows in pre-order.
    Linear in the potentials and differentiable to any order. Time O(s b n).
    """
    potentials = (root, rules, unary, spans, lengths)
    found = _route.quick(ops.FAMILY.score, potentials, before=(event,))
    if found is not None:
        return found
    p = _route.prepare(*potentials)
    check_event(event, p.args[2])
    return ops.FAMILY.score(event, *p.args) if p.native else reference.pcfg.score(event, *p.args)


def has_nan(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> bool:
    """Whether some potential is NaN; padding is ignored. For eager mode: the answer is a Python bool."""
    potentials = (root, rules, unary, spans, lengths)
    try:
        if mode(*potentials) != SLOW:
            return ops.has_nan(*potentials)
    except RETRY:
        pass
    p = _route.prepare(*potentials)
    return ops.has_nan(*p.args) if p.native else reference.pcfg.has_nan(*p.args)


def decode(spans: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The binary tree whose spans ``(*b, n, n)`` have the largest sum: an event in which all symbols are 0.

    Spans of one word do not count, a single word is its own tree, ties go to the lowest split; all -1 where
    every tree has a span of ``-inf``. With the marginals of spans as scores it is the tree with the most
    expected constituents (Goodman 1996, section 3). Not differentiable. Time O(b n^3).
    """
    return _decode_route.choose(ops.DECODE, reference.pcfg.decode, (spans, lengths))
