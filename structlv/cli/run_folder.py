"""The folder of a training run: its settings, so that only the same run is continued from its checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from structlv.cli.processes import is_first

RUN, LAST = "run.json", "last.ckpt"


def open_run(out: Path, settings: dict[str, Any]) -> bool:
    """Make the folder; True if an interrupted run of the same settings is to be continued.

    Raises ValueError if there is one with others: going on would mix two runs.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / LAST).exists():
        if is_first():
            save_json(out / RUN, settings)
        return False
    if changed := differences(out / RUN, settings):
        raise ValueError(
            f"{out} holds an interrupted run with other settings ({changed}); "
            f"repeat its command to finish it, or name another --out, or remove {out / LAST}"
        )
    return True


def close_run(out: Path) -> None:
    """The run is complete: the next one starts afresh."""
    (out / LAST).unlink(missing_ok=True)


def differences(path: Path, settings: dict[str, Any]) -> str:
    """What a file of settings has otherwise, in words; empty where there is nothing. Raises ValueError."""
    try:
        stored = dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: missing or damaged; remove what is beside it to start afresh") from error
    found = json.loads(json.dumps(settings))
    return ", ".join(f"{k}: {stored.get(k)} -> {v}" for k, v in found.items() if stored.get(k) != v)


def save_json(path: Path, value: dict[str, Any]) -> None:
    """`write_atomically` of a JSON object."""
    write_atomically(path, json.dumps(value, indent=2))


def write_atomically(path: Path, text: str) -> None:
    """Write beside the place, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
