"""The factorial chain's queries: checks, the choice between kernel and reference, and half precision.

Arguments and shapes are those of :mod:`structlv.reference.factorial`. Every function raises ``ValueError``
for a wrong shape, value or device and ``TypeError`` for a wrong type or dtype; dtypes are not mixed. Half
precision (and, under autocast, everything but float64) is computed in float32; then scalars come back in
float32, marginals and gradients in the dtype of the input. Lengths are clamped to ``0..n``.

With S joint states and k_1 ... k_m states of the m chains, time O(b n S sum(k)) unless a docstring says
otherwise. On a GPU, log Z, gradients, marginals, argmax and samples have kernels where those were compiled;
other queries and devices, and installations without kernels, run the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv import reference
from structlv.ops import _factorial_ops as ops
from structlv.ops._check import check_factorial, check_sizes, check_states, require_int
from structlv.ops._register import eager, transformed
from structlv.ops._route import MAX_SEED, RETRY, SLOW, Route, mode

_tensors: dict[tuple[int, ...], Tensor] = {}


def _tensor(sizes: tuple[int, ...], unary: Tensor) -> Tensor:
    """``sizes`` as the operators take it, which in eager mode is made once."""
    check_sizes(sizes)
    if not (eager() and type(unary) is Tensor):
        return torch.tensor(sizes, device="cpu")
    if sizes not in _tensors:
        with torch.inference_mode(False):  # it is saved for backward passes
            _tensors[sizes] = torch.tensor(sizes, device="cpu")
    return _tensors[sizes]


def _route(sizes: tuple[int, ...]) -> Route:
    def check(unary: Any, transition: Any, initial: Any, _: Tensor, lengths: Any) -> None:
        check_factorial(unary, transition, initial, sizes, lengths)

    return Route(check)


def _reference(name: str, sizes: tuple[int, ...]) -> Any:
    """A function of the reference on arguments in the order of the operators."""
    function = getattr(reference.factorial, name)

    def call(*args: Any, **options: Any) -> Any:
        *scores, _, lengths = args
        return function(*scores, lengths, sizes=sizes, **options)

    return call


def log_partition(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all structures, ``(*b)`` nats; ``-inf`` if none is possible.

    Differentiable twice; a third order raises ``NotImplementedError``. With ``as_double`` the result is
    float64, as the kernel has it, whatever the dtype of the potentials.
    """
    potentials = (unary, transition, initial, _tensor(sizes, unary), lengths)
    fallback = _reference("log_partition", sizes)
    return _route(sizes).log_partition(ops.FAMILY, fallback, potentials, as_double)


def marginals(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
    edges: bool = False,
) -> tuple[Tensor, Tensor]:
    """Posterior probabilities of joint states ``(*b, n, S)`` and expected uses of each chain's edges.

    Edges are ``(*b, P)``, summed over steps, or with ``edges`` ``(*b, n-1, P)``; 0 in padding or if nothing
    is possible. Differentiable once; a second order raises ``NotImplementedError``.
    """
    potentials = (unary, transition, initial, _tensor(sizes, unary), lengths)
    route = _route(sizes)
    found = route.quick(ops.MARGINALS, potentials, edges)
    if found is not None:
        return found
    p = route.prepare(*potentials)
    if p.runs(ops.MARGINALS) and not (edges and transformed()):
        return p.narrow(ops.MARGINALS(*p.args, edges))
    return p.narrow(_reference("marginals", sizes)(*p.args, edges=edges))


def argmax(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
) -> Tensor:
    """The best structure, ``(*b, n)`` joint states, -1 in the padding, all -1 if none is possible.

    Ties go to the lowest joint state, decided from the last position to the first. Not differentiable.
    """
    potentials = (unary, transition, initial, _tensor(sizes, unary), lengths)
    return _route(sizes).choose(ops.ARGMAX, _reference("argmax", sizes), potentials)


def sample(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples ``(num_samples, *b, n)``, joint states, -1 in the padding and where nothing is possible.

    A draw is a function of (seed in [0, 2^63), item of the flattened batch, sample, position) alone. Not
    differentiable. Time O(b n S (sum(k) + num_samples)).
    """
    require_int("num_samples", num_samples, 0)
    require_int("seed", seed, 0, MAX_SEED)
    potentials = (unary, transition, initial, _tensor(sizes, unary), lengths)
    fallback = _reference("sample", sizes)
    return _route(sizes).choose(ops.SAMPLE, fallback, potentials, num_samples=num_samples, seed=seed)


def score(
    states: Tensor,
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
) -> Tensor:
    """The score of joint ``states (*s, *b, n)``: ``(*s, *b)`` float64 nats; ``-inf`` if one is not in 0..S-1.

    Linear in the potentials and differentiable to any order. Time O(s b n m).
    """
    potentials = (unary, transition, initial, _tensor(sizes, unary), lengths)
    route = _route(sizes)
    found = route.quick(ops.FAMILY.score, potentials, before=(states,))
    if found is not None:
        return found
    p = route.prepare(*potentials)
    check_states(states, p.args[0])
    return (ops.FAMILY.score if p.native else _reference("score", sizes))(states, *p.args)


def has_nan(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
) -> bool:
    """Whether some potential is NaN; padding is ignored. For eager mode: the answer is a Python bool."""
    potentials = (unary, transition, initial, _tensor(sizes, unary), lengths)
    try:
        if mode(*potentials) != SLOW:
            return ops.has_nan(*potentials)
    except RETRY:
        pass
    p = _route(sizes).prepare(*potentials)
    return ops.has_nan(*p.args) if p.native else _reference("has_nan", sizes)(*p.args)


def to_chain(
    transition: Tensor, initial: Tensor | None = None, *, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """The transition ``(*b, S, S)`` and the initial scores ``(*b, S)`` of the chain on joint states."""
    return reference.factorial.to_chain(transition, initial, sizes=sizes)
