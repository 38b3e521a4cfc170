"""PEP 517 backend: scikit-build-core, with torch as a build requirement only where none is installed.

A static requirement on torch would download the newest build, several gigabytes, into every isolated build,
although only its headers are needed and any release from 2.10 on will do.
"""

from __future__ import annotations

import sys
from typing import Any

from find_torch import torch_root
from scikit_build_core import build as _scikit_build
from scikit_build_core.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]
TORCH = "torch==2.13.0"
Settings = dict[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return _scikit_build.get_requires_for_build_wheel(config_settings) + _torch(config_settings)


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return _scikit_build.get_requires_for_build_editable(config_settings) + _torch(config_settings)


def _torch(settings: Settings) -> list[str]:
    native = str((settings or {}).get("cmake.define.STRUCTLV_NATIVE", "ON")).upper()
    if native in ("OFF", "0", "FALSE", "NO") or not sys.platform.startswith("linux") or torch_root():
        return []
    return [TORCH]
