"""Which machine this is and what one of its cores can do: the measured peaks that floors are counted with."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.remote import cores

FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=fast")


def describe() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return {
        "cpu": f"{fields.get('model name')} (family {fields.get('cpu family')} model {fields.get('model')})",
        "instruction_sets": [name for name in ("avx2", "avx512f") if name in fields.get("flags", "").split()],
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load": os.getloadavg()[0],
    }


@cache
def program() -> Path | None:
    """peak.c, compiled for this machine; None without a compiler."""
    folder = Path(tempfile.mkdtemp(prefix="peak"))
    command = ["cc", *FLAGS, str(Path(__file__).with_name("peak.c")), "-o", str(folder / "peak")]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return None
    return folder / "peak" if done.returncode == 0 else None


def peak(*arguments: object) -> float | None:
    """What `peak` prints, on the core that one-thread timings use."""
    if program() is None:
        return None
    command = [str(program()), *map(str, arguments)]
    pin = lambda: os.sched_setaffinity(0, cores(1))  # noqa: E731
    return float(subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=pin).stdout)


def peaks(chosen: list[Case]) -> dict:
    """One core's float32 GFLOP/s, and GB/s for arrays as large as potentials that no cache holds; empty
    without a compiler."""
    if program() is None:
        return {}
    streams = {case.streamed_bytes for case in chosen if case.streamed_bytes}
    return {
        "method": "peak.c: multiply-adds in registers; two arrays read, one written; best of several runs",
        "gflops": peak("fma"),
        "stream_gbs": {str(size): peak("stream", size) for size in sorted(streams)},
    }


def floor(case: Case, measured: dict, threads: int = 1) -> float | None:
    """Seconds that the counted work takes at the measured peaks: arithmetic, or moving potentials that no
    cache holds (read forward; for a gradient read backward and written). Exponentials are not counted. None
    where no peak was measured."""
    if not measured:
        return None
    arithmetic = case.flops() / (measured["gflops"] * 1e9 * threads)
    if case.dtype == "float64":
        arithmetic *= 2
    if not case.streamed_bytes:
        return arithmetic
    moved = case.streamed_bytes * (3 if "grad" in case.query else 1)
    return max(arithmetic, moved / (measured["stream_gbs"][str(case.streamed_bytes)] * 1e9))
