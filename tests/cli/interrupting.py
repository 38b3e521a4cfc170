"""A command that is interrupted by a signal as soon as it has a checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def interrupted(arguments: list[str], out: Path, name: str) -> tuple[int, str]:
    """Status and standard error of ``structlv *arguments``, which writes to ``out``, after the signal.

    On a busy machine the command may be done before the signal comes: then it is tried again, three times in
    all.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "structlv", *arguments]
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_heed,
        ) as run:
            end = time.monotonic() + 60
            while not (out / "last.ckpt").exists():
                assert run.poll() is None, run.communicate()
                assert time.monotonic() < end, "no checkpoint within a minute"
                time.sleep(0.02)
            run.send_signal(getattr(signal, name))
            _, errors = run.communicate(timeout=30)
        if run.returncode != 0:
            break
    return run.returncode, errors


def _heed() -> None:
    """Ctrl-C is ignored in what a shell started in the background, and in its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
