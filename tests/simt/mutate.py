"""Seeded bugs in the CUDA kernels, each of which the checks of small shapes must notice.

``mutate.py write FOLDER`` writes the kernels with every bug in place, all switched off: one program holds
them all. ``mutate.py run PROGRAM [--sample N] [--seed S]`` runs it with each of them (or N drawn by the
seed) switched on, and exits 1 if one goes unnoticed that ``unnoticed.json`` does not list with a reason.
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
SCHEDULES = ("1", "0", "2", "3", "4", "5")
SHARED = {"log_sum.cuh": "factorial"}  # whose driver runs all of what structures share; else the chain's
SECONDS = 60  # a bug that makes a kernel run for ever is noticed

DECLARATION = re.compile(
    r"\s*(?:template|struct|using|static|constexpr|namespace|enum|#|SLV_KERNEL|SLV_DEVICE|SLV_BOTH)"
)
FUNCTION = re.compile(r"SLV_(?:KERNEL\([^)]*\)+|DEVICE|BOTH)\s+.*?(\w+)\(")
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
    out, found, function = [], [], ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.split("//")[0].rstrip()
        if match := FUNCTION.search(text):
            function = match[1]
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
                    found.append({"id": index, "bug": bug, "code": line.strip(), **place})
                text = text[:start] + replacement + text[end:]
        out.append(text)
    return "\n".join(out).replace(
        "#pragma once\n", '#pragma once\n#include "cuda/mutants.h"\n', 1
    ) + "\n", found


def write(folder: Path) -> None:
    target = folder / "cuda"
    target.mkdir(parents=True, exist_ok=True)
    everything: list[dict] = []
    for path in sorted(KERNELS.iterdir()):
        if path.suffix == ".cuh" and not path.name.endswith("_launch.cuh"):  # a launch is the host's
            text, found = mutants_of(path, len(everything) + 1)
            everything += found
            (target / path.name).write_text(text)
        elif path.suffix in (".cuh", ".h"):
            (target / path.name).write_text(path.read_text())
    (target / "mutants.h").write_text(PRELUDE)
    (folder / "mutants.json").write_text(json.dumps(everything, indent=1))
    counts = Counter(m["function"] for m in everything)
    print(f"{len(everything)} mutants: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))


def key(mutant: dict) -> str:
    return f"{mutant['file']} {mutant['function']}: {mutant['code']} @{mutant['column']} {mutant['bug']}"


def structure(file: str) -> str:
    """Whose driver must notice the bugs of a file: the chain's for most of what all share."""
    drivers = [path.name.removesuffix("_check.cpp") for path in HERE.glob("*_check.cpp")]
    own = [name for name in drivers if file.startswith((f"{name}_", f"{name}."))]
    return SHARED.get(file, max(own, key=len, default="chain"))


def notices(program: Path, mutant: dict) -> bool:
    try:
        done = subprocess.run(
            [str(program), str(mutant["id"]), *SCHEDULES], capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def run(program: Path, sample: int, seed: int, record: bool) -> int:
    everything = json.loads((program.parent / "mutated" / "mutants.json").read_text())
    mutants = [m for m in everything if program.name == f"{structure(m['file'])}_check_mutants"]
    listed = json.loads(UNNOTICED.read_text()) if UNNOTICED.exists() else {}
    reasons = {entry: reason for reason, entries in listed.items() for entry in entries}
    if notices(program, {"id": 0}):
        print("the kernels without a bug fail")
        return 1
    stale = sorted(set(reasons) - {key(m) for m in everything})
    drawn = [m for m in mutants if key(m) not in reasons]
    if sample:
        drawn = random.Random(seed).sample(drawn, min(sample, len(drawn)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        noticed = list(pool.map(lambda m: notices(program, m), drawn))
    survivors = [m for m, found in zip(drawn, noticed, strict=True) if not found]
    found = len(drawn) - len(survivors)
    print(f"mutants: {found} of {len(drawn)} noticed; {len(reasons)} more are listed in {UNNOTICED.name}")
    for mutant in survivors:
        print(f"  survives: {key(mutant)}  (line {mutant['line']}, mutant {mutant['id']})")
    for entry in stale:
        print(f"  listed but gone: {entry}")
    if record:
        kept = {why: [x for x in entries if x not in stale] for why, entries in listed.items()}
        kept[UNJUDGED] = sorted({*kept.get(UNJUDGED, []), *map(key, survivors)})
        UNNOTICED.write_text(json.dumps(kept, indent=1) + "\n")
        return 0
    return bool(survivors or stale)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("write")
    writer.add_argument("folder", type=Path)
    runner = commands.add_parser("run")
    runner.add_argument("program", type=Path)
    runner.add_argument("--sample", type=int, default=0, help="so many, not all")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--record", action="store_true", help=f"list what goes unnoticed in {UNNOTICED.name}")
    options = parser.parse_args()
    if options.command == "write":
        write(options.folder)
        return 0
    return run(options.program, options.sample, options.seed, options.record)


if __name__ == "__main__":
    sys.exit(main())
