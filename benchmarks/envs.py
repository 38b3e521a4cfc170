"""One virtual environment per peer, because their requirements do not agree with each other or with ours.

``python -m benchmarks envs`` creates ``benchmarks/.envs/NAME`` from ``benchmarks/peers/NAME.txt`` (pinned;
the results record every version) for every peer, or for those named. An environment whose list has not
changed is left alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVS = HERE / ".envs"


def requirements(peer: str) -> Path:
    return HERE / "peers" / f"{peer}.txt"


def python(peer: str) -> Path:
    """The interpreter that runs `peer`: its environment's, or this one where it has no list of its own."""
    if not requirements(peer).exists():
        return Path(sys.executable)
    return ENVS / peer / "bin" / "python"


def available(peer: str) -> bool:
    return not requirements(peer).exists() or (ENVS / peer / "installed.txt").exists()


def create(peer: str) -> None:
    """Creates the environment of `peer`, or does nothing if its pinned list is already installed."""
    wanted = requirements(peer).read_text()
    stamp = ENVS / peer / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"{peer}: up to date", flush=True)
        return
    print(f"{peer}: installing {', '.join(wanted.split())}", flush=True)
    shutil.rmtree(ENVS / peer, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(ENVS / peer)], check=True)
    install = [str(python(peer)), "-m", "pip", "install", "--quiet", "-r", str(requirements(peer))]
    subprocess.run(install, check=True)
    stamp.write_text(wanted)


def main(peers: list[str]) -> None:
    for peer in peers or sorted(path.stem for path in (HERE / "peers").glob("*.txt")):
        create(peer)
