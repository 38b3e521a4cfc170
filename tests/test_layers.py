"""The layers: every arrow between the packages of structlv, and between the folders of csrc, points down.

cli, sklearn -> learning -> models -> distributions -> ops -> _C; csrc/ops (alone with torch) -> csrc/kernels
-> csrc/core.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "structlv"
SOURCES = ROOT / "csrc"

# package -> packages of structlv that it may import
MAY_IMPORT = {
    "reference": set(),
    "ops": {"reference"},
    "distributions": {"ops", "reference"},  # of reference its semiring: exp and log are at home there
    "models": {"distributions", "data"},
    "interop": {"distributions"},
    "metrics": {"distributions", "data"},
    "data": set(),
    "viz": {"models", "distributions", "data"},
    "learning": {"models", "distributions", "data"},
    "sklearn": {"learning", "distributions"},
    "cli": {"models", "distributions", "data", "viz", "metrics", "learning"},
}
# modules beside the packages, which any package may import
COMMON = {"_native", "_extras", "__version__"}
TOP = {
    "__init__": {"distributions", "models", "ops"},
    "__main__": {"cli"},
    "_native": {"_C"},
    "_extras": set(),
}

# folder of csrc -> folders it may include
MAY_INCLUDE = {
    "core": {"core"},
    "kernels": {"core", "kernels"},
    "ops": {"core", "kernels", "ops"},
    "cuda": {"core", "kernels", "ops", "cuda"},  # limits of the scaled domain; checks
}


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def cpp_files(folder: str) -> list[Path]:
    return sorted(
        path for path in (SOURCES / folder).rglob("*") if path.suffix in (".h", ".cpp", ".cuh", ".cu")
    )


def code(path: Path) -> str:
    """A C++ source without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", python_files(PACKAGE), ids=relative)
def test_imports_point_down(path: Path) -> None:
    mine = layer(path)
    allowed = MAY_IMPORT.get(mine, TOP.get(mine))
    assert allowed is not None, f"{mine} has no place in the layers: give it one in this table"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "structlv" and len(parts) > 1:
            assert parts[1] in allowed | COMMON | {mine}, f"{mine} imports {name}"


@pytest.mark.parametrize("path", python_files(PACKAGE), ids=relative)
def test_only_ops_call_the_operators(path: Path) -> None:
    """torch.ops and torch.library belong to structlv.ops; _native asks whether operators are registered."""
    if layer(path) in ("ops", "_native"):
        return
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch"
    }
    assert not used & {"ops", "library"}, relative(path)
    assert not {name for name in imports(path) if name.startswith(("torch.ops", "torch.library"))}


@pytest.mark.parametrize("folder", sorted(MAY_INCLUDE))
def test_includes_point_down(folder: str) -> None:
    for path in cpp_files(folder):
        for include in re.findall(r'#include\s+"([^"]+)"', code(path)):
            assert include.split("/")[0] in MAY_INCLUDE[folder], f"{relative(path)} includes {include}"
            assert (SOURCES / include).exists(), f"{relative(path)}: includes are named from csrc"


@pytest.mark.parametrize("folder", ["core", "kernels"])
def test_kernels_know_no_torch(folder: str) -> None:
    for path in cpp_files(folder):
        found = re.findall(
            r"#include\s+[<\"](?:torch|ATen|c10|pybind11|Python)\b.*|\bat::\w+|\btorch::\w+", code(path)
        )
        assert not found, f"{relative(path)}: {found}"


def test_gpu_kernels_know_no_torch() -> None:
    for path in cpp_files("cuda"):
        if path.suffix in (".cuh", ".cu"):
            assert "torch" not in code(path), relative(path)


def test_exp_log_and_infinity_live_in_core() -> None:
    call = r"(?<![\w.])(?:std::|__builtin_)?(?:exp|exp2|expm1|log|log2|log1p)f?\s*\("
    bare = re.compile(call + r"|\bINFINITY\b|HUGE_VAL|infinity\s*\(")
    found = {relative(path): bare.findall(code(path)) for path in cpp_files("kernels")}
    assert not {path: calls for path, calls in found.items() if calls}


def test_every_source_is_named_in_the_build() -> None:
    build = (ROOT / "CMakeLists.txt").read_text()
    structures = re.search(r"foreach\(structure ([a-z_ ]+)\)\s+target_sources\(_cuda", build)
    assert structures
    build += "".join(f"csrc/cuda/{name}.cu csrc/cuda/{name}.cpp " for name in structures[1].split())
    sources = [relative(path) for pattern in ("*.cpp", "*.cu") for path in SOURCES.rglob(pattern)]
    assert sources
    assert not [source for source in sources if source not in build]
