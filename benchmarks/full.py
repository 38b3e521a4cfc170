"""Everything that the project reports, in one run of about ten minutes on a quiet machine.

Writes ``chain.json`` (all implementations, one thread), ``threads.json`` (the fastest, one and two threads),
``isa.json``, ``memory.json``, and from them ``RESULTS.md`` and ``chain.png``.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import cases, implementations, report, run

TITLES = {
    "chain": "Beside other libraries",
    "threads": "Two threads",
    "isa": "Instruction sets",
    "memory": "Peak memory of one call",
}


def main(folder: Path, effort: run.Effort) -> None:
    chosen = cases.full()
    everyone = implementations.named(None, (*implementations.OURS, *implementations.PEERS))
    peers = [one for one in everyone if not one.ours]
    scaling = [one for one in everyone if one.name in ("structlv", "dynamax", "strong torch")]
    gradients = [case for case in chosen if case.query.endswith("grad")]
    run.save(run.run(chosen, everyone, [1], effort), folder / "chain.json")
    run.save(run.run(chosen, scaling, [1, 2], effort), folder / "threads.json")
    run.save(run.run(chosen, list(implementations.INSTRUCTION_SETS), [1], effort), folder / "isa.json")
    run.save({"memory": run.memory(gradients, [everyone[0], *peers])}, folder / "memory.json")
    write(folder)


def write(folder: Path) -> None:
    """RESULTS.md and chain.png from the folder's JSON files."""
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in TITLES}
    parts = [f"# {TITLES[name]}\n\n{report.text(document)}" for name, document in found.items()]
    (folder / "RESULTS.md").write_text("\n".join(parts))
    from benchmarks import chart  # the only part that needs matplotlib

    chart.chart(found["chain"], folder / "chain.png")
