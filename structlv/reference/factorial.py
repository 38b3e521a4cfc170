r"""The factorial chain in plain torch: several chains that meet in their scores of a step.

A structure is a sequence of joint states :math:`z_0 \dots z_{l-1}`, ``l`` the item's length, where
:math:`z_t = (z^1_t \dots z^m_t)` has a state of each of m chains, of :math:`k_1 \dots k_m` states. Its score,
in nats:

.. math:: \sum_{t<l} unary[t, z_t] + \sum_{i \le m} \Bigl( initial_i[z^i_0] + \sum_{t<l-1} transition_i[z^i_t,
          z^i_{t+1}] \Bigr).

A joint state is a number in 0..S-1, :math:`S = \prod_i k_i`, row-major: the last chain's state counts
fastest. Arguments of every function:

* ``unary (*b, n, S)``, with the full batch shape;
* ``transition (*b, P)``, :math:`P = \sum_i k_i^2`: the chains' matrices, source-first, flattened, one after
  another;
* ``initial (*b, Q)``, :math:`Q = \sum_i k_i`, or None. Batch dimensions of both broadcast;
* ``lengths (*b)`` int64 or None, clamped to ``0..n``. Padding is never read into a result, not even a NaN;
* ``sizes``, the numbers :math:`k_1 \dots k_m`.

A step moves one chain after another, :math:`a'(o, j, i) = \log \sum_k \exp(a(o, k, i) + A[k, j])`, o the
states of those that have moved and i of those that have not: time :math:`O(b n S \sum_i k_i)` in place of
:math:`O(b n S^2)`, and memory too for a gradient.

Sums are formed in float64 where the device has it and returned in the dtype of ``unary`` (scalars of
half-precision input in float32). Length 0 has one empty structure, of score 0. ``log_partition``,
``marginals`` and ``score`` are differentiable to any order.

Sources: Ghahramani and Jordan (1997), appendix B, for the step; Scott (2002), section 2.1, for samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from structlv.reference import philox, semiring
from structlv.reference._potentials import Maybe, clamped, narrow

__all__ = ["argmax", "has_nan", "log_partition", "marginals", "sample", "score", "to_chain"]

Sizes = tuple[int, ...]


class _Chains(NamedTuple):
    """Potentials with initial scores folded into ``unary`` and zeros in the padding."""

    unary: Tensor  # (*b, n, S), the dtype of the sums
    transition: Tensor  # (*b, P), zeros where an item has no step
    matrices: list[Tensor]  # (*b, k_i, k_i), its parts
    sizes: Sizes
    lengths: Tensor  # (*b)
    valid: Tensor  # (*b, n): is t < length?


def _matrices(transition: Tensor, sizes: Sizes) -> list[Tensor]:
    """The chains' ``(*b, k_i, k_i)``."""
    flat = transition.split([k * k for k in sizes], -1)
    return [x.unflatten(-1, (k, k)) for x, k in zip(flat, sizes, strict=True)]


def _joint(initial: Tensor, sizes: Sizes) -> Tensor:
    """The sum of the chains' scores ``(*b, Q)`` for each joint state: ``(*b, S)``."""
    first, *rest = initial.split(list(sizes), -1)
    for scores in rest:
        first = (first.unsqueeze(-1) + scores.unsqueeze(-2)).flatten(-2)
    return first


def _prepare(unary: Tensor, transition: Tensor, initial: Maybe, lengths: Maybe, sizes: Sizes) -> _Chains:
    n, wide = unary.shape[-2], semiring.wide_dtype(unary.device)
    lengths = clamped(lengths, unary)
    position = torch.arange(n, device=unary.device)
    valid = position < lengths[..., None]
    x = torch.where(valid[..., None], unary.to(wide), 0.0)
    if initial is not None:
        first = (valid & (position == 0))[..., None]
        x = x + torch.where(first, _joint(initial.to(wide), sizes).unsqueeze(-2), 0.0)
    edges = torch.where((lengths > 1)[..., None], transition.to(wide), 0.0)
    if n < 2:
        x = x + edges.sum()  # all zeros: an unused transition still has a gradient, of zeros
    return _Chains(x, edges, _matrices(edges, sizes), sizes, lengths, valid)


def _along(alpha: Tensor, sizes: Sizes, axis: int) -> Tensor:
    """Joint states ``(*b, S)`` as ``(*b, o, k, i)`` around the states of one chain."""
    return alpha.unflatten(-1, (math.prod(sizes[:axis]), sizes[axis], math.prod(sizes[axis + 1 :])))


def _terms(alpha: Tensor, matrix: Tensor, sizes: Sizes, axis: int) -> Tensor:
    """``alpha(o, k, i) + matrix[k, j]``, ``(*b, o, k, j, i)``: one chain moves from k to j."""
    return _along(alpha, sizes, axis).unsqueeze(-2) + matrix[..., None, :, :, None]


def _moves(alpha: Tensor, chains: _Chains, total: Callable[[Tensor, int], Tensor]) -> list[Tensor]:
    """``alpha (*b, S)``, then after each chain's move in turn; ``total`` sums over what it came from."""
    found = [alpha]
    for axis, matrix in enumerate(chains.matrices):
        found.append(total(_terms(found[-1], matrix, chains.sizes, axis), -3).flatten(-3))
    return found


def _forward(chains: _Chains, total: Callable[[Tensor, int], Tensor] = semiring.logsumexp) -> list[Tensor]:
    """``alpha[t][..., z]``: the sum over prefixes that end in z at t; carried through the padding."""
    alphas = [chains.unary[..., 0, :]]
    for t in range(1, chains.unary.shape[-2]):
        alpha = _moves(alphas[-1], chains, total)[-1] + chains.unary[..., t, :]
        alphas.append(torch.where(chains.valid[..., t, None], alpha, alphas[-1]))
    return alphas


def log_partition(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    lengths: Maybe = None,
    *,
    sizes: Sizes,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all structures, ``(*b)`` nats; ``-inf`` if none is possible."""
    chains = _prepare(unary, transition, initial, lengths, sizes)
    if unary.shape[-2] == 0:
        total = chains.unary.sum((-2, -1))
    else:
        total = torch.where(chains.lengths > 0, semiring.logsumexp(_forward(chains)[-1], -1), 0.0)
    return total if as_double else narrow(total, unary)


def marginals(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    lengths: Maybe = None,
    *,
    sizes: Sizes,
    edges: bool = False,
) -> tuple[Tensor, Tensor]:
    """Posterior probabilities of joint states ``(*b, n, S)`` and expected uses of each chain's edges.

    Edges are ``(*b, P)``, summed over steps, or with ``edges`` ``(*b, n-1, P)``; 0 in padding or if nothing
    is possible. The backward pass multiplies conditionals p(k | o, j, i) of one chain's move, so it never
    subtracts large numbers.
    """
    chains = _prepare(unary, transition, initial, lengths, sizes)
    if unary.shape[-2] == 0:
        return torch.zeros_like(unary), _stack_edges([], chains, unary, edges)
    alphas = _forward(chains)
    states, pairs = [semiring.softmax(alphas[-1], -1)], []
    for t in range(unary.shape[-2] - 2, -1, -1):
        before, counts = _back(alphas[t], chains, states[-1])
        pairs.append(torch.where(chains.valid[..., t + 1, None], counts, 0.0))
        states.append(torch.where(chains.valid[..., t + 1, None], before, states[-1]))
    stacked = torch.where(chains.valid[..., None], torch.stack(states[::-1], -2), 0.0)
    return stacked.to(unary.dtype), _stack_edges(pairs[::-1], chains, unary, edges)


def _back(alpha: Tensor, chains: _Chains, posterior: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior ``(*b, S)`` behind a step made that before it, and the edges ``(*b, P)`` between."""
    moved, counts = _moves(alpha, chains, semiring.logsumexp), []
    for axis, matrix in reversed(list(enumerate(chains.matrices))):
        given = semiring.softmax(_terms(moved[axis], matrix, chains.sizes, axis), -3)  # (*b, o, k, j, i)
        joint = given * _along(posterior, chains.sizes, axis).unsqueeze(-3)
        counts.append(joint.sum((-4, -1)).flatten(-2))
        posterior = joint.sum(-2).flatten(-3)
    return posterior, torch.cat(counts[::-1], -1)


def _stack_edges(pairs: list[Tensor], chains: _Chains, unary: Tensor, edges: bool) -> Tensor:
    *batch, n, _ = unary.shape
    if not pairs:
        return unary.new_zeros((*batch, *([max(n - 1, 0)] if edges else []), chains.transition.shape[-1]))
    return (torch.stack(pairs, -2) if edges else sum(pairs[1:], pairs[0])).to(unary.dtype)


def _detached(unary: Tensor, transition: Tensor, initial: Maybe, lengths: Maybe, sizes: Sizes) -> _Chains:
    first = None if initial is None else initial.detach()
    return _prepare(unary.detach(), transition.detach(), first, lengths, sizes)


def _into(alpha: Tensor, chains: _Chains, states: Tensor) -> Tensor:
    """``alpha (*b, S)`` plus the scores of the step into the joint ``states (*s, *b)``: ``(*s, *b, S)``."""
    weights = alpha.expand(*states.shape, alpha.shape[-1])
    own = _unravel(states, chains.sizes)
    for axis, (matrix, state) in enumerate(zip(chains.matrices, own, strict=True)):
        k = matrix.shape[-1]
        index = state[..., None, None].expand(*state.shape, k, 1)
        column = matrix.expand(*state.shape, k, k).gather(-1, index)  # (*s, *b, k, 1)
        weights = (_along(weights, chains.sizes, axis) + column.unsqueeze(-3)).flatten(-3)
    return weights


def argmax(
    unary: Tensor, transition: Tensor, initial: Maybe = None, lengths: Maybe = None, *, sizes: Sizes
) -> Tensor:
    """The best structure, ``(*b, n)`` joint states with -1 in the padding, all -1 where none is possible.

    Ties go to the lowest joint state, decided from the last position to the first.
    """
    chains = _detached(unary, transition, initial, lengths, sizes)
    if unary.shape[-2] == 0:
        return unary.new_empty(unary.shape[:-1], dtype=torch.long)
    alphas = _forward(chains, torch.amax)
    return _backward_choice(alphas, chains, lambda weights, t: weights.argmax(-1))


def _backward_choice(
    alphas: list[Tensor], chains: _Chains, choose: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """From the last position to the first ``choose(log weights (*s, *b, S), position (*b))``; -1 for none."""
    last = (chains.lengths - 1).clamp(min=0)
    states = [choose(alphas[-1], last)]
    for t in range(len(alphas) - 2, -1, -1):
        chosen = choose(_into(alphas[t], chains, states[-1]), torch.full_like(last, t))
        states.append(torch.where(chains.valid[..., t + 1], chosen, states[-1]))
    possible = chains.valid & (alphas[-1].amax(-1) > -torch.inf)[..., None]
    return torch.where(possible, torch.stack(states[::-1], -1), -1)


def sample(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    lengths: Maybe = None,
    *,
    sizes: Sizes,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples ``(num_samples, *b, n)``, joint states, -1 in the padding and where nothing is possible.

    Backward sampling: the joint state at a position is the first whose cumulative weight exceeds u times the
    total, with u from :func:`structlv.reference.philox.uniform`: it depends on (seed, item, sample, position)
    alone.
    """
    chains = _detached(unary, transition, initial, lengths, sizes)
    *batch, n, _ = unary.shape
    if n == 0 or chains.lengths.numel() == 0:
        return unary.new_full((num_samples, *batch, n), -1, dtype=torch.long)
    u = philox.uniform(seed, num_samples, chains.lengths.numel(), n, unary.dtype, unary.device)
    u = u.view(num_samples, *batch, n)

    def choose(weights: Tensor, t: Tensor) -> Tensor:
        return philox.draw(weights, u.gather(-1, t.expand(u.shape[:-1])[..., None])[..., 0])

    return _backward_choice(_forward(chains), chains, choose)


def score(
    states: Tensor,
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    lengths: Maybe = None,
    *,
    sizes: Sizes,
) -> Tensor:
    """The score of ``states (*s, *b, n)``: ``(*s, *b)`` float64 nats; ``-inf`` if one is not in 0..S-1.

    Linear in the potentials: the gradient counts how often ``states`` uses each part.
    """
    chains = _prepare(unary, transition, initial, lengths, sizes)
    joint = unary.shape[-1]
    legal = ((states >= 0) & (states < joint) | ~chains.valid).all(-1)
    z = torch.where(chains.valid, states, 0).clamp(0, joint - 1)
    nodes = chains.unary.expand(*z.shape, joint).gather(-1, z[..., None])[..., 0]
    total = torch.where(chains.valid, nodes, 0.0).sum(-1)
    for k, own, matrix in zip(sizes, _unravel(z, sizes), chains.matrices, strict=True):
        pair = own[..., :-1] * k + own[..., 1:]
        rows = matrix.flatten(-2).unsqueeze(-2).expand(*pair.shape, k * k)
        steps = rows.gather(-1, pair[..., None])[..., 0]
        total = total + torch.where(chains.valid[..., 1:], steps, 0.0).sum(-1)
    return torch.where(legal, total, -torch.inf)


def _unravel(states: Tensor, sizes: Sizes) -> list[Tensor]:
    """The state of each chain in joint ``states``."""
    inner = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    return [states // after % k for after, k in zip(inner, sizes, strict=True)]


def has_nan(
    unary: Tensor, transition: Tensor, initial: Maybe = None, lengths: Maybe = None, *, sizes: Sizes
) -> bool:
    """Is there a NaN in a potential that some structure can use? Padding is ignored."""
    chains = _detached(unary, transition, initial, lengths, sizes)
    return bool(chains.unary.isnan().any()) or (unary.shape[-2] > 1 and bool(chains.transition.isnan().any()))


def to_chain(transition: Tensor, initial: Maybe = None, *, sizes: Sizes) -> tuple[Tensor, Maybe]:
    """The transition ``(*b, S, S)`` and the initial scores ``(*b, S)`` of the chain on joint states."""
    first, *rest = _matrices(transition, sizes)
    for matrix in rest:
        pairs = first[..., :, None, :, None] + matrix[..., None, :, None, :]
        first = pairs.flatten(-2).flatten(-3, -2)
    return first, None if initial is None else _joint(initial, sizes)
