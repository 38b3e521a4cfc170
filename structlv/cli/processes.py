"""Several processes, started by torchrun, train one model: the first of them speaks and writes."""

from __future__ import annotations

import os

import torch.distributed as dist
from rich.console import Console


def is_first() -> bool:
    """True in one process of those that torchrun has started, and without it."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


def console() -> Console:
    """A console that is silent in all processes but the first."""
    return Console(quiet=not is_first())


def only_the_first_goes_on() -> bool:
    """After a training: this process leaves the others; False where its work is done."""
    if dist.is_initialized():
        dist.destroy_process_group()
    return is_first()
