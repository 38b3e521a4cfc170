"""Everything that the project reports, in one run of about twenty minutes on a quiet machine.

A document each, as JSON, and from all of them ``RESULTS.md`` and a chart for each structure.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import cases, chains, factorials, implementations, layers, relaxed, report, run, trees

TITLES = {
    "chain": "Chains beside other libraries",
    "relaxed": "Relaxed samples of chains beside the same methods over torch's operations",
    "trees": "PCFGs beside other libraries",
    "factorial": "Factorial chains beside the chain on their product space",
    "layers": "A CRF layer's training step beside pytorch-crf",
    "threads": "Two threads",
    "isa": "Instruction sets",
    "memory": "Peak memory of one call",
}
CHARTS = ("chain", "trees", "factorial")


def main(folder: Path, effort: run.Effort, names: list[str]) -> None:
    """Runs the named documents, or all."""
    for name in names or TITLES:
        run.save(document(name, effort), folder / f"{name}.json")
    write(folder)


def document(name: str, effort: run.Effort) -> dict:
    chosen = cases.full()
    everyone = implementations.named(None, (*implementations.OURS, *implementations.PEERS))
    if name == "memory":
        gradients = [case for case in chosen if case.query.endswith("grad")]
        return {
            "memory": run.memory(
                gradients, [one for one in everyone if one.name == "structlv" or not one.ours]
            )
        }
    if name == "isa":
        return run.run(chosen, list(implementations.INSTRUCTION_SETS), [1], effort)
    if name == "threads":
        scaling = [one for one in everyone if one.name in ("structlv", "dynamax", "strong torch")]
        return run.run(chosen, scaling, [1, 2], effort)
    found = {"chain": chains, "relaxed": relaxed, "trees": trees, "factorial": factorials, "layers": layers}
    structure = found[name]
    return run.run(cases.full(structure), [one for one in everyone if one.has(structure)], [1], effort)


def write(folder: Path) -> None:
    """RESULTS.md and the charts from the folder's JSON files."""
    files = {name: folder / f"{name}.json" for name in TITLES}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    parts = [f"# {TITLES[name]}\n\n{report.text(document)}" for name, document in found.items()]
    (folder / "RESULTS.md").write_text("\n".join(parts))
    from benchmarks import chart  # the only part that needs matplotlib

    for name in CHARTS:
        if name in found:
            chart.chart(found[name], folder / f"{name}.png")
