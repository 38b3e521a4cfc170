r"""The linear chain in plain torch: log-partition, marginals, Viterbi, k best, samples, filtering, scores.

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

import torch
from torch import Tensor

from structlv.reference import philox, semiring
from structlv.reference._potentials import Chain, Maybe, detached, forward, narrow, prepare
from structlv.reference.chain_search import argmax, max_marginals, sample, sample_distinct, topk

__all__ = [
    "argmax",
    "filter",
    "filter_vjp",
    "has_nan",
    "log_partition",
    "marginals",
    "max_marginals",
    "relaxed_sample",
    "sample",
    "sample_distinct",
    "score",
    "topk",
]


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
    chain = prepare(unary, transition, initial, final, lengths)
    if unary.shape[-2] == 0:
        total = chain.unary.sum((-2, -1)) + chain.transition.sum()
    else:
        total = torch.where(chain.lengths > 0, semiring.logsumexp(forward(chain)[-1], -1), 0.0)
    return total if as_double else narrow(total, unary)


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
    chain = prepare(unary, transition, initial, final, lengths)
    if unary.shape[-2] == 0:
        return torch.zeros_like(unary), _stack_edges([], chain, unary, edges)
    alphas = forward(chain)
    states, pairs = [semiring.softmax(alphas[-1], -1)], []
    for t in range(unary.shape[-2] - 2, -1, -1):
        pair = semiring.softmax(alphas[t].unsqueeze(-1) + chain.step(t), -2) * states[-1].unsqueeze(-2)
        pairs.append(torch.where(chain.valid[..., t + 1, None, None], pair, 0.0))
        states.append(torch.where(chain.valid[..., t + 1, None], pair.sum(-1), states[-1]))
    stacked = torch.where(chain.valid[..., None], torch.stack(states[::-1], -2), 0.0)
    return stacked.to(unary.dtype), _stack_edges(pairs[::-1], chain, unary, edges)


def _stack_edges(pairs: list[Tensor], chain: Chain, unary: Tensor, edges: bool) -> Tensor:
    *batch, n, k = unary.shape
    per_step = edges or chain.per_step
    if not pairs:
        return unary.new_zeros((*batch, *([max(n - 1, 0)] if per_step else []), k, k))
    return (torch.stack(pairs, -3) if per_step else sum(pairs[1:], pairs[0])).to(unary.dtype)


def filter(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> Tensor:
    """``log p(z_t = i | potentials of steps <= t)``, normalised over i: ``(*b, n, k)`` nats; no ``final``.

    Rows are ``-inf`` in the padding and where no prefix is possible.
    """
    chain = prepare(unary, transition, initial, None, lengths)
    if unary.shape[-2] == 0:
        return unary.clone()
    rows = semiring.log_normalize(torch.stack(forward(chain), -2))
    return torch.where(chain.valid[..., None], rows, -torch.inf).to(unary.dtype)


def filter_vjp(
    grad: Tensor,
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
) -> tuple[Tensor, Tensor, Maybe, Maybe]:
    """The gradients of ``(grad * filter(...)).sum()``, in the potentials' shapes; None for an absent one.

    The forward recursion in reverse: a cotangent goes back along p(z_t | z_{t+1}, potentials of steps <= t).
    """
    chain = prepare(unary, transition, initial, None, lengths)
    d_final = None if final is None else torch.zeros_like(final)
    if unary.shape[-2] == 0:
        d_initial = None if initial is None else torch.zeros_like(initial)
        return torch.zeros_like(unary), torch.zeros_like(transition), d_initial, d_final
    alphas = torch.stack(forward(chain), -2)
    own = torch.where((chain.valid & (alphas.amax(-1) > -torch.inf))[..., None], grad.to(alphas.dtype), 0.0)
    own = own - semiring.softmax(alphas, -1) * own.sum(-1, keepdim=True)
    own = torch.where(alphas == -torch.inf, 0.0, own)
    states, pairs = [own[..., -1, :]], []
    for t in range(unary.shape[-2] - 2, -1, -1):
        step = semiring.softmax(alphas[..., t, :, None] + chain.step(t), -2) * states[-1].unsqueeze(-2)
        pairs.append(step)
        states.append(own[..., t, :] + step.sum(-1))
    d_unary = torch.stack(states[::-1], -2)
    d_transition = _stack_edges(pairs[::-1], chain, unary.to(alphas.dtype), False)
    d_initial = None if initial is None else d_unary[..., 0, :].sum_to_size(initial.shape).to(initial.dtype)
    return (
        d_unary.to(unary.dtype),
        d_transition.sum_to_size(transition.shape).to(unary.dtype),
        d_initial,
        d_final,
    )


def relaxed_sample(
    filtered: Tensor,
    transition: Tensor,
    final: Maybe,
    lengths: Maybe,
    temperature: Tensor,
    *,
    num_samples: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Backward sampling from ``filtered`` log-probabilities with Gumbel noise: ``(num_samples, *b, n)``
    states by argmax, and ``(..., n, k)`` softmax at ``temperature (*b)``. Fu et al. (2020), section 3.
    """
    chain = prepare(filtered, transition, None, final, lengths)
    *batch, n, k = filtered.shape
    noise = philox.gumbel(filtered.detach(), 2, num_samples, seed)
    perturbed = chain.unary + noise
    states, rows = [], []
    following = torch.full((num_samples, *batch), -1, device=filtered.device)
    for t in range(n - 1, -1, -1):
        y = perturbed[..., t, :]
        if t < n - 1:
            step = chain.step(t).expand(*following.shape, k, k)
            column = following.clamp(min=0)[..., None, None].expand(*following.shape, k, 1)
            inside = (following >= 0)[..., None]
            y = y + torch.where(inside, step.gather(-1, column)[..., 0], 0.0)
            ended = chain.valid[..., t + 1] & (following < 0)  # nothing is possible further on
            y = y.masked_fill(ended[..., None], -torch.inf)
        possible = chain.valid[..., t] & (y.detach().amax(-1) > -torch.inf)
        following = torch.where(possible, y.argmax(-1), -1)
        some = y > -torch.inf
        cooled = torch.where(some, torch.where(some, y, 0.0) / temperature[..., None], -torch.inf)
        soft = semiring.softmax(cooled, -1)
        rows.append(torch.where(possible[..., None], soft, 0.0))
        states.append(following)
    if n == 0:
        return following.new_zeros((num_samples, *batch, 0)), noise
    return torch.stack(states[::-1], -1), torch.stack(rows[::-1], -2).to(filtered.dtype)


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
    chain = prepare(unary, transition, initial, final, lengths)
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
    chain = prepare(*detached(unary, transition, initial, final), lengths)
    return bool(chain.unary.isnan().any()) or (unary.shape[-2] > 1 and bool(chain.transition.isnan().any()))
