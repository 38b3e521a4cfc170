"""The process of one implementation: reads one JSON command per line, answers with one JSON line.

Run as a script by an interpreter that has numpy and the implementation's own packages, and not necessarily
this project. Commands: ``{"do": "versions"}``, ``{"do": "prepare", "case": NAME, "file": NPZ}`` (checks the
answer against the reference's, kept in the file), ``{"do": "time", "calls": N}``, ``{"do": "memory",
"case": NAME, "file": NPZ}``.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

# This directory itself must not be searched (its modules have everyday names), and an installed package
# goes first.
sys.path[:1] = []
sys.path.append(str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from benchmarks import cases, check  # noqa: E402


def to_numpy(value) -> np.ndarray:
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


def errors(case: cases.Case, answer, inputs: dict, wanted: dict, *, copies: bool = False) -> dict:
    arrays = [to_numpy(value) for value in answer]
    return case.structure.errors(case.query, case.size, arrays, inputs, wanted, copies)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float], calls: int) -> dict:
    """Seconds per call since `start`: by the clock, and of processor time (all threads)."""
    wall, cpu = (after - before for after, before in zip(now(), start, strict=True))
    return {"wall": wall / calls, "cpu": cpu / calls}


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line, as every library's own arrays do, numpy's excepted."""
    line = 64
    memory = np.empty(array.nbytes + line, np.uint8)
    start = -memory.ctypes.data % line
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # imported from a checkout
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


class Worker:
    def __init__(self, module: str, threads: int):
        self.module = module
        self.peer = importlib.import_module(f"benchmarks.peers.{module}")
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        self.call = None

    def callable(self, case: cases.Case, inputs: dict):
        """The query as a function without arguments, from the peer's module for this structure."""
        name = f"benchmarks.peers.{self.module}{case.structure.SUFFIX}"
        if importlib.util.find_spec(name) is None:
            raise NotImplementedError(f"{self.module} has no such structure")
        return importlib.import_module(name).prepare(case.query, inputs)

    def versions(self) -> dict:
        return {name: version(name) for name in self.peer.PACKAGES}

    def prepare(self, case: str, file: str) -> dict:
        """Checks a case and gives its errors and the first call's time."""
        parsed = cases.parse(case)
        with np.load(file) as stored:
            arrays = dict(stored)
        inputs = {name: aligned(x) for name, x in arrays.items() if not name.startswith("wanted_")}
        wanted = {name: arrays[f"wanted_{name}"] for name in (n[7:] for n in arrays if n not in inputs)}
        found = self._check_frequencies(parsed) if parsed.query.endswith("sample") else {}
        self.call = self.callable(parsed, inputs)
        start = now()
        answer = self.call()
        first = elapsed(start, 1)
        found |= errors(parsed, answer, inputs, wanted)
        check.require(found)
        return {"errors": found, "first": first}

    def _check_frequencies(self, case: cases.Case) -> dict:
        small = case.small()
        inputs = small.inputs(copies=True)
        answer = self.callable(small, inputs)()
        return errors(small, answer, inputs, case.structure.expected(case.query, inputs), copies=True)

    def time(self, calls: int) -> dict:
        """Times `calls` calls, after one that fills the caches."""
        if calls > 1:
            self.call()
        start = now()
        for _ in range(calls):
            self.call()
        return elapsed(start, calls)

    def memory(self, case: str, file: str) -> dict:
        """Peak resident bytes of one call above those before it, with code and inputs loaded and compiled."""
        parsed = cases.parse(case)
        self.callable(parsed, parsed.small().inputs())()
        with np.load(file) as stored:
            inputs = {name: stored[name] for name in stored if not name.startswith("wanted_")}
        call = self.callable(parsed, inputs)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        call()
        return {"peak_bytes": _status("VmHWM") - before}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def answer(worker: Worker, command: dict) -> dict:
    """The command's result, or {"status": words} for whatever went wrong."""
    try:
        return getattr(worker, command.pop("do"))(**command)
    except NotImplementedError as error:
        return {"status": f"unsupported: {error}"}
    except check.Wrong as error:
        return {"status": f"WRONG: {error}"}
    except MemoryError:
        return {"status": "out of memory"}
    except Exception as error:
        if any(words in str(error) for words in ("can't allocate memory", "bad_alloc", "RESOURCE_EXHAUSTED")):
            return {"status": "out of memory"}
        traceback.print_exc()
        return {"status": f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}


def main(module: str, threads: str, memory_limit: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_limit), int(memory_limit)))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    worker = Worker(module, int(threads))
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
