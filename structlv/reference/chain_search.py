"""Choosing structures of the linear chain: Viterbi, max-marginals, k best, exact samples.

Arguments are those of :mod:`structlv.reference.chain`, which exports these functions. None is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structlv.reference import distinct, philox, semiring
from structlv.reference._potentials import Maybe, detached, forward, prepare


def argmax(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> Tensor:
    """The best structure, ``(*b, n)`` states with -1 in the padding, and all -1 where none is possible.

    Ties go to the lowest index, decided from the last position to the first.
    """
    chain = prepare(*detached(unary, transition, initial, final), lengths)
    if unary.shape[-2] == 0:
        return unary.new_empty(unary.shape[:-1], dtype=torch.long)
    alphas = forward(chain, semiring.max_vecmat)
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


def max_marginals(
    unary: Tensor, transition: Tensor, initial: Maybe = None, final: Maybe = None, lengths: Maybe = None
) -> tuple[Tensor, Tensor]:
    """The best score of any structure that uses a state ``(*b, n, k)`` or an edge; ``-inf`` where none does.

    Edges are ``(*b, n-1, k, k)`` for a per-step transition, else ``(*b, k, k)``, at any step. Detached.
    """
    chain = prepare(*detached(unary, transition, initial, final), lengths)
    *batch, n, k = unary.shape
    if n < 2:
        best = torch.where(chain.valid[..., None], chain.unary, -torch.inf)
        none = unary.new_full((*batch, *([0] if chain.per_step else []), k, k), -torch.inf)
        return best.to(unary.dtype), none
    alphas = forward(chain, semiring.max_vecmat)
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
    chain = prepare(*detached(unary, transition, initial, final), lengths)
    *batch, n, states = unary.shape
    if n == 0:
        return unary.new_empty((k, *batch, 0), dtype=torch.long)
    rank = torch.arange(k, device=unary.device)
    beam = torch.where(rank == 0, chain.unary[..., 0, :, None], -torch.inf)
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
    chain = prepare(*detached(unary, transition, initial, final), lengths)
    *batch, n, _ = unary.shape
    if n == 0 or chain.lengths.numel() == 0:
        return unary.new_full((num_samples, *batch, n), -1, dtype=torch.long)
    u = philox.uniform(seed, num_samples, chain.lengths.numel(), n, unary.dtype, unary.device)
    u = u.view(num_samples, *batch, n)
    alphas = forward(chain)
    last = (chain.lengths - 1).clamp(min=0).expand(u.shape[:-1])
    states = [philox.draw(alphas[-1], u.gather(-1, last[..., None])[..., 0])]
    for t in range(n - 2, -1, -1):
        drawn = philox.draw(alphas[t] + _column(chain.step(t), states[-1]), u[..., t])
        states.append(torch.where(chain.valid[..., t + 1], drawn, states[-1]))
    possible = chain.valid & (alphas[-1].amax(-1) > -torch.inf)[..., None]
    return torch.where(possible, torch.stack(states[::-1], -1), -1)


def sample_distinct(
    unary: Tensor,
    transition: Tensor,
    initial: Maybe = None,
    final: Maybe = None,
    lengths: Maybe = None,
    *,
    k: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """``k`` different structures ``(k, *b, n)`` without replacement, and their perturbed log-probabilities.

    The last state is chosen first, then each one's predecessor; see :mod:`structlv.reference.distinct`.
    """
    chain = prepare(*detached(unary, transition, initial, final), lengths)
    *batch, n, states = unary.shape
    items = chain.lengths.numel()
    alphas = torch.stack(forward(chain), -2) if n else chain.unary
    alphas = alphas.expand(*batch, n, states).reshape(items, n, states).cpu()
    core = chain.transition.shape[len(chain.transition.shape) - 2 - chain.per_step :]
    steps = chain.transition.expand(*batch, *core).reshape(items, *core).cpu()
    found = []
    for item, length in enumerate(chain.lengths.flatten().tolist()):
        paths = distinct.gumbel_top_k(_Path(alphas[item], steps[item], length), k, seed, item)
        found.append([(torch.tensor(states, dtype=torch.long), value) for states, value in paths])
    return distinct.stacked(found, k, chain.lengths, (n,))


class _Path:
    """Choices of a chain; a state is the tuple of the states from some step on."""

    start: tuple[int, ...] = ()

    def __init__(self, alphas: Tensor, steps: Tensor, length: int) -> None:
        self.alphas, self.steps, self.length = alphas, steps, length

    def weigh(self, path: tuple[int, ...]) -> Tensor | None:
        t = self.length - len(path) - 1
        if t < 0:
            return None
        step = self.steps[t] if path and self.steps.dim() == 3 else self.steps
        return self.alphas[t] + step[:, path[0]] if path else self.alphas[t]

    def enter(self, path: tuple[int, ...], choice: int) -> tuple[int, ...]:
        return (choice, *path)
