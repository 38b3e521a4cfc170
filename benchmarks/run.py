"""Checks every implementation on every case, then times them in turn, one sample each per round, and keeps
medians.

Interleaving makes drift (other load, clock speed) fall on all alike. A sample is enough calls to last about
30 ms; slow implementations get fewer rounds, down to one call.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.implementations import Implementation
from benchmarks.remote import Failed, Remote

LOG = Path(tempfile.gettempdir()) / "structlv-benchmark-workers.log"


@dataclass(frozen=True)
class Effort:
    rounds: int = 15
    sample_seconds: float = 0.03  # about this long
    budget_seconds: float = 1.0  # per implementation and case, beyond the check
    limit_seconds: float = 20.0  # for one answer
    rest_seconds: float = 0.03  # before a sample: idle threads of the one before spin for some milliseconds
    warm_seconds: float = 0.1  # what is slower does not gain from caches that another call has filled

    def calls(self, seconds: float, wanted: float = 1) -> int:
        """How many to time together: if two or more, after one that fills the caches."""
        return max(2 if seconds < self.warm_seconds else 1, round(wanted))


def write_inputs(case: Case, folder: Path) -> Path:
    """The case's inputs and the reference's answers, for the workers."""
    inputs = case.inputs()
    file = folder / f"{case.name.replace(':', '-').replace(',', '-')}.npz"
    wanted = {f"wanted_{name}": value for name, value in case.structure.expected(case.query, inputs).items()}
    np.savez(file, **inputs, **wanted)
    return file


def prepare(remotes: list[Remote], case: Case, file: Path, effort: Effort) -> tuple[dict, dict]:
    """-> what can be timed, with each one's errors and a first sample, and the words of those that cannot."""
    ready, refused = {}, {}
    for remote in remotes:
        try:
            ready[remote] = remote.ask(effort.limit_seconds, do="prepare", case=case.name, file=str(file))
            if ready[remote]["first"]["wall"] < effort.budget_seconds:
                calls = effort.calls(ready[remote]["first"]["wall"])
                ready[remote]["first"] = remote.ask(effort.limit_seconds, do="time", calls=calls)
        except Failed as failure:
            refused[remote.key] = {"status": str(failure)}
    return ready, refused


def time_in_turn(ready: dict[Remote, dict], effort: Effort) -> tuple[dict, dict]:
    """-> round-robin samples (of one that is too slow, only the first, taken alone), and what failed."""
    samples: dict[Remote, list[dict]] = {remote: [] for remote in ready}
    failed: dict[str, dict] = {}
    spent = {remote: ready[remote]["first"]["wall"] for remote in ready}
    calls = {remote: effort.calls(one, effort.sample_seconds / one) for remote, one in spent.items()}
    for _ in range(effort.rounds):
        for remote in ready:
            if spent[remote] < effort.budget_seconds and remote.key not in failed:
                time.sleep(effort.rest_seconds)
                try:
                    samples[remote].append(remote.ask(effort.limit_seconds, do="time", calls=calls[remote]))
                    spent[remote] += samples[remote][-1]["wall"] * (calls[remote] + (calls[remote] > 1))
                except Failed as failure:
                    failed[remote.key] = {"status": str(failure)}
    return {remote: taken or [ready[remote]["first"]] for remote, taken in samples.items()}, failed


def summary(prepared: dict, samples: list[dict]) -> dict:
    """Quartiles of wall and processor seconds per call, the number of samples, the errors of the check."""
    spread = {measure: quartiles([sample[measure] for sample in samples]) for measure in ("wall", "cpu")}
    return {**spread, "rounds": len(samples), "errors": prepared["errors"]}


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def run_case(remotes: list[Remote], case: Case, folder: Path, effort: Effort) -> dict:
    file = write_inputs(case, folder)
    ready, refused = prepare(remotes, case, file, effort)
    samples, failed = time_in_turn(ready, effort)
    file.unlink()
    results = {remote.key: summary(ready[remote], samples[remote]) for remote in ready} | refused | failed
    return {"case": case.name, "results": {remote.key: results[remote.key] for remote in remotes}}


def print_case(found: dict) -> None:
    print(found["case"])
    for key, result in found["results"].items():
        if "wall" in result:
            low, median, high = (1e3 * value for value in result["wall"])
            print(f"  {key:24s} {median:10.3f} ms  [{low:.3f}, {high:.3f}]  x{result['rounds']}")
        else:
            print(f"  {key:24s} {result['status']}")
    sys.stdout.flush()


def versions(remotes: list[Remote]) -> dict:
    found: dict = {}
    for remote in remotes:
        try:
            found[remote.implementation.name] = remote.ask(do="versions")
        except Failed as failure:
            found[remote.implementation.name] = {"status": str(failure)}
    return found


def run(
    chosen: list[Case], implementations: list[Implementation], threads: list[int], effort: Effort
) -> dict:
    """-> all that a report needs, as plain data; an implementation that fails is recorded with the reason."""
    remotes = [Remote(implementation, count, LOG) for implementation in implementations for count in threads]
    LOG.write_text("")
    try:
        document = {
            "machine": machine.describe(),
            "peaks": machine.peaks(chosen),
            "versions": versions(remotes),
        }
        document |= {
            "threads": threads,
            "ours": [one.name for one in implementations if one.ours],
            "cases": [],
        }
        with tempfile.TemporaryDirectory() as folder:
            for case in chosen:
                document["cases"].append(run_case(remotes, case, Path(folder), effort))
                print_case(document["cases"][-1])
    finally:
        for remote in remotes:
            remote.stop()
    return document


def unanswered(document: dict) -> list[str]:
    """What gave no figures although it can: because its answer was wrong, it failed, or it took too long."""
    return [
        f"{found['case']}, {key}: {result['status']}"
        for found in document["cases"]
        for key, result in found["results"].items()
        if "wall" not in result and not result["status"].startswith("unsupported")
    ]


def memory(chosen: list[Case], implementations: list[Implementation]) -> list[dict]:
    """Peak memory of one call in a fresh process each; two processes at a time, since nothing is timed."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        files = {case: write_inputs(case, Path(folder)) for case in chosen}
        jobs = [
            (case, one, pool.submit(measure_memory, one, case, files[case]))
            for case in chosen
            for one in implementations
        ]
        found = [{"case": case.name, "implementation": one.name, **job.result()} for case, one, job in jobs]
    return found


def measure_memory(implementation: Implementation, case: Case, file: Path) -> dict:
    remote = Remote(implementation, 1, LOG)
    try:
        return remote.ask(do="memory", case=case.name, file=str(file))
    except Failed as failure:
        return {"status": str(failure)}
    finally:
        remote.stop()


def save(document: dict, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {file}")
