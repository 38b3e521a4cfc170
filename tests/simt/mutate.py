"""``python tests/simt/mutate.py FOLDER``: the CUDA kernels with seeded bugs, all switched off.

One program holds every bug of a structure's kernels, and ``gate.py`` switches them on one by one. Bugs: each
barrier dropped; each bound and each start of a loop one off; each term of a sum or difference left out, each
factor doubled; each partner of a shuffle another; each double buffer made single.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "csrc" / "cuda"

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


def key(mutant: dict) -> str:
    """What it is called in the list; lines that are there twice have a number."""
    number = f" #{mutant['copy']}" if mutant.get("copy", 1) > 1 else ""
    place = f"{mutant['file']} {mutant['function']}: {mutant['code']} @{mutant['column']}"
    return f"{place} {mutant['bug']}{number}"


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


if __name__ == "__main__":
    write(Path(sys.argv[1]))
