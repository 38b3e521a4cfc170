"""What accesses to memory cost, as a table: ``python -m tests.simt.ptx.report [STRUCTURE...]``.

Counted on the problems of the drivers whose name begins with "aligned", where rows begin at sectors.
"""

from __future__ import annotations

import argparse
import re

from tests.simt.ptx.counters import Count, Counters
from tests.simt.ptx.launches import Driver, problems

STRUCTURES = ("noise", "chain", "chain_filter", "chain_distinct", "factorial", "lowrank", "pcfg")
LIMIT = 1.5  # sectors of a load above which a kernel must be known to take more than its ideal
KINDS = ("load", "store", "shared load", "shared store")


def measured(structure: str) -> dict[str, Counters]:
    """By kernel, of all problems that are counted."""
    driver = Driver(structure)
    for problem in problems(structure):
        if problem.startswith("aligned"):
            driver.run(problem)
    return driver.counters


def load_ratios(structure: str) -> dict[str, float]:
    """Sectors that loads take over the fewest possible, of each kernel; the larger of its two precisions."""
    ratios: dict[str, float] = {}
    for kernel, counters in measured(structure).items():
        name = re.sub("float|double", "T", kernel)
        ratios[name] = max(ratios.get(name, 0), counters.total("load").ratio)
    return ratios


def worst_place(counters: Counters, kind: str) -> tuple[str, Count]:
    """The line of the source that takes most above its ideal."""
    places = {place: count for (k, place), count in counters.memory.items() if k == kind}
    return max(places.items(), key=lambda x: x[1].used - x[1].ideal, default=("", Count()))


def _cell(counters: Counters, kind: str) -> str:
    count = counters.total(kind)
    if count.requests == 0:
        return "-"
    text = f"{count.used / count.requests:.1f} / {count.ideal / count.requests:.1f}"
    return f"{text} (**{count.ratio:.1f}**)" if count.ratio > LIMIT else text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("structures", nargs="*", default=STRUCTURES)
    print("| kernel | " + " | ".join(KINDS) + " | special functions | most loads above the ideal |")
    print("|---|---|---|---|---|---|---|")
    for structure in parser.parse_args().structures:
        for kernel, counters in sorted(measured(structure).items()):
            if "float" not in kernel:
                continue
            cells = [_cell(counters, kind) for kind in KINDS]
            place, count = worst_place(counters, "load")
            where = f"{place}, {count.ratio:.1f}" if count.ratio > LIMIT else ""
            print(f"| `{kernel}` | {' | '.join(cells)} | {counters.special} | {where} |", flush=True)


if __name__ == "__main__":
    main()
