"""The folder of a training run: its settings, so that only the same run is continued from its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RUN, LAST = "run.json", "last.ckpt"


def open_run(out: Path, settings: dict[str, Any]) -> bool:
    """Make the folder; True if an interrupted run of the same settings is to be continued.

    Raises ValueError if there is one with others: going on would mix two runs.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / LAST).exists():
        save_json(out / RUN, settings)
        return False
    stored, found = _stored_settings(out / RUN), json.loads(json.dumps(settings))
    different = [f"{k}: {stored.get(k)} -> {v}" for k, v in found.items() if stored.get(k) != v]
    if different:
        changed = ", ".join(different)
        raise ValueError(
            f"{out} holds an interrupted run with other settings ({changed}); "
            f"repeat its command to finish it, or name another --out, or remove {out / LAST}"
        )
    return True


def close_run(out: Path) -> None:
    """The run is complete: the next one starts afresh."""
    (out / LAST).unlink(missing_ok=True)


def _stored_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: missing or damaged; remove the checkpoint beside it to start afresh"
        ) from error


def save_json(path: Path, value: dict[str, Any]) -> None:
    """Write beside the place, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2))
    temporary.replace(path)
