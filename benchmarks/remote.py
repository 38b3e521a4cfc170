"""The parent's handle on a worker process: its environment, pinning, commands and time limits."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path

from benchmarks.implementations import Implementation

MEMORY_LIMIT = 10 * 2**30
SETTINGS_OF_OTHERS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH")  # would slow or redirect a peer


class Failed(Exception):
    """A command that gave no result; the text says why."""


def environment(threads: int, variables: tuple[tuple[str, str], ...]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS_OF_OTHERS}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    multi = "true" if threads > 1 else "false"
    flags = {"XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={multi}", "JAX_PLATFORMS": "cpu"}
    return kept | dict.fromkeys(names, str(threads)) | flags | dict(variables)


def cores(threads: int) -> set[int]:
    """The last `threads` cores we may use: the first one is the busiest with everything else."""
    return set(sorted(os.sched_getaffinity(0))[-threads:])


class Remote:
    """One implementation with one number of threads, started when first used and again after a failure."""

    def __init__(self, implementation: Implementation, threads: int, log: Path):
        self.implementation, self.threads, self.log = implementation, threads, log
        self.process: subprocess.Popen | None = None

    @property
    def key(self) -> str:
        return f"{self.implementation.name}/{self.threads}"

    def start(self) -> subprocess.Popen:
        script = Path(__file__).with_name("worker.py")
        arguments = [self.implementation.module, str(self.threads), str(MEMORY_LIMIT)]
        with self.log.open("a") as log:
            return subprocess.Popen(
                [str(self.implementation.python()), str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self.threads, self.implementation.variables),
                preexec_fn=lambda: os.sched_setaffinity(0, cores(self.threads)),
            )

    def ask(self, limit: float = 60, **command) -> dict:
        """Sends a command and waits for its answer. Raises Failed; a process that gave none is ended."""
        self.process = self.process or self.start()
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], limit)
            line = self.process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.stop()
            raise Failed(f"over the time limit of {limit:g} s" if line is None else _died(code))
        reply = json.loads(line)
        if "status" in reply:
            raise Failed(reply["status"])
        return reply

    def stop(self) -> int | None:
        if self.process is None:
            return None
        self.process.stdin.close()
        try:
            code = self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process = None
        return code


def _died(code: int | None) -> str:
    return "process killed (out of memory?)" if code == -9 else f"process ended with code {code}: see the log"
