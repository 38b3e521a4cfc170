"""Random numbers: one 64-bit seed per call, and everything else a function of that seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator

_SEEDS = 2**63 - 1


def draw_seed(generator: Generator | None) -> int:
    """A seed in [0, 2^63), from ``generator`` or else from torch's default CPU generator."""
    if generator is None:
        return torch.randint(0, _SEEDS, ()).item()  # type: ignore[return-value]
    return torch.randint(0, _SEEDS, (), generator=generator, device=generator.device).item()  # type: ignore


def nth_seed(seed: int, n: int) -> int:
    """The seed of the n-th of several draws that share ``seed``: to Philox a key of its own."""
    return (seed + n) % _SEEDS


@contextmanager
def default_generator(device: torch.device, seed: int) -> Iterator[None]:
    """Within, torch's default generator of ``device`` runs from ``seed``; then it is as it was."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    else:
        generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
