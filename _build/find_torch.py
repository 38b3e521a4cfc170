"""Where torch and its stable-ABI headers are: for CMakeLists.txt (as a script) and the build backend."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig


def torch_root() -> str | None:
    """Folder of torch: $STRUCTLV_TORCH_ROOT, an importable one, or one beside the building interpreter.

    The last is what makes pip's isolated builds work: they hide site-packages, but not its path.
    """
    spec = importlib.util.find_spec("torch")
    candidates = (
        os.environ.get("STRUCTLV_TORCH_ROOT"),
        os.path.dirname(spec.origin) if spec is not None and spec.origin else None,
        os.path.join(sysconfig.get_path("platlib"), "torch"),
    )
    for root in candidates:
        if root and os.path.isdir(os.path.join(root, "include", "torch", "csrc", "stable")):
            return root
    return None


if __name__ == "__main__":
    sys.stdout.write(torch_root() or "")
