"""A saved model on disk: config.json + model.safetensors (+ vocab.json), replaced whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from structlv._extras import require

FORMAT, VERSION = "structlv-model", 1
CONFIG, WEIGHTS, WORDS = "config.json", "model.safetensors", "vocab.json"
FILES = {CONFIG, WEIGHTS, WORDS}


def write_folder(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], words: list[str] | None
) -> None:
    """Write into a temporary folder, flush it to disk, rename it into place. Raises as `Model.save`."""
    refuse_other_files(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        header = {"format": FORMAT, "version": VERSION, **config}
        _write(temporary / CONFIG, json.dumps(header, indent=2).encode())
        _write(temporary / WEIGHTS, _serialise(weights))
        if words is not None:
            _write(temporary / WORDS, json.dumps(words, ensure_ascii=False).encode())
        temporary.chmod(0o755)  # mkdtemp makes it private
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[str] | None]:
    """Configuration, weights and words of a saved model. Raises as `Model.load`."""
    if not folder.exists() and _previous(folder).exists():
        folder = _previous(folder)  # a write was cut off between its two renames
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: no saved model there ({CONFIG} is missing)")
    config = _read_json(folder / CONFIG, dict)
    if config.get("format") != FORMAT:
        raise ValueError(f'{folder / CONFIG}: not a structlv model (no "format": "{FORMAT}")')
    if config.get("version") != VERSION:
        raise ValueError(
            f"{folder / CONFIG}: format version {config.get('version')}, this release reads {VERSION}"
        )
    words = _read_json(folder / WORDS, list) if (folder / WORDS).exists() else None
    return config, _read_weights(folder / WEIGHTS), words


def _read_json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: truncated or not JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path}: expected a JSON {kind.__name__}, found {type(value).__name__}")
    return value


def _read_weights(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors.torch", "train")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; the model is incomplete")
    try:
        weights: dict[str, Tensor] = safetensors.load(path.read_bytes())
    except Exception as error:  # safetensors has an exception class of its own, and leaks others
        raise ValueError(f"{path}: truncated or not a safetensors file: {error}") from error
    return weights


def _serialise(weights: dict[str, Tensor]) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    data: bytes = require("safetensors.torch", "train").save(plain)
    return data


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def refuse_other_files(folder: Path) -> None:
    """Raise ValueError where `folder` is a file, or holds anything but a saved model."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, expected a folder for a saved model")
    others = sorted(p.name for p in folder.iterdir() if p.name not in FILES) if folder.exists() else []
    if others:
        raise ValueError(
            f"{folder}: holds files that are no part of a model ({', '.join(others[:3])}); name another"
        )


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _swap(new: Path, folder: Path) -> None:
    """Two renames: a folder cannot be renamed over a full one. `read_folder` knows the moment between."""
    previous = _previous(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    new.rename(folder)
    _flush_directory(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _flush_directory(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
