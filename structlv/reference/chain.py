r"""The linear chain in plain torch: log-partition, marginals, Viterbi, k best, sampling, filtering, scores.

A structure is a sequence of states :math:`z_0 \dots z_{l-1}`, ``l`` the item's length. Its score, in nats:

.. math:: \sum_{t<l} unary[t, z_t] + \sum_{t<l-1} transition[t, z_t, z_{t+1}] + initial[z_0] + final[z_{l-1}].

Arguments of every function:

* ``unary (*b, n, k)``, with the full batch shape;
* ``transition (*b, k, k)`` for all steps, or ``(*b, n-1, k, k)`` per step: per step exactly when it has one
  dimension more than ``unary``. Edges are source-first. Its batch dimensions broadcast;
* ``initial (*b, k)`` and ``final (*b, k)`` or None, whose batch dimensions broadcast;
* ``lengths (*b)`` int64 or None, clamped to ``0..n``. Padding is never read into a result, not even a NaN.

Sums are formed in float64 where the device has it and returned in the dtype of ``unary`` (scalars of
half-precision input in float32). Length 0 has one empty structure, of score 0. Everything but the integer
results and ``max_marginals`` is differentiable to any order. Time O(b n k^2), memory too for a gradient.

Sources: Rabiner (1989), sections III.A-C, for the recursions; Scott (2002), section 2.1, for backward
sampling; Huang and Chiang (2005), algorithm 1, for k best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from structlv.reference import philox, semiring

Maybe: TypeAlias = Tensor | None
_Potentials: TypeAlias = tuple[Tensor, Tensor, Maybe, Maybe]
_HALF = (torch.float16, torch.bfloat16)


class _Chain(NamedTuple):
    """Potentials with initial and final scores folded into ``unary`` and zeros in the padding."""

    unary: Tensor  # (*b, n, k), the dtype of the sums
    transition: Tensor  # (*b, k, k), or (*b, n-1, k, k) when per_step
    lengths: Tensor  # (*b)
    valid: Tensor  # (*b, n): is t < length?
    per_step: bool

    def step(self, t: int) -> Tensor:
        """The matrix of the step from t to t + 1."""
        return self.transition[..., t, :, :] if self.per_step else self.transition


def _prepare(unary: Tensor, transition: Tensor, initial: Maybe, final: Maybe, lengths: Maybe) -> _Chain:
    batch, n = unary.shape[:-2], unary.shape[-2]
    wide, per_step = semiring.wide_dtype(unary.device), transition.dim() == unary.dim() + 1
    full = torch.full(batch, n, device=unary.device)
    lengths = full if lengths is None else torch.minimum(lengths.clamp(min=0), full)
    position = torch.arange(n, device=unary.device)
    left = lengths[..., None] - position  # how many positions are left, this one included
    x = torch.where((left > 0)[..., None], unary.to(wide), 0.0)
    for scores, here in ((initial, (left > 0) & (position == 0)), (final, left == 1)):
        if scores is not None:
            x = x + torch.where(here[..., None], scores.to(wide)[..., None, :], 0.0)
    used = (left[..., :-1] > 1) if per_step else (lengths > 1)
    edges = torch.where(used[..., None, None], transition.to(wide), 0.0)
    if n < 2:
        x = x + edges.sum()  # all zeros: an unused transition still has a gradient, of zeros
    return _Chain(x, edges, lengths, left > 0, per_step)


def _narrow(x: Tensor, like: Tensor) -> Tensor:
    return x.to(torch.float32 if like.dtype in _HALF else like.dtype)


def _forward(
    chain: _Chain, product: Callable[[Tensor, Tensor], Tensor] = semiring.log_vecmat
) -> list[Tensor]:
    """``alpha[t][..., j]``: the sum over prefixes that end in state j at t; carried through the padding."""
    alphas = [chain.unary[..., 0, :]]
    for t in range(1, chain.unary.shape[-2]):
        alpha = product(alphas[-1], chain.step(t - 1)) + chain.unary[..., t, :]
        alphas.append(torch.where(chain.valid[..., t, None], alpha, alphas[-1]))
    return alphas


def log_partition(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
    *,
    as_double: bool = False,
) -> Tensor:
    """The log of the sum of exp(score) over all structures, ``(*b)`` nats; ``-inf`` if none is possible."""
    chain = _prepare(unary, transition, initial, final, lengths)
    if unary.shape[-2] == 0:
        total = chain.unary.sum((-2, -1)) + chain.transition.sum()
    else:
        total = torch.where(chain.lengths > 0, semiring.logsumexp(_forward(chain)[-1], -1), 0.0)
    return total if as_double else _narrow(total, unary)


def marginals(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
    *,
    edges: bool = False,
) -> tuple[Tensor, Tensor]:
    """Posterior probabilities of states ``(*b, n, k)`` and of edges; 0 in padding or if nothing is possible.

    Edges are ``(*b, n-1, k, k)`` for a per-step transition or ``edges=True``, else ``(*b, k, k)``, their sum.
    The backward pass multiplies conditionals p(z_t | z_{t+1}, x_0..t), so it never subtracts large numbers.
    """
    chain = _prepare(unary, transition, initial, final, lengths)
    if unary.shape[-2] == 0:
        return torch.zeros_like(unary), _stack_edges([], chain, unary, edges)
    alphas = _forward(chain)
    states, pairs = [semiring.softmax(alphas[-1], -1)], []
    for t in range(unary.shape[-2] - 2, -1, -1):
        pair = semiring.softmax(alphas[t].unsqueeze(-1) + chain.step(t), -2) * states[-1].unsqueeze(-2)
        pairs.append(torch.where(chain.valid[..., t + 1, None, None], pair, 0.0))
        states.append(torch.where(chain.valid[..., t + 1, None], pair.sum(-1), states[-1]))
    stacked = torch.where(chain.valid[..., None], torch.stack(states[::-1], -2), 0.0)
    return stacked.to(unary.dtype), _stack_edges(pairs[::-1], chain, unary, edges)


def _stack_edges(pairs: list[Tensor], chain: _Chain, unary: Tensor, edges: bool) -> Tensor:
    *batch, n, k = unary.shape
    per_step = edges or chain.per_step
    if not pairs:
        return unary.new_zeros((*batch, *([max(n - 1, 0)] if per_step else []), k, k))
    return (torch.stack(pairs, -3) if per_step else sum(pairs[1:], pairs[0])).to(unary.dtype)


def argmax(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> Tensor:
    """The best structure, ``(*b, n)`` states with -1 in the padding, and all -1 where none is possible.

    Ties go to the lowest index, decided from the last position to the first.
    """
    chain = _prepare(*_detached(unary, transition, initial, final), lengths)
    if unary.shape[-2] == 0:
        return unary.new_empty(unary.shape[:-1], dtype=torch.long)
    alphas = _forward(chain, semiring.max_vecmat)
    states = [alphas[-1].argmax(-1)]
    for t in range(unary.shape[-2] - 2, -1, -1):
        best = (alphas[t] + _column(chain.step(t), states[-1])).argmax(-1)
        states.append(torch.where(chain.valid[..., t + 1], best, states[-1]))
    possible = chain.valid & (alphas[-1].amax(-1) > -torch.inf)[..., None]
    return torch.where(possible, torch.stack(states[::-1], -1), -1)


def _column(matrix: Tensor, j: Tensor) -> Tensor:
    """Column ``j (*s, *b)`` of ``matrix (*b, k, k)``: ``(*s, *b, k)``."""
    index = j[..., None, None].expand(*j.shape, matrix.shape[-1], 1)
    return matrix.expand(*j.shape, *matrix.shape[-2:]).gather(-1, index).squeeze(-1)


def _detached(unary: Tensor, transition: Tensor, initial: Maybe, final: Maybe) -> _Potentials:
    ends = [None if x is None else x.detach() for x in (initial, final)]
    return unary.detach(), transition.detach(), ends[0], ends[1]


def max_marginals(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> tuple[Tensor, Tensor]:
    """The best score of any structure that uses a state ``(*b, n, k)`` or an edge; ``-inf`` where none does.

    Edges are ``(*b, n-1, k, k)`` for a per-step transition, else ``(*b, k, k)``, at any step. Detached.
    """
    chain = _prepare(*_detached(unary, transition, initial, final), lengths)
    *batch, n, k = unary.shape
    if n < 2:
        best = torch.where(chain.valid[..., None], chain.unary, -torch.inf)
        none = unary.new_full((*batch, *([0] if chain.per_step else []), k, k), -torch.inf)
        return best.to(unary.dtype), none
    alphas = _forward(chain, semiring.max_vecmat)
    beta, states, pairs = torch.zeros_like(alphas[-1]), [alphas[-1]], []
    for t in range(n - 2, -1, -1):
        onward = chain.step(t) + (chain.unary[..., t + 1, :] + beta).unsqueeze(-2)
        active = chain.valid[..., t + 1, None]
        pairs.append(torch.where(active[..., None], alphas[t].unsqueeze(-1) + onward, -torch.inf))
        beta = torch.where(active, onward.amax(-1), beta)
        states.append(alphas[t] + beta)
    best = torch.where(chain.valid[..., None], torch.stack(states[::-1], -2), -torch.inf)
    edge = torch.stack(pairs[::-1], -3)
    return best.to(unary.dtype), (edge if chain.per_step else edge.amax(-3)).to(unary.dtype)


def topk(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
    *,
    k: int,
) -> Tensor:
    """The k best structures, best first: ``(k, *b, n)``, -1 in the padding and where fewer than k exist.

    Every state keeps its k best prefixes, and each step points back into them: time O(b n S^2 k log(S k)) for
    S states.
    """
    chain = _prepare(*_detached(unary, transition, initial, final), lengths)
    *batch, n, states = unary.shape
    if n == 0:
        return unary.new_empty((k, *batch, 0), dtype=torch.long)
    beam = torch.full((*batch, states, k), -torch.inf, dtype=chain.unary.dtype, device=unary.device)
    beam[..., 0] = chain.unary[..., 0, :]
    stay = torch.arange(states * k, device=unary.device).view(states, k)
    pointers = []
    for t in range(1, n):
        scores = beam.unsqueeze(-1) + chain.step(t - 1).unsqueeze(-2)  # from state, rank, to state
        scores, back = scores.flatten(-3, -2).transpose(-1, -2).sort(dim=-1, descending=True, stable=True)
        scores = scores[..., :k] + chain.unary[..., t, :, None]
        active = chain.valid[..., t, None, None]
        beam = torch.where(active, scores, beam)
        pointers.append(torch.where(active, back[..., :k], stay))
    return _trace(beam, pointers, chain.valid)


def _trace(beam: Tensor, pointers: list[Tensor], valid: Tensor) -> Tensor:
    k = beam.shape[-1]
    scores, slot = beam.flatten(-2).sort(dim=-1, descending=True, stable=True)
    scores, slot = scores[..., :k], slot[..., :k]
    slots = [slot]
    for back in reversed(pointers):
        slots.append(back.flatten(-2).gather(-1, slots[-1]))
    states = torch.stack(slots[::-1], -1) // k  # (*b, k, n)
    states = torch.where(valid.unsqueeze(-2) & (scores > -torch.inf)[..., None], states, -1)
    return states.movedim(-2, 0)


def sample(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
    *,
    num_samples: int,
    seed: int,
) -> Tensor:
    """Exact samples ``(num_samples, *b, n)``, -1 in the padding and where nothing is possible.

    Backward sampling: the state at a position is the first whose cumulative weight exceeds u times the total,
    with u from :func:`structlv.reference.philox.uniform`: it depends on (seed, item, sample, position) alone.
    """
    chain = _prepare(*_detached(unary, transition, initial, final), lengths)
    *batch, n, _ = unary.shape
    if n == 0 or chain.lengths.numel() == 0:
        return unary.new_full((num_samples, *batch, n), -1, dtype=torch.long)
    u = philox.uniform(seed, num_samples, chain.lengths.numel(), n, unary.dtype, unary.device)
    u = u.view(num_samples, *batch, n)
    alphas = _forward(chain)
    last = (chain.lengths - 1).clamp(min=0).expand(u.shape[:-1])
    states = [_draw(alphas[-1], u.gather(-1, last[..., None])[..., 0])]
    for t in range(n - 2, -1, -1):
        drawn = _draw(alphas[t] + _column(chain.step(t), states[-1]), u[..., t])
        states.append(torch.where(chain.valid[..., t + 1], drawn, states[-1]))
    possible = chain.valid & (alphas[-1].amax(-1) > -torch.inf)[..., None]
    return torch.where(possible, torch.stack(states[::-1], -1), -1)


def _draw(log_weights: Tensor, u: Tensor) -> Tensor:
    """The first index whose cumulative weight exceeds ``u`` times the total (0 where there is no weight)."""
    cumulative = semiring.softmax(log_weights, -1).cumsum(-1)
    above = cumulative > u[..., None] * cumulative[..., -1:]
    return above.to(torch.uint8).argmax(-1)


def filter(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> Tensor:
    """``log p(z_t = i | potentials of steps <= t)``, normalised over i: ``(*b, n, k)`` nats; no ``final``.

    Rows are ``-inf`` in the padding and where no prefix is possible.
    """
    chain = _prepare(unary, transition, initial, None, lengths)
    if unary.shape[-2] == 0:
        return unary.clone()
    rows = semiring.log_normalize(torch.stack(_forward(chain), -2))
    return torch.where(chain.valid[..., None], rows, -torch.inf).to(unary.dtype)


def score(
    states: Tensor,
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
) -> Tensor:
    """The score of ``states (*s, *b, n)``: ``(*s, *b)`` float64 nats; ``-inf`` if one is not in 0..k-1.

    Linear in the potentials: the gradient counts how often ``states`` uses each part.
    """
    chain = _prepare(unary, transition, initial, final, lengths)
    k = unary.shape[-1]
    legal = ((states >= 0) & (states < k) | ~chain.valid).all(-1)
    z = torch.where(chain.valid, states, 0).clamp(0, k - 1)
    nodes = chain.unary.expand(*z.shape, k).gather(-1, z[..., None])[..., 0]
    total = torch.where(chain.valid, nodes, 0.0).sum(-1)
    if unary.shape[-2] > 1:
        pair = z[..., :-1] * k + z[..., 1:]
        matrix = chain.transition.flatten(-2)
        matrix = matrix if chain.per_step else matrix.unsqueeze(-2)
        steps = matrix.expand(*pair.shape, k * k).gather(-1, pair[..., None])[..., 0]
        total = total + torch.where(chain.valid[..., 1:], steps, 0.0).sum(-1)
    return torch.where(legal, total, -torch.inf)


def has_nan(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> bool:
    """Is there a NaN in a potential that some structure can use? Padding is ignored."""
    chain = _prepare(*_detached(unary, transition, initial, final), lengths)
    return bool(chain.unary.isnan().any()) or (unary.shape[-2] > 1 and bool(chain.transition.isnan().any()))
