"""Seeded bugs in the CUDA kernels, each of which the checks of small shapes must notice.

``mutate.py write FOLDER`` writes the kernels with every bug in place, all switched off: one program holds
them all. ``mutate.py run PROGRAM [--sample N] [--seed S]`` runs it with each of them (or N drawn by the
seed) switched on, and exits 1 if one goes unnoticed that ``unnoticed.json`` does not list with a reason. A
program with a sanitizer (``X_asan``, ``X_tsan``) is run with each that the list says that it notices.
Bugs: each barrier dropped; each bound and each start of a loop one off; each term of a sum or difference left
out, each factor doubled; each partner of a shuffle another; each double buffer made single.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "csrc" / "cuda"
UNNOTICED = HERE / "unnoticed.json"
UNJUDGED = "not yet judged: a gap in the checks, or no bug"
SCHEDULES = ["1", "0", "2", "3", "4", "5"]
SANITIZERS = {"_asan": ("AddressSanitizer", ["1"]), "_tsan": ("ThreadSanitizer", ["small", "1"])}
SHARED = {"log_sum.cuh": "factorial"}  # whose driver runs all of what structures share; else the chain's

DECLARATION = re.compile(
    r"\s*(?:template|struct|using|static|constexpr|namespace|enum|#|SLV_KERNEL|SLV_DEVICE|SLV_BOTH)"
)
FUNCTION = re.compile(r"SLV_(?:DEVICE|BOTH)\s+.*?(\w+)\(|^(?!SLV_)(\w+)\(")  # a kernel's name begins a line
NAME = r"\w[\w.]*(?:\[[^\]]*\])?"
PRELUDE = """#pragma once
#include "core/simt.h"
extern int slv_mutant;
namespace slv::cuda {
inline bool sync_block_or_unless(bool dropped, bool mine, simt::Place place = simt::Place::current()) {
  return dropped ? mine : simt::sync_block_or(mine, place);
}
}
"""
# Each: bugs, where the text of the first group is replaced; $0, $1: whether the first, the second is on.
RULES = [
    (["barrier dropped"], r"\b(sync_(?:block|warp)\(\);)", "if (!$0) {}"),
    (["vote dropped"], r"\b(sync_block_or\()", "sync_block_or_unless($0, "),
    (
        ["bound one more", "bound one less"],
        rf"(?<![\w<]){NAME} < ({NAME})(?=[ ;)&?])(?! [*/%])",
        "{} + $0 - $1",
    ),
    (["end one early"], r"\b\w+ >= (0);", "$0"),
    (["start one late"], r"for \((?:int|int64_t) \w+ = [^;]+(;)", " + $0{}"),
    (["factor doubled"], r"(?<=[\w)\]])( \* )(?=[\w(])", " * ($0 ? 2 : 1) * "),
    (["term left out"], r"(?<=[\w)\]])( \+ )(?=[\w(])", " + ($0 ? 0 : 1) * "),
    (["subtrahend left out"], r"(?<=[\w)\]])( - )(?=[\w(])", " - ($0 ? 0 : 1) * "),
    (["another lane"], r"\bshuffle\w*\([^,()]+, (\w+)\)", "{} ^ int($0)"),
    (["buffer shared"], r" % (2) \* ", "($0 ? 1 : 2)"),
]


def mutants_of(path: Path, first: int) -> tuple[str, list[dict]]:
    """The source with its bugs, and what each is; numbered from ``first``."""
    out: list[str] = []
    found: list[dict] = []
    function = ""
    copies: Counter[str] = Counter()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.split("//")[0].rstrip()
        if match := FUNCTION.search(text):
            function = match[1] or match[2]
        if not DECLARATION.match(text) and text.startswith("  "):
            edits = [
                (m.span(1), m[1], bugs, new)
                for bugs, pattern, new in RULES
                for m in re.finditer(pattern, text)
            ]
            for (start, end), old, bugs, new in sorted(edits, reverse=True):
                replacement = new.replace("{}", old)
                for which, bug in enumerate(bugs):
                    index = first + len(found)
                    replacement = replacement.replace(f"${which}", f"(slv_mutant == {index})")
                    place = {"file": path.name, "line": number, "function": function, "column": start}
                    mutant = {"id": index, "bug": bug, "code": line.strip(), **place}
                    copies[key(mutant)] += 1
                    found.append({**mutant, "copy": copies[key(mutant)]})
                text = text[:start] + replacement + text[end:]
        out.append(text)
    return "\n".join(out).replace(
        "#pragma once\n", '#pragma once\n#include "cuda/mutants.h"\n', 1
    ) + "\n", found


def all_kernels() -> tuple[dict[str, str], list[dict]]:
    """The sources by their names, with every bug; and the bugs."""
    sources: dict[str, str] = {}
    everything: list[dict] = []
    for path in sorted(KERNELS.iterdir()):
        if path.suffix == ".cuh" and not path.name.endswith("_launch.cuh"):  # a launch is the host's
            sources[path.name], found = mutants_of(path, len(everything) + 1)
            everything += found
        elif path.suffix in (".cuh", ".h"):
            sources[path.name] = path.read_text()
    return sources, everything


def write(folder: Path) -> None:
    target = folder / "cuda"
    target.mkdir(parents=True, exist_ok=True)
    sources, everything = all_kernels()
    for name, text in {**sources, "mutants.h": PRELUDE}.items():
        (target / name).write_text(text)
    (folder / "mutants.json").write_text(json.dumps(everything, indent=1))
    counts = Counter(m["file"] for m in everything)
    print(f"{len(everything)} mutants: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))


def key(mutant: dict) -> str:
    """What it is called in the list; lines that are there twice have a number."""
    number = f" #{mutant['copy']}" if mutant.get("copy", 1) > 1 else ""
    place = f"{mutant['file']} {mutant['function']}: {mutant['code']} @{mutant['column']}"
    return f"{place} {mutant['bug']}{number}"


def reasons() -> dict[str, str]:
    listed = json.loads(UNNOTICED.read_text()) if UNNOTICED.exists() else {}
    return {entry: reason for reason, entries in listed.items() for entry in entries}


def structure(file: str) -> str:
    """Whose driver must notice the bugs of a file: the chain's for most of what all share."""
    drivers = [path.name.removesuffix("_check.cpp") for path in HERE.glob("*_check.cpp")]
    own = [name for name in drivers if file.startswith((f"{name}_", f"{name}."))]
    return SHARED.get(file, max(own, key=len, default="chain"))


class Driver:
    """A program of mutants, and what it is called with: `schedules`."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.structure, _, suffix = program.name.partition("_check_mutants")
        self.sanitizer, self.schedules = SANITIZERS.get(suffix, ("", SCHEDULES))

    def notices(self, mutant: int) -> bool:
        call = [str(self.program), str(mutant), *self.schedules]
        env = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
        return subprocess.run(call, env=env, capture_output=True).returncode != 0


def draw(driver: Driver, everything: list[dict], options: argparse.Namespace) -> list[dict]:
    """The mutants that it has to notice."""
    why = reasons()
    own = [m for m in everything if structure(m["file"]) == driver.structure and options.only in m["file"]]
    if driver.sanitizer:
        return [m for m in own if driver.sanitizer in why.get(key(m), "")]
    listed = sum(key(m) in why for m in own)
    print(f"{driver.structure}: {len(own)} mutants, of which {UNNOTICED.name} lists {listed}")
    drawn = [m for m in own if options.listed or key(m) not in why]
    if options.sample:
        drawn = random.Random(options.seed).sample(drawn, min(options.sample, len(drawn)))
    return drawn


def run(options: argparse.Namespace) -> int:
    driver = Driver(options.program)
    everything = json.loads((options.program.parent / "mutated" / "mutants.json").read_text())
    drawn = draw(driver, everything, options)
    if drawn and driver.notices(0):
        print("the kernels without a bug fail")
        return 1
    why = {} if driver.sanitizer else reasons()
    survivors = []
    count = needless = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, noticed in zip(drawn, pool.map(driver.notices, [m["id"] for m in drawn]), strict=True):
            count += noticed
            if noticed and key(mutant) in why:
                needless += 1
                print(f"  listed but noticed: {key(mutant)}", flush=True)
            elif not noticed and key(mutant) not in why:
                survivors.append(mutant)
                print(
                    f"  survives: {key(mutant)}  (line {mutant['line']}, mutant {mutant['id']})", flush=True
                )
    stale = stale_of(everything)
    for entry in stale:
        print(f"  listed but gone: {entry}")
    print(f"{options.program.name}: {count} of {len(drawn)} noticed")
    if options.record:
        listed = json.loads(UNNOTICED.read_text())
        kept = {reason: [x for x in entries if x not in stale] for reason, entries in listed.items()}
        kept[UNJUDGED] = sorted({*kept.get(UNJUDGED, []), *map(key, survivors)})
        UNNOTICED.write_text(json.dumps(kept, indent=1) + "\n")
        return 0
    return bool(survivors or needless or stale)


def stale_of(everything: list[dict]) -> list[str]:
    return sorted(set(reasons()) - {key(m) for m in everything})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("write")
    writer.add_argument("folder", type=Path)
    runner = commands.add_parser("run")
    runner.add_argument("program", type=Path)
    runner.add_argument("--sample", type=int, default=0, help="so many, not all")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--only", default="", help="of the files whose names contain this")
    runner.add_argument("--listed", action="store_true", help="those too that are listed: still unnoticed?")
    runner.add_argument("--record", action="store_true", help=f"list what goes unnoticed in {UNNOTICED.name}")
    options = parser.parse_args()
    if options.command == "write":
        write(options.folder)
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
