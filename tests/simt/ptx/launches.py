"""The drivers of tests/simt on interpreted PTX: nvcc's launch code calls a mock runtime, and that calls this.

``Driver("chain").run("holes")`` runs one problem of ``chain_check.cpp``, in float32 and in float64. What a
kernel or its launch did that it must not, and a result that differs from the driver's float64 recursion, is a
PtxError.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.simt.ptx.arithmetic import NOISE
from tests.simt.ptx.counters import Counters
from tests.simt.ptx.machine import Machine
from tests.simt.ptx.parse import Kernel, Module, PtxError

BUILD = Path(__file__).resolve().parents[3] / "build" / "simt" / "ptx"
COMPILED = (BUILD / "libchain_ptx.so").exists()
WHY_NOT = "make test-cuda compiles the kernels to PTX, where nvcc is installed"
DRIVERS = Path(__file__).resolve().parents[1]
MOST_TEXT = 1999


class Array(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_void_p), ("bytes", ctypes.c_uint64))


class Launch(ctypes.Structure):
    """As in mock_runtime.cpp."""

    _fields_ = (
        ("kernel", ctypes.c_char_p), ("blocks", ctypes.c_uint64), ("threads", ctypes.c_uint64),
        ("shared", ctypes.c_uint64), ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("arrays", ctypes.POINTER(Array)), ("array_count", ctypes.c_uint64), ("error", ctypes.c_void_p),
    )  # fmt: skip


INTERPRETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(Launch))


@functools.cache
def module(structure: str) -> Module:
    return Module((BUILD / structure / f"{structure}.ptx").read_text())


@functools.cache
def find_kernel(name: str) -> Kernel:
    for path in sorted(BUILD.glob("*/*.ptx")):
        if name in module(path.stem).texts:
            return module(path.stem)[name]
    raise PtxError(f"no kernel {name}")


@functools.cache
def readable(name: str) -> str:
    """``chain_forward<float, Resident<float>>`` for the mangled name."""
    done = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout
    return done.split("(")[0].replace("void ", "").replace("slv::cuda::", "").strip()


def _memory(begin: int, size: int) -> np.ndarray:
    return (
        np.frombuffer((ctypes.c_uint8 * size).from_address(begin), np.uint8)
        if size
        else np.empty(0, np.uint8)
    )


def _parameters(kernel: Kernel, arguments: ctypes.Array) -> np.ndarray:
    block = np.zeros(kernel.parameter_bytes, np.uint8)
    for i, (at, size) in enumerate(kernel.parameters.values()):
        block[at : at + size] = _memory(arguments[i], size)
    return block


def problems(structure: str) -> list[str]:
    """The names of a driver's problems."""
    return re.findall(r'^    \{"([^"]+)",', (DRIVERS / f"{structure}_check.cpp").read_text(), re.MULTILINE)


class Driver:
    """A driver as a library; `counters` are those of its launches by kernel."""

    def __init__(self, structure: str, noise: int = NOISE) -> None:
        self.library = ctypes.CDLL(str(BUILD / f"lib{structure}_ptx.so"))
        self.counters: dict[str, Counters] = {}
        self.noise, self.launches = noise, 0
        self._callback = INTERPRETER(self._interpret)  # kept alive
        self.library.slv_ptx_interpret_by(self._callback)

    def _interpret(self, pointer: ctypes._Pointer) -> None:
        launch = pointer.contents
        name = readable(launch.kernel.decode())
        try:
            kernel = find_kernel(launch.kernel.decode())
            arrays = [_memory(x.begin, x.bytes) for x in launch.arrays[: launch.array_count] if x.bytes]
            parameters = _parameters(kernel, launch.arguments)
            machine = Machine(
                kernel, launch.blocks, launch.threads, launch.shared, parameters, arrays, noise=self.noise,
                seed=self.launches,
            )  # fmt: skip
            self.counters.setdefault(name, Counters()).add(machine.run())
            self.launches += 1
        except Exception as error:  # an exception would not pass through the C++ between
            text = (
                f"{name}: {error if isinstance(error, PtxError) else repr(error)}".encode()[:MOST_TEXT]
                + b"\0"
            )
            ctypes.memmove(launch.error, text, len(text))

    def run(self, case: str) -> dict[str, Counters]:
        words = [b"driver", f"case={case}".encode(), b"1"]
        arguments = (ctypes.c_char_p * len(words))(*words)
        before = self.launches
        with tempfile.TemporaryFile() as file:
            failed = _with_output_to(file.fileno(), lambda: self.library.slv_check(len(words), arguments))
            file.seek(0)
            said = file.read().decode().strip()
        if failed:
            raise PtxError(said)
        if self.launches == before:
            raise PtxError(f"no problem is called {case}")
        return self.counters


def _with_output_to(descriptor: int, call) -> int:
    """What C prints meanwhile goes there."""
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        return call()
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
