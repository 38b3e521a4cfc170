"""Checkpoints that are whole or not there, and that fit the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save_atomically(value: dict[str, Any], target: Path) -> None:
    """`torch.save` beside the place, flushed to disk, renamed into it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_difference(stored: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise ValueError, naming what differs between a checkpoint's identity and that of the run."""
    different = [
        f"{name} {stored.get(name)} -> {value}" for name, value in found.items() if stored.get(name) != value
    ]
    if different:
        changed = ", ".join(different)
        raise ValueError(
            f"training cannot be resumed exactly, the checkpoint was written with other ones: {changed}"
        )
