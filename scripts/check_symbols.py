"""Gate on what the compiled files ask of others: `check_symbols.py FILE...`, extensions, wheels and objects.

An extension (also inside a wheel) may need only the C and C++ runtimes and Python; `_C` also functions of the
stable ABI that torch 2.10 has: then one binary runs on every torch from 2.10 on. A kernel object must not
hold weak or unique symbols: the linker keeps one copy of each, perhaps the one with AVX-512 instructions, for
all instruction sets. Exits 1 with one line for each finding.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_build"))

from find_torch import torch_root  # noqa: E402

NEEDED = re.compile(r"(libtorch_cpu|libstdc\+\+|libgcc_s|libm|libc|libpthread|ld-linux\S*)\.so[.\d]*")
EXTENSIONS = ("structlv/_C.", "structlv/data/_brackets.")  # in a wheel
OPTIONAL = "structlv/_cuda.so"  # where it was built with nvcc; static cudart, so nothing of CUDA is needed
KNOW_TORCH = ("_C.", "_cuda.")
RUNTIME = re.compile(r"@@?(GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+|^_?Py")
SHIM_HEADERS = ("torch/csrc/stable/c/shim.h", "torch/csrc/inductor/aoti_torch/c/shim.h")


def run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout


def target_version() -> str:
    """The release that CMakeLists.txt compiles for."""
    found = re.search(r"TORCH_TARGET_VERSION=(\w+)", (ROOT / "CMakeLists.txt").read_text())
    if found is None:
        raise SystemExit("CMakeLists.txt does not define TORCH_TARGET_VERSION")
    return found[1]


def stable_functions() -> set[str]:
    """Names that torch's own headers declare for the target release."""
    root = torch_root()
    if root is None:
        raise SystemExit("no torch found: its headers say what the stable ABI is")
    source = "".join(f"#include <{header}>\n" for header in SHIM_HEADERS)
    flags = [
        "-std=c++20",
        "-E",
        "-P",
        "-x",
        "c++",
        f"-DTORCH_TARGET_VERSION={target_version()}",
        f"-I{root}/include",
    ]
    declared = run("c++", *flags, "-", stdin=source)
    return set(re.findall(r"\b((?:aoti_)?torch_\w+)\s*\(", declared))


def extension_findings(path: Path, allowed: set[str]) -> Iterator[str]:
    torch = path.name.startswith(KNOW_TORCH)
    for line in run("nm", "-D", "--undefined-only", str(path)).splitlines():
        kind, symbol = line.split()[-2:]
        if kind == "U" and not (torch and symbol in allowed) and not RUNTIME.search(symbol):
            yield f"needs {symbol}, which is neither a runtime's nor in torch 2.10's stable ABI"
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", str(path)))
    yield from (f"links {name}" for name in needed if not NEEDED.fullmatch(name))
    if torch and "libtorch_cpu.so" not in needed:
        yield "does not name libtorch_cpu.so: torch's own copy is loaded where symbols are not shared"


def object_findings(path: Path) -> Iterator[str]:
    for line in run("nm", "-C", str(path)).splitlines():
        if re.search(r" [WuV] (?!DW\.ref\.)", line):  # DW.ref.*: a pointer for unwinding, no code
            yield f"shares {line.split(maxsplit=2)[-1]} with the other instruction sets"


def findings(path: Path, allowed: set[str]) -> Iterator[str]:
    if path.suffix == ".o":
        yield from object_findings(path)
    elif path.suffix == ".so":
        yield from extension_findings(path, allowed)
    else:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as wheel:
            for name in {OPTIONAL} & set(wheel.namelist()):
                yield from extension_findings(Path(wheel.extract(name, folder)), allowed)
            for extension in EXTENSIONS:
                names = [n for n in wheel.namelist() if n.startswith(extension) and n.endswith(".so")]
                if not names:
                    yield f"holds no compiled {extension}*"
                for name in names:
                    yield from extension_findings(Path(wheel.extract(name, folder)), allowed)


def main(arguments: list[str]) -> int:
    paths = [Path(argument) for argument in arguments]
    if not paths:
        raise SystemExit(__doc__)
    allowed = stable_functions()
    found = [f"{path}: {finding}" for path in paths for finding in findings(path, allowed)]
    print("\n".join(found) if found else f"symbols: {len(paths)} files, nothing out of place")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
