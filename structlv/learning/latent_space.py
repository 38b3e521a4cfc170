"""Looking at a latent space: samples, interpolation, neighbours. Kim, Wiseman & Rush 2018, section 6.2.3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlv.learning.evaluate import posterior_mean


@torch.no_grad()
def prior_samples(
    model: Any, count: int, lengths: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """x (count, n) and lengths (count), z from p(z) and x from p(x | z). ``options`` go to ``generate``."""
    return model.generate(model.prior().sample((count,)), lengths, **options)


@torch.no_grad()
def posterior_samples(
    model: Any, x: Tensor, lengths: Tensor | None = None, *, count: int = 1, **options: Any
) -> list[tuple[Tensor, Tensor]]:
    """``count`` times (x' (b, n), lengths (b)), z from q(z | x) and x' from p(x' | z)."""
    q = model.encode(x, lengths)
    return [model.generate(q.sample(), lengths, **options) for _ in range(count)]


def interpolate(first: Tensor, second: Tensor, steps: int = 7) -> Tensor:
    """(steps, *shape) points at equal distances on the line between two z of one shape, both included.

    Raises ValueError for fewer than 2 steps, or z of different shapes.
    """
    if steps < 2 or first.shape != second.shape:
        raise ValueError(
            f"expected steps >= 2 and z of one shape, found {steps}, {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    share = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)
    return torch.lerp(first, second, share.reshape(-1, *[1] * first.dim()))


@torch.no_grad()
def nearest_neighbours(
    model: Any, x: Tensor, lengths: Tensor | None = None, *, count: int = 3
) -> tuple[Tensor, Tensor]:
    """For each item those whose posterior means are nearest, itself left out: (b, count) numbers, distances.

    Euclidean distance; of a transformed Gaussian between the Gaussian's means. Cost O(b^2 d). Raises
    ValueError unless there are more than ``count`` items.
    """
    if not 1 <= count < len(x):
        raise ValueError(f"expected count in 1..{len(x) - 1} for {len(x)} items, found {count}")
    means = posterior_mean(model.encode(x, lengths))
    distances = torch.cdist(means, means).fill_diagonal_(torch.inf)
    nearest = distances.topk(count, -1, largest=False)
    return nearest.indices, nearest.values
