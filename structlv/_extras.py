"""Optional dependencies: imported where they are used, and missed in one clear sentence."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class MissingExtra(ImportError):
    """An optional package is not installed; the message names the pip command that brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise MissingExtra naming the extra of structlv that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there, something it needs is not: its own message says more than ours
        package = module.partition(".")[0].replace("_", "-")
        raise MissingExtra(f"{package} is not installed; run: pip install 'structlv[{extra}]'") from error
