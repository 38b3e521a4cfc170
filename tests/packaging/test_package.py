"""What is written about the package: metadata, pins that must agree, and what the build asks for."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import entry_points, metadata, requires
from pathlib import Path
from types import ModuleType

import pytest

import structlv

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The build backend, loaded from its folder as pip does."""
    pytest.importorskip("scikit_build_core", reason="a build requirement; make installs it")
    monkeypatch.syspath_prepend(str(ROOT / "_build"))
    spec = importlib.util.spec_from_file_location("structlv_backend", ROOT / "_build" / "structlv_backend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_version_is_the_installed_one() -> None:
    assert metadata("structlv")["Version"] == structlv.__version__


def test_licence_and_pythons() -> None:
    assert metadata("structlv")["License-Expression"] == "Apache-2.0"
    assert metadata("structlv")["Requires-Python"] == ">=3.10"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_core_needs_torch_and_numpy_alone() -> None:
    core = {
        re.split(r"[<>=~!;\[ ]", need)[0] for need in requires("structlv") or [] if "extra ==" not in need
    }
    assert core == {"torch", "numpy"}


def test_extras() -> None:
    assert {"cli", "train", "plot", "demo", "test", "dev"} <= set(
        metadata("structlv").get_all("Provides-Extra")
    )


def test_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="structlv")
    assert callable(script.load())


def test_typed() -> None:
    assert (Path(structlv.__file__).parent / "py.typed").exists()


def test_public_names_exist() -> None:
    assert all(hasattr(structlv, name) for name in structlv.__all__)


def test_one_torch_is_pinned_everywhere(backend: ModuleType) -> None:
    pinned = re.search(r"^TORCH\s*\?= (\S+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == backend.TORCH


def test_build_asks_for_torch_only_where_there_is_none(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("kernels are compiled on Linux")
    assert backend.TORCH not in backend.get_requires_for_build_wheel()
    monkeypatch.setattr(backend, "torch_root", lambda: None)
    assert backend.TORCH in backend.get_requires_for_build_wheel()
    assert backend.TORCH in backend.get_requires_for_build_editable()
    assert backend.TORCH not in backend.get_requires_for_build_wheel({"cmake.define.STRUCTLV_NATIVE": "OFF"})
