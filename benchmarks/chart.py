"""A bar chart from a results file: a panel per query, the counted floor as black marks. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from benchmarks import cases, machine
from benchmarks.report import OURS, Results, size_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LEFT_OUT = ("structlv validated", "structlv.ops")
PALETTE = ("#34495e", "#2e86c1", "#85c1e9", "#27ae60", "#a9dfbf", "#8e44ad", "#d7bde2", "#f39c12", "#95a5a6")


def chart(document: dict, out: Path | None = None, measure: str = "wall") -> None:
    results = Results(document, measure)
    queries = results.queries()
    columns = min(2, len(queries))
    rows = -(-len(queries) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.5 * columns, 3.4 * rows), squeeze=False)
    for axis, query in zip(axes.flat, queries, strict=False):
        panel(axis, results, query, results.threads[0])
    for axis in list(axes.flat)[len(queries) :]:
        axis.axis("off")
    decorate(figure, axes, results)
    figure.savefig(out or "benchmark.png", dpi=110)
    plt.close(figure)


def decorate(figure: plt.Figure, axes, results: Results) -> None:
    """One legend and one title for all panels."""
    handles: dict = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=5, frameon=False)
    cpu = results.document["machine"]["cpu"]
    figure.suptitle(f"{results.threads[0]} thread, {cpu}; median of interleaved rounds", fontsize=10)
    figure.tight_layout(rect=(0, 0.02 + 0.12 / len(axes), 1, 0.99))


def panel(axis: plt.Axes, results: Results, query: str, threads: int) -> None:
    shown = results.of(query)
    times = {name: [results.seconds(case, name, threads) for case in shown] for name in results.names}
    times = {name: seconds for name, seconds in times.items() if any(seconds) and name not in LEFT_OUT}
    width = 0.85 / len(times)
    for place, (name, seconds) in enumerate(times.items()):
        left = (place - (len(times) - 1) / 2) * width
        bars = [(x + left, 1e3 * y) for x, y in enumerate(seconds) if y]
        axis.bar(*zip(*bars, strict=True), width, color=color_of(name, results), label=name)
    mark_floors(axis, [machine.floor(case, results.document["peaks"], threads) for case in shown])
    axis.set_yscale("log")
    axis.set_xticks(range(len(shown)), [size_of(case) for case in shown])
    axis.set_ylabel("ms, log scale")
    axis.set_title(cases.TITLES[query], fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def color_of(name: str, results: Results) -> str:
    if name == OURS:
        return "#c0392b"
    return PALETTE[[one for one in results.names if one not in LEFT_OUT].index(name) % len(PALETTE)]


def mark_floors(axis: plt.Axes, floors: list[float | None]) -> None:
    marks = [(x - 0.45, x + 0.45, 1e3 * y) for x, y in enumerate(floors) if y]
    if marks:
        left, right, height = zip(*marks, strict=True)
        axis.hlines(height, left, right, "black", lw=1, label="counted floor")
