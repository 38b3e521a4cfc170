"""Markdown tables from a results file."""

from __future__ import annotations

from benchmarks import cases, machine
from benchmarks.cases import Case

OURS = "structlv"


class Results:
    """A results document by case, implementation and threads; `measure` picks clock or processor time."""

    def __init__(self, document: dict, measure: str = "wall"):
        self.document = document
        self.measure = measure
        self.threads = document.get("threads", [])
        self.cases = {cases.parse(one["case"]): one["results"] for one in document.get("cases", [])}
        keys = next(iter(self.cases.values()), {})
        self.names = list(dict.fromkeys(key.rpartition("/")[0] for key in keys))
        self.peers = [name for name in self.names if name not in document.get("ours", [])]

    def quartiles(self, case: Case, name: str, threads: int) -> list[float] | None:
        return self.cases[case].get(f"{name}/{threads}", {}).get(self.measure)

    def seconds(self, case: Case, name: str, threads: int) -> float | None:
        """The median."""
        quartiles = self.quartiles(case, name, threads)
        return quartiles[1] if quartiles else None

    def status(self, case: Case, name: str, threads: int) -> str:
        return self.cases[case].get(f"{name}/{threads}", {}).get("status", "")

    def best_peer(self, case: Case, threads: int) -> tuple[str, float] | None:
        timed = [(name, self.seconds(case, name, threads)) for name in self.peers]
        return min((one for one in timed if one[1] is not None), key=lambda one: one[1], default=None)

    def of(self, query: str) -> list[Case]:
        return [case for case in self.cases if case.query == query]

    def queries(self) -> list[str]:
        return [query for query in cases.TITLES if self.of(query)]


def number(value: float | None) -> str:
    """Three significant digits, without exponents."""
    if value is None:
        return "-"
    return (
        f"{value:.0f}"
        if value >= 99.5
        else f"{value:.1f}"
        if value >= 9.95
        else f"{value:.2f}"
        if value >= 0.995
        else f"{value:.3f}"
    )


def grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def size_of(case: Case) -> str:
    return case.size_text + ("" if case.dtype == "float32" else f" {case.dtype}")


def header(results: Results) -> str:
    about, peaks = results.document["machine"], results.document["peaks"]
    speed = f", {peaks['gflops']:.0f} GFLOP/s of float32 multiply-adds on one core" if peaks else ""
    lines = [f"{about['cpu']}, {about['cores']} cores{speed}; {about['date']}.", ""]
    users: dict[str, list[str]] = {}
    for name, found in results.document["versions"].items():
        users.setdefault(", ".join(f"{package} {version}" for package, version in found.items()), []).append(
            name
        )
    lines += [f"* {', '.join(names)}: {packages}" for packages, names in users.items()]
    return "\n".join(lines) + "\n"


def times(results: Results, query: str, threads: int) -> str:
    """Median milliseconds, and in words why there are none."""
    notes: dict[str, list[str]] = {}

    def cell(case: Case, name: str) -> str:
        seconds, status = results.seconds(case, name, threads), results.status(case, name, threads)
        if seconds is None and status and not status.startswith("unsupported"):
            notes.setdefault(f"{name}: {status}", []).append(size_of(case))
        return (
            number(1e3 * seconds)
            if seconds is not None
            else "n/a"
            if status.startswith("unsupported")
            else "*"
        )

    rows = [
        [name, *cells]
        for name in results.names
        if set(cells := [cell(case, name) for case in results.of(query)]) != {"n/a"}
    ]
    footnotes = "".join(f"\n\\* {note} at {' and '.join(sizes)}\n" for note, sizes in notes.items())
    return (
        grid([f"ms ({threads} thread{'s' * (threads > 1)})", *map(size_of, results.of(query))], rows)
        + footnotes
    )


def comparison(results: Results, threads: int) -> str:
    """Our time, the fastest peer's, the speed-ups and what was aimed at, and the counted floor."""
    head = [
        "case",
        "structlv ms",
        "quartiles",
        "fastest peer",
        "its ms",
        "speed-up",
        "over dynamax",
        "goal",
        "floor ms",
        "times floor",
    ]
    rows = [
        comparison_row(results, case, threads)
        for case in results.cases
        if results.seconds(case, OURS, threads)
    ]
    return grid(head, rows) if rows else ""


def comparison_row(results: Results, case: Case, threads: int) -> list[str]:
    ours = results.seconds(case, OURS, threads)
    low, _, high = results.quartiles(case, OURS, threads)
    peer = results.best_peer(case, threads)
    dynamax = results.seconds(case, "dynamax", threads) if "dynamax" in results.names else None
    floor = machine.floor(case, results.document["peaks"], threads)
    return [
        f"{case.query} {size_of(case)}",
        number(1e3 * ours),
        f"{number(1e3 * low)}-{number(1e3 * high)}",
        *((peer[0], number(1e3 * peer[1]), f"{number(peer[1] / ours)}x") if peer else ("-", "-", "-")),
        f"{number(dynamax / ours)}x" if dynamax else "-",
        goals(results, case, ours, peer) if threads == 1 else "-",
        number(floor and 1e3 * floor),
        number(floor and ours / floor),
    ]


def goals(results: Results, case: Case, ours: float, peer: tuple[str, float] | None) -> str:
    found = []
    for name, factor in case.goals():
        against = peer and peer[1] if name == "best" else results.seconds(case, name, 1)
        verdict = "" if against is None else ": met" if against / ours >= factor else ": **missed**"
        found.append(f"{factor:g}x {name}{verdict}")
    return "; ".join(found) or "-"


def relative(results: Results, threads: int) -> str:
    """Speed of each of our variants relative to the first, where there are no peers (instruction sets)."""
    first = results.names[0]
    rows = []
    for case in results.cases:
        base = results.seconds(case, first, threads)
        others = [results.seconds(case, name, threads) for name in results.names]
        rows.append(
            [
                f"{case.query} {size_of(case)}",
                *(number(base / one) if base and one else "-" for one in others),
            ]
        )
    return grid([f"speed relative to {first}", *results.names], rows)


def threading(results: Results) -> str:
    """Time with one thread over time with two."""
    rows = []
    for case in results.cases:
        pairs = [(results.seconds(case, name, 1), results.seconds(case, name, 2)) for name in results.names]
        rows.append(
            [
                f"{case.query} {size_of(case)}",
                *(number(one / two) if one and two else "-" for one, two in pairs),
            ]
        )
    return grid(["two threads: speed-up", *results.names], rows)


def accuracy(results: Results) -> str:
    """Largest error of each implementation over all cases, by quantity (see check.py for the units)."""
    rows = []
    for name in results.names:
        found: dict[str, float] = {}
        for answers in results.cases.values():
            for quantity, error in answers.get(f"{name}/{results.threads[0]}", {}).get("errors", {}).items():
                found[quantity] = max(found.get(quantity, 0.0), error)
        columns = ("log_z", "unary", "transition", "rules", "root", "score", "frequency", "typicality")
        rows.append([name, *(f"{found[column]:.0e}" if column in found else "-" for column in columns)])
    head = [
        "largest error",
        "log Z",
        "unary marginals",
        "transition",
        "rules",
        "root",
        "Viterbi score",
        "sample frequency",
        "sample entropy",
    ]
    return grid(head, rows)


def memory_table(found: list[dict]) -> str:
    names = list(dict.fromkeys(one["implementation"] for one in found))
    by_key = {(one["case"], one["implementation"]): one for one in found}

    def cell(case: str, name: str) -> str:
        one = by_key[case, name]
        return number(one["peak_bytes"] / 2**20) if "peak_bytes" in one else one["status"].partition(":")[0]

    rows = [
        [case.rpartition(":")[0], *(cell(case, name) for name in names)]
        for case in dict.fromkeys(one["case"] for one in found)
    ]
    return grid(["peak MiB above the inputs", *names], rows)


def text(document: dict, measure: str = "wall") -> str:
    if "memory" in document:
        return memory_table(document["memory"])
    results = Results(document, measure)
    parts = [header(results)]
    for threads in results.threads:
        parts += [f"## {threads} thread{'s' * (threads > 1)}\n"]
        parts += [comparison(results, threads)] if results.peers else [relative(results, threads)]
        for query in results.queries():
            parts += [f"### {cases.TITLES[query]}\n", times(results, query, threads)]
    parts += [threading(results)] if results.threads == [1, 2] else []
    return "\n".join([*parts, accuracy(results)])
