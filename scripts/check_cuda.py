"""Gate on what nvcc makes of the CUDA kernels: `check_cuda.py [--write]`.

Compiles every `csrc/cuda/*.cu` for the architectures of `CMakeLists.txt`, warnings being errors, and reads
from ptxas what each kernel takes. Exits 1 if one spills registers, uses local memory, or takes more
registers than `tests/simt/resources.json` says for this compiler; `--write` writes that table anew. Without
nvcc nothing is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "simt" / "resources.json"
FLAGS = ["-std=c++20", "-O3", "-Icsrc", "-Werror=all-warnings", "-Xptxas=-v,-warn-spills,-warn-lmem-usage"]
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def architectures() -> list[str]:
    """As CMakeLists.txt names them: 80-real, ..., the last one with PTX."""
    found = re.search(r"set\(CMAKE_CUDA_ARCHITECTURES ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    if found is None:
        raise SystemExit("CMakeLists.txt names no CUDA architectures")
    return found[1].split()


def code_flags() -> list[str]:
    flags = []
    for name in architectures():
        number = name.removesuffix("-real")
        code = f"sm_{number}" if name.endswith("-real") else f"[sm_{number},compute_{number}]"
        flags.append(f"-gencode=arch=compute_{number},code={code}")
    return flags


def readable(symbols: list[str]) -> dict[str, str]:
    text = "\n".join(symbols)
    done = subprocess.run(
        ["c++filt"], input=text, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    short = [line.split("(")[0].replace("void ", "").replace("slv::cuda::", "") for line in done]
    return dict(zip(symbols, short, strict=True))


def compiled(source: Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", *FLAGS, *code_flags(), "-c", str(source), "-o", f"{folder}/out.o"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def compile_all() -> tuple[dict[str, dict[str, int]], list[str]]:
    """Registers by kernel and architecture, and what is wrong."""
    table: dict[str, dict[str, int]] = {}
    wrong = []
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compilations = list(pool.map(compiled, sources))
    for done in compilations:
        log = done.stdout + done.stderr
        if done.returncode:
            lines = [line for line in log.splitlines() if re.search(r"error|warning", line)]
            wrong += lines or [log]
        names = readable(sorted({match[1] for match in ENTRY.finditer(log)}))
        kernel = architecture = ""
        for line in log.splitlines():
            if match := ENTRY.search(line):
                kernel, architecture = names[match[1]], match[2]
            elif (match := STACK.search(line)) and any(int(x) for x in match.groups()):
                wrong.append(f"{kernel}, sm_{architecture}: {line.strip()}")
            elif match := USED.search(line):
                table.setdefault(kernel, {})[f"sm_{architecture}"] = int(match[1])
                if match[2]:
                    wrong.append(
                        f"{kernel}, sm_{architecture}: static shared memory, which only `Shared` may give"
                    )
    return {kernel: table[kernel] for kernel in sorted(table)}, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write the table anew")
    options = parser.parse_args()
    if shutil.which("nvcc") is None:
        print("check_cuda: no nvcc here; the kernels were not compiled for GPUs")
        return 0
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release [\d.]+, V([\d.]+)", version)
    compiler = f"nvcc {release[1]}" if release else "nvcc"
    table, wrong = compile_all()
    if options.write and not wrong:
        TABLE.write_text(json.dumps({"compiler": compiler, "registers": table}, indent=1) + "\n")
    known = json.loads(TABLE.read_text())
    if known["compiler"] == compiler:
        for kernel, counts in table.items():
            for architecture, count in counts.items():
                allowed = known["registers"].get(kernel, {}).get(architecture, 0)
                if count > allowed:
                    wrong.append(f"{kernel}, {architecture}: {count} registers, the table says {allowed}")
        wrong += [
            f"{kernel}: in the table, but compiled no more"
            for kernel in known["registers"]
            if kernel not in table
        ]
    else:
        print(f"check_cuda: the table is that of {known['compiler']}; {compiler} is not compared with it")
    print(
        "\n".join(wrong)
        if wrong
        else f"check_cuda: {len(table)} kernels, {compiler}, no spill, nothing grown"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
