"""Structures without replacement: those of the k largest perturbed log-probabilities log p + Gumbel noise.

A structure is a sequence of choices. The largest perturbed log-probability of the structures that begin in
one way is Gumbel(phi), phi the log-probability of that beginning; given it, those of its continuations are
independent Gumbel(phi_c), given that it is their maximum. So beginnings are opened from the largest on, and
what is complete when it is opened is the next structure.

Sources: Kool, van Hoof and Welling (2019), "Stochastic beams and where to find them", section 4 and appendix
B.3; in this order of opening: the same (2020), "Ancestral Gumbel-top-k sampling for sampling without
replacement", section 3.3.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Protocol

import torch
from torch import Tensor

from structlv.reference import philox, semiring

STREAM = 5  # of Philox


class Choices(Protocol):
    """The choices that make a structure; a state is what was chosen so far."""

    start: Any

    def weigh(self, state: Any) -> Tensor | None:
        """Log-weights of the ways to go on, up to a constant; None where the structure is complete."""

    def enter(self, state: Any, choice: int) -> Any:
        """The state after a choice."""


def gumbel_top_k(choices: Choices, k: int, seed: int, item: int) -> list[tuple[Any, float]]:
    """Up to ``k`` complete states and their perturbed log-probabilities, best first.

    The noise of the e-th opening with more than one way to go on is Philox's at (child >> 2, item, e, 5),
    e = 1, 2, ...; that of the start is at e = 0. So fewer structures are the first of more.
    """
    heap: list[Any] = [(-float(_noise(seed, item, 0, 1)), 0, 0, 0.0, choices.start)]
    found: list[tuple[Any, float]] = []
    opened = draws = 0
    while heap and len(found) < k:
        minus, _, _, log_prob, state = heappop(heap)
        scores = choices.weigh(state)
        ways = [] if scores is None else (scores > -torch.inf).nonzero().flatten().tolist()
        if scores is None:
            found.append((state, -minus))
        elif ways:
            draws += len(ways) > 1
            phi = log_prob + scores - semiring.logsumexp(scores, -1)
            noise = _noise(seed, item, draws, len(scores)) if len(ways) > 1 else torch.zeros_like(phi)
            perturbed = given_maximum(phi + noise, torch.tensor(-minus, dtype=phi.dtype))
            for c in ways:
                heappush(heap, (-float(perturbed[c]), opened, c, float(phi[c]), choices.enter(state, c)))
        opened += 1
    return found


def given_maximum(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Independent Gumbel variables (*, c) moved to what they are given that their maximum is ``maximum (*)``.

    -log(exp(-maximum) - exp(-Z) + exp(-g)) with Z the maximum of g; -inf stays.
    """
    below = perturbed - perturbed.amax(-1, keepdim=True)
    below = torch.where(perturbed > -torch.inf, below, -torch.inf)
    maximum = maximum.unsqueeze(-1)
    v = maximum - perturbed + (-below.expm1()).log()
    moved = maximum - v.clamp(min=0.0) - (-v.abs()).exp().log1p()
    return torch.where(perturbed > -torch.inf, moved, -torch.inf)


def first_noise(seed: int, like: Tensor) -> Tensor:
    """The perturbed log-probability ``like (*b)`` of the best of all structures, the one of rank 0."""
    place = torch.zeros(1, dtype=torch.long, device=like.device)
    words = philox.words(seed, 1, like.numel(), place, STREAM)[0, :, 0, 0]
    return philox.to_gumbel(words).reshape(like.shape)


def _noise(seed: int, item: int, draw: int, count: int) -> Tensor:
    place = torch.arange((count + 3) // 4)
    counter = tuple(torch.full_like(place, x) for x in (item, draw, STREAM))
    bits = philox.philox((place, *counter), philox.key(seed))  # type: ignore[arg-type]
    return philox.to_gumbel(bits.flatten()[:count])


def stacked(
    found: list[list[tuple[Tensor, float]]], k: int, like: Tensor, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Events ``(k, *b, *event)`` and perturbed log-probabilities ``(k, *b)`` of items ``like (*b)``, from a
    list for each item; -1 and -inf where there are fewer than k.
    """
    wide = semiring.wide_dtype(like.device)
    events = torch.full((k, len(found), *event), -1)
    perturbed = torch.full((k, len(found)), -torch.inf, dtype=wide)
    for item, structures in enumerate(found):
        for rank, (rows, value) in enumerate(structures):
            events[rank, item, : len(rows)] = rows
            perturbed[rank, item] = value
    return (
        events.reshape(k, *like.shape, *event).to(like.device),
        perturbed.reshape(k, *like.shape).to(like.device),
    )
