"""Is everything that git tracks in the source archive, byte for byte? `check_sdist.py ARCHIVE`.

But for what `sdist.exclude` of pyproject.toml names. Exits 1 and says what is missing or other.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    settings = toml.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]
    excluded = tuple(name + "/" for name in settings["sdist"]["exclude"])
    return [name for name in listed.stdout.split("\0") if name and not name.startswith(excluded)]


def main(archive: str) -> int:
    wrong = [] if tracked() else ["git tracks no file here: nothing to compare with"]
    with tarfile.open(archive) as tar:
        members = {member.name.partition("/")[2]: member for member in tar if member.isfile()}
        for name in tracked():
            packed = tar.extractfile(members[name]) if name in members else None
            if packed is None:
                wrong.append(f"{name}: not in the archive")
            elif packed.read() != (ROOT / name).read_bytes():
                wrong.append(f"{name}: another one in the archive")
    print("\n".join(wrong) if wrong else f"check_sdist: {archive}: {len(members)} files, none missing")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
