"""Loads the compiled extension `structlv._C`, or says once that the pure-torch reference stands in for it.

The kernels for GPUs, `structlv._cuda`, register further implementations of the same operators. They are
loaded where torch has a GPU and they were compiled; elsewhere a GPU's tensors run the reference.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

from structlv import __version__

NOT_COMPILED = (
    "structlv: the compiled kernels (structlv._C) are not part of this installation; every query runs on the "
    "pure-torch reference, which is right but much slower"
)
TWO_COPIES = (
    "another copy of structlv's operators is already loaded in this process{where}. Two cannot live side by "
    "side: remove one (a stale editable install beside a wheel is the usual cause)"
)
STALE = (
    "structlv.{name} was compiled for version {found}, the Python code is version {expected}: install again"
)


def available() -> bool:
    """Whether the compiled kernels are loaded."""
    return _C is not None


def cpu_capability() -> str:
    """Instruction set of the kernels in use: base, avx2 or avx512; "reference" where none are compiled."""
    return str(_C.cpu_capability()) if _C is not None else "reference"


def vector_bytes() -> int:
    """Bytes in one vector register of the kernels in use; 0 where none are compiled."""
    return int(_C.vector_bytes()) if _C is not None else 0


def _load() -> ModuleType | None:
    """Load the extension, which registers its operators as `torch.ops.structlv.*`.

    Warns (RuntimeWarning) and gives None where it was not compiled. Raises ImportError where it was compiled
    for another version, or where another copy's operators are registered: a second set would end the process.
    """
    if "structlv._C" not in sys.modules and hasattr(torch.ops.structlv, "chain_log_partition"):
        raise ImportError(TWO_COPIES.format(where=_loaded_from()))
    try:
        module = import_module("structlv._C")
    except ModuleNotFoundError:
        warnings.warn(NOT_COMPILED, RuntimeWarning, stacklevel=4)  # at the user's import of structlv
        return None
    if module.version != __version__:
        raise ImportError(STALE.format(name="_C", found=module.version, expected=__version__))
    return module


def _loaded_from() -> str:
    """In words, the file of an extension of ours that is mapped into this process; empty where unknown."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "structlv/_C." in line}
    except OSError:
        return ""
    return f" (from {', '.join(sorted(paths))})" if paths else ""


def load_cuda() -> bool:
    """Load the kernels for GPUs; whether they are part of this installation. Needs no GPU itself.

    Raises ImportError where they were compiled for another version.
    """
    spec = find_spec("structlv._cuda")
    if spec is None or spec.origin is None:
        return False
    library = ctypes.CDLL(spec.origin)  # registers the operators
    library.structlv_cuda_version.restype = ctypes.c_char_p
    found = library.structlv_cuda_version().decode()
    if found != __version__:
        raise ImportError(STALE.format(name="_cuda", found=found, expected=__version__))
    return True


_C = _load()
if _C is not None and torch.cuda.is_available():
    load_cuda()
