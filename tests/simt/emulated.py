"""A pytest plugin: operators of chains, factorial chains and trees run on the emulated CUDA kernels.

``pytest -p tests.simt.emulated tests/ops/test_chain_values.py`` runs the ordinary tests of the operators on
the kernels of ``csrc/cuda``, as the emulator of ``tests/simt/runtime.cpp`` executes them.
``STRUCTLV_SIMT_SEED`` is the seed of its schedules, 0 for blocks and threads in order;
``STRUCTLV_SIMT_SHARED`` the bytes of shared memory of a block.
"""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from pathlib import Path

import torch

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "simt" / "libstructlv_emulated.so"
OPERATORS = (
    *(f"chain_{x}" for x in ("log_partition", "inside", "vjp", "marginals", "hvp", "argmax", "sample")),
    *(f"factorial_{x}" for x in ("log_partition", "inside", "vjp", "marginals", "hvp", "argmax", "sample")),
    *(f"pcfg_{x}" for x in ("log_partition", "inside", "vjp", "marginals", "hvp", "argmax", "sample")),
    *(f"lowrank_{x}" for x in ("log_partition", "inside", "vjp", "marginals", "hvp", "sample")),
    *(
        f"chain_{x}"
        for x in ("filter", "filter_inside", "filter_vjp", "relaxed", "relaxed_vjp", "sample_distinct")
    ),
    "gumbel",
)
HOPPER = 227 * 1024  # bytes of shared memory that a block may have there

_held: list[torch.library.Library] = []


@functools.cache
def load() -> ctypes.CDLL:
    """The emulated operators, as ``torch.ops.structlv_emulated``; returns what configures the emulator."""
    torch.ops.load_library(str(LIBRARY))
    emulator = ctypes.CDLL(str(LIBRARY))
    emulator.slv_simt_configure.argtypes = [ctypes.c_uint64, ctypes.c_size_t]
    emulator.slv_simt_switches.restype = ctypes.c_uint64
    return emulator


def configure(seed: int, shared: int = HOPPER) -> None:
    """The seed of schedules, 0 for in order, and the shared memory of a block in bytes."""
    load().slv_simt_configure(seed, shared)


def replace_kernels() -> None:
    """From here on the operators of ``torch.ops.structlv`` run on the emulator, on tensors of the CPU."""
    from structlv import ops  # noqa: F401  (registers what is replaced)

    load()
    library = torch.library.Library("structlv", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators")
        for name in OPERATORS:
            kernel = getattr(torch.ops.structlv_emulated, name).default
            library.impl(name, kernel, "CPU", allow_override=True)
    _held.append(library)


def pytest_configure() -> None:
    configure(
        int(os.environ.get("STRUCTLV_SIMT_SEED", "1")), int(os.environ.get("STRUCTLV_SIMT_SHARED", HOPPER))
    )
    replace_kernels()
