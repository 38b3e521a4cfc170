"""A hook of mkdocs: the page of examples, each of them run, in the order of ``examples/README.md``.

What a script prints and draws is kept under build/gallery by the digest of its source, so that a second build
is quick. An example that fails stops the build.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "gallery"
LINES = 30  # of what is printed
HEAD = """# Gallery

Each example is a script of its own in `examples/`, which runs in seconds; what it printed and drew is from
the build of this page. They come in the order of the [tutorial](tutorial.md).
"""


class Run(NamedTuple):
    printed: str
    picture: Path | None


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs: adds the page and its pictures."""
    names = re.findall(
        r"^\| [\d., -]+ \| `(\w+)\.py`", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE
    )
    parts = [HEAD]
    for name in names:
        source = (ROOT / "examples" / f"{name}.py").read_text()
        found = run(name, source)
        if found.picture is not None:
            files.append(File.generated(config, f"gallery/{name}.png", abs_src_path=str(found.picture)))
        parts.append(section(name, source, found))
    files.append(File.generated(config, "gallery.md", content="\n".join(parts)))
    return files


def run(name: str, source: str) -> Run:
    """Where no corpora are; scripts that draw are given a file to draw into."""
    draws = "sys.argv" in source
    folder = KEPT / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    printed, picture = folder / "printed.txt", folder / "picture.png"
    if not printed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "STRUCTLV_DATA": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *([str(picture)] if draws else [])]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise PluginError(f"examples/{name}.py failed: {done.stderr[-2000:]}")
        printed.write_text(done.stdout)
    return Run(printed.read_text(), picture if draws else None)


def section(name: str, source: str, found: Run) -> str:
    title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    lines = found.printed.rstrip().splitlines()
    shown = "\n".join(lines[:LINES] + ["..."] * (len(lines) > LINES))
    picture = f"\n![{title}](gallery/{name}.png)\n" if found.picture is not None else ""
    folded = "\n".join(f"    {line}".rstrip() for line in source.rstrip().splitlines())
    return f"""
## {title.rstrip(".")}

`examples/{name}.py`. {text}
{picture}
```text
{shown}
```

??? note "Source"

    ```python
{folded}
    ```
"""
