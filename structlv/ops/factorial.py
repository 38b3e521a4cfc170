"""The factorial chain's queries: checks, the choice between kernel and reference, and half precision.

Arguments and shapes are those of :mod:`structlv.reference.factorial`. Every function raises ``ValueError``
for a wrong shape, value or device and ``TypeError`` for a wrong type or dtype; dtypes are not mixed. Half
precision (and, under autocast, everything but float64) is computed in float32; then scalars come back in
float32, marginals and gradients in the dtype of the input. Lengths are clamped to ``0..n``.

With S joint states and k_1 ... k_m states of the m chains, time O(b n S sum(k)) unless a docstring says
otherwise. The kernels are for the CPU; other devices, and installations without kernels, run the reference.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from structlv import reference
from structlv.ops._check import check_factorial, check_states, require_int
from structlv.ops._route import MAX_SEED, Route


def _prepare(sizes: tuple[int, ...], unary: Any, transition: Any, initial: Any, lengths: Any) -> Any:
    def check(unary: Any, transition: Any, initial: Any, lengths: Any) -> None:
        check_factorial(unary, transition, initial, sizes, lengths)

    return Route(check).prepare(unary, transition, initial, lengths)


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
    p = _prepare(sizes, unary, transition, initial, lengths)
    return reference.factorial.log_partition(*p.args, sizes=sizes, as_double=as_double)


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

    Edges are ``(*b, P)``, summed over steps, or with ``edges`` ``(*b, n-1, P)``; 0 in padding or if nothing is
    possible. Differentiable once; a second order raises ``NotImplementedError``.
    """
    p = _prepare(sizes, unary, transition, initial, lengths)
    return p.narrow(reference.factorial.marginals(*p.args, sizes=sizes, edges=edges))


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
    p = _prepare(sizes, unary, transition, initial, lengths)
    return reference.factorial.argmax(*p.args, sizes=sizes)


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
    p = _prepare(sizes, unary, transition, initial, lengths)
    return reference.factorial.sample(*p.args, sizes=sizes, num_samples=num_samples, seed=seed)


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
    p = _prepare(sizes, unary, transition, initial, lengths)
    check_states(states, p.args[0])
    return reference.factorial.score(states, *p.args, sizes=sizes)


def has_nan(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    sizes: tuple[int, ...],
) -> bool:
    """Whether some potential is NaN; padding is ignored. For eager mode: the answer is a Python bool."""
    p = _prepare(sizes, unary, transition, initial, lengths)
    return reference.factorial.has_nan(*p.args, sizes=sizes)


def to_chain(
    transition: Tensor, initial: Tensor | None = None, *, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """The transition ``(*b, S, S)`` and the initial scores ``(*b, S)`` of the chain on joint states."""
    return reference.factorial.to_chain(transition, initial, sizes=sizes)
