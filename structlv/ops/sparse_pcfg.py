"""The sparse PCFG's queries: checks, the choice between kernel and reference, and half precision.

Arguments, shapes and events are those of :mod:`structlv.reference.sparse_pcfg`. Every function raises
``ValueError`` for a wrong shape, value or device and ``TypeError`` for a wrong type or dtype; dtypes are not
mixed. Half precision (and, under autocast, everything but float64) is computed in float32; then scalars come
back in float32, marginals and gradients in the dtype of the input. Lengths are clamped to ``0..n``; an empty
sentence has no tree.

Time O(b n^3 r) at worst: only symbols that are possible on a span are visited, and rules through them. A
chart takes 12 bytes for every possible symbol of every span, of one sentence at a time for each thread.

``depth``, where it is an argument, is the number of unary rules in the longest chain of them; it is found
out where it is not given. The kernels are for the CPU; other devices, and installations without kernels, run
the reference.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from structlv import reference
from structlv.ops import _sparse_ops as ops
from structlv.ops._check import check_index, check_rows, check_sparse_pcfg, require_int, require_tensor
from structlv.ops._register import eager
from structlv.ops._route import MAX_SEED, RETRY, SLOW, Route, mode


class SparseRules:
    """The rules of a grammar as a list, for grammars of thousands of symbols, with unary rules.

    Attributes:
        index: (r, 3) int64, rows (A, y, z) for A -> y z, each once; z = -1 for the unary rule A -> y. Symbols
            are numbered as elsewhere: 0..NT-1 nonterminals, then preterminals. Unary rules have no cycle.
        scores: (*b, r) the scores of the rules, in nats; fewer or singleton batch dimensions where shared.
        depth: the number of unary rules in the longest chain of them.

    The values of the index are looked at once, here, unless ``depth`` says what would be found: make the
    rules outside of compiled functions.

    Raises:
        TypeError: a tensor is missing or of the wrong dtype.
        ValueError: a wrong shape, a negative symbol, a rule that is listed twice, a cycle of unary rules.
    """

    def __init__(self, index: Tensor, scores: Tensor, *, depth: int | None = None) -> None:
        require_tensor("scores", scores)
        if not scores.is_floating_point():
            raise TypeError(f"scores: expected a floating-point dtype, found {scores.dtype}")
        check_index(index, scores)
        if scores.dim() < 1 or scores.shape[-1] != index.shape[0]:
            raise ValueError(
                f"scores: expected (*b, r) with r = {index.shape[0]}, found {tuple(scores.shape)}"
            )
        self.index, self.scores = index, scores
        self.depth = _checked_depth(index) if depth is None else depth

    def __repr__(self) -> str:
        rules, scores = self.index.shape[0], tuple(self.scores.shape)
        return f"SparseRules({rules} rules, scores: {scores}, depth={self.depth})"


def _checked_depth(index: Tensor) -> int:
    if bool((index < index.new_tensor([0, 0, -1])).any()):
        raise ValueError("index: expected symbols of 0 or more (and -1 as the second child of a unary rule)")
    if len(index.unique(dim=0)) < len(index):
        raise ValueError("index: expected every rule once, found one twice")
    return reference.sparse_pcfg.depth(index)


def _check(
    root: Tensor, scores: Tensor, unary: Tensor, spans: Tensor | None, index: Tensor, lengths: Tensor | None
) -> None:
    check_sparse_pcfg(root, scores, unary, spans, index, lengths)
    if eager() and type(index) is Tensor and not index.is_meta:
        check_symbols(index, root.shape[-1], unary.shape[-1])
        reference.sparse_pcfg.depth(index)


def check_symbols(index: Tensor, nonterminals: int, preterminals: int) -> None:
    """Raise ``ValueError`` unless every symbol of the rules exists and every parent is a nonterminal."""
    symbols = nonterminals + preterminals
    top = index.new_tensor([nonterminals, symbols, symbols])
    if bool(((index >= top) | (index < index.new_tensor([0, 0, -1]))).any()):
        raise ValueError(
            f"index: expected parents in 0..{nonterminals - 1} and children in 0..{symbols - 1} (or -1 as "
            "the second one of a unary rule), found another"
        )


_route = Route(_check)


def _reference(name: str) -> Any:
    """A function of the reference on potentials in the order of the operators."""
    function = getattr(reference.sparse_pcfg, name)

    def call(root: Any, scores: Any, unary: Any, spans: Any, index: Any, lengths: Any, **options: Any) -> Any:
        options.pop("depth", None)
        return function(root, index, scores, unary, spans, lengths, **options)

    return call


def log_partition(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
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
    potentials = (root, scores, unary, spans, index, lengths)
    return _route.log_partition(ops.FAMILY, _reference("log_partition"), potentials, as_double)


def marginals(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    with_rules: bool = True,
    with_spans: bool = True,
    labelled: bool | None = None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Posterior expectations; 0 in padding or if nothing is possible. None for what is not asked for.

    The symbol at the top ``(*b, NT)``; how often a rule is used ``(*b, r)``; the preterminal of a word
    ``(*b, n, T)``; whether the words i..j, i < j, are a constituent ``(*b, n, n, 1)``, or with ``labelled``,
    which is the default where ``spans`` have labels, whether a nonterminal covers them ``(*b, n, n, NT)``.
    Differentiable once; a second order raises ``NotImplementedError``.
    """
    potentials = (root, scores, unary, spans, index, lengths)
    labels = _labels(root, spans, labelled) if with_spans else 0
    found = _route.quick(ops.MARGINALS, potentials, with_rules, labels)
    if found is None:
        p = _route.prepare(*potentials)
        if not p.native:
            return p.narrow(_reference("marginals")(*p.args, with_rules=with_rules, labels=labels))
        found = p.narrow(ops.MARGINALS(*p.args, with_rules, labels))
    top, rule, words, covers = found
    return top, rule if with_rules else None, words, covers if labels else None


def _labels(root: Tensor, spans: Tensor | None, labelled: bool | None) -> int:
    """How many labels the marginals of spans have."""
    if labelled is None:
        labelled = isinstance(spans, Tensor) and spans.dim() > 0 and spans.shape[-1] > 1
    require_tensor("root", root)
    return root.shape[-1] if labelled and root.dim() else 1


def argmax(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    depth: int | None = None,
) -> Tensor:
    """The best tree, an event ``(*b, m, 3)``, -1 behind it, all -1 if none is possible.

    Among equals the first way wins: at the top by symbol; below, binary rules by split, left symbol, right
    symbol, then unary rules by symbol. Not differentiable.
    """
    return _choose(ops.ARGMAX, "argmax", (root, scores, unary, spans, index, lengths), depth)


def _choose(operator: Any, name: str, potentials: tuple, depth: int | None, **options: int) -> Any:
    if depth is None:
        index = potentials[4]
        check_index(index, potentials[2])
        depth = reference.sparse_pcfg.depth(index)
    return _route.choose(operator, _reference(name), potentials, **options, depth=depth)


def max_marginals(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    labelled: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best score of any tree that uses a part; ``-inf`` where none does. Parts as those of ``marginals``.

    Differentiating raises ``NotImplementedError``.
    """
    potentials = (root, scores, unary, spans, index, lengths)
    labels = _labels(root, spans, labelled)
    found = _route.quick(ops.MAX_MARGINALS, potentials, labels)
    if found is not None:
        return found
    p = _route.prepare(*potentials)
    if p.native:
        return p.narrow(ops.MAX_MARGINALS(*p.args, labels))
    return p.narrow(_reference("max_marginals")(*p.args, labels=labels))


def topk(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    k: int,
    depth: int | None = None,
) -> Tensor:
    """The k best trees, best first: events ``(k, *b, m, 3)``, -1 where fewer than k exist.

    Each node's list is made as far as it is asked for. Not differentiable.
    """
    require_int("k", k, 0)
    return _choose(ops.TOPK, "topk", (root, scores, unary, spans, index, lengths), depth, k=k)


def sample(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    num_samples: int,
    seed: int,
    depth: int | None = None,
) -> Tensor:
    """Exact samples: events ``(num_samples, *b, m, 3)``, -1 where no tree is possible.

    A draw is a function of (seed in [0, 2^63), item of the flattened batch, sample, span, place in a chain of
    unary rules) alone. Not differentiable.
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (root, scores, unary, spans, index, lengths)
    return _choose(ops.SAMPLE, "sample", potentials, depth, num_samples=num_samples, seed=seed)


def sample_distinct(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    k: int,
    seed: int,
    depth: int | None = None,
) -> tuple[Tensor, Tensor]:
    """``k`` different trees without replacement: ``(k, *b, m, 3)``, and their perturbed log-probabilities
    ``(k, *b)`` float64 nats, descending; -1 and ``-inf`` where there are fewer.

    Those are log p + standard Gumbel noise, the largest k over all trees. A draw is a function of (seed
    in [0, 2^63), item of the flattened batch) alone; fewer are the first of more. Not differentiable.
    Nodes are unfolded where they are met.
    """
    require_int("k", k, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (root, scores, unary, spans, index, lengths)
    return _choose(ops.SAMPLE_DISTINCT, "sample_distinct", potentials, depth, k=k, seed=seed)


def score(
    event: Tensor,
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The score of ``event (*s, *b, m, 3)``: ``(*s, *b)`` float64 nats; ``-inf`` if it is no tree.

    Rows behind the tree are not looked at. Linear in the potentials and differentiable to any order. Time
    O(s b n log r).
    """
    potentials = (root, scores, unary, spans, index, lengths)
    found = _route.quick(ops.FAMILY.score, potentials, before=(event,))
    if found is not None:
        return found
    p = _route.prepare(*potentials)
    check_rows(event, p.args[2])
    return ops.FAMILY.score(event, *p.args) if p.native else _reference_score(event, *p.args)


def _reference_score(
    event: Tensor, root: Any, scores: Any, unary: Any, spans: Any, index: Any, lengths: Any
) -> Tensor:
    return reference.sparse_pcfg.score(event, root, index, scores, unary, spans, lengths)


def has_nan(
    root: Tensor,
    index: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> bool:
    """Whether some potential is NaN; padding is ignored. For eager mode: the answer is a Python bool."""
    potentials = (root, scores, unary, spans, index, lengths)
    try:
        if mode(*potentials) != SLOW:
            return ops.has_nan(*potentials)
    except RETRY:
        pass
    p = _route.prepare(*potentials)
    return ops.has_nan(*p.args) if p.native else _reference("has_nan")(*p.args)
