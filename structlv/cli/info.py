"""What `structlv info` prints."""

from __future__ import annotations

import platform

import torch
from rich.console import Console
from rich.table import Table

import structlv
from structlv import _native


def facts() -> dict[str, str]:
    """Names and values, in the order of printing."""
    return {
        "structlv": structlv.__version__,
        "kernels": _kernels(),
        "torch": torch.__version__,
        "torch CPU capability": torch.backends.cpu.get_cpu_capability(),
        "threads": f"{torch.get_num_threads()} (torch)",
        "CUDA": _cuda(),
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }


def show(values: dict[str, str], console: Console) -> None:
    """Print them as two columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, value)
    console.print(table, highlight=False)


def _kernels() -> str:
    if not _native.available():
        return "not compiled; the pure-torch reference is used (right, but much slower)"
    return f"{_native.cpu_capability()}, vectors of {_native.vector_bytes()} bytes"


def _cuda() -> str:
    if torch.version.cuda is None:
        return "torch was built without CUDA"
    if not torch.cuda.is_available():
        return f"torch was built for CUDA {torch.version.cuda}, no device found"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{torch.version.cuda}: {names}"
