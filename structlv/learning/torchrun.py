"""The processes that torchrun has started, if it has."""

from __future__ import annotations

import os
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous


def processes() -> dict[str, int]:
    """Their number as pl.Trainer counts them; one without torchrun."""
    if not dist.is_torchelastic_launched():
        return {"devices": 1, "num_nodes": 1}
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": here, "num_nodes": everywhere // here}


def join(backend: str, timeout: timedelta) -> None:
    """Form their group, under keys of this attempt.

    torchrun (2.13) keeps its store when it starts processes anew; without keys of its own an attempt may find
    the addresses of the processes that died, and fails to connect. Lightning takes a group that is there.
    """
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        store, rank, world_size = next(rendezvous("env://", timeout=timeout))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            backend,
            store=PrefixStore(f"attempt_{attempt}", store),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
