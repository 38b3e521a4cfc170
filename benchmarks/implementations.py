"""What can be run, and the process each one runs in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from benchmarks import envs

PEER_MODULES = Path(__file__).with_name("peers")


@dataclass(frozen=True)
class Implementation:
    """`module` of benchmarks.peers in `environment`, with `variables` added to the process's own."""

    name: str
    module: str
    environment: str
    variables: tuple[tuple[str, str], ...] = ()
    ours: bool = False

    def has(self, structure: ModuleType) -> bool:
        """Whether there is a module for this structure."""
        return (PEER_MODULES / f"{self.module}{structure.SUFFIX}.py").exists()

    def python(self) -> Path:
        return envs.python(self.environment)

    def available(self) -> bool:
        return envs.available(self.environment)


OURS = (
    Implementation("structlv", "structlv", "", ours=True),
    Implementation("structlv validated", "structlv", "", (("BENCHMARK_VALIDATE", "1"),), ours=True),
    Implementation("structlv.ops", "structlv_ops", "", ours=True),
)
PEERS = (
    Implementation("product space", "structlv_product", ""),
    Implementation("strong torch", "strong_torch", ""),
    Implementation("dynamax", "dynamax", "dynamax"),
    Implementation("dynamax smoother", "dynamax_smoother", "dynamax"),
    Implementation("hmmlearn", "hmmlearn", "hmmlearn"),
    Implementation("pomegranate", "pomegranate", "pomegranate"),
    Implementation("pytorch-crf", "pytorch_crf", "pytorch_crf"),
    Implementation("torch-struct", "torch_struct", "torch_struct"),
)
INSTRUCTION_SETS = tuple(
    Implementation(f"structlv {name}", "structlv", "", (("STRUCTLV_CPU", name),), ours=True)
    for name in ("avx512", "avx2", "base")
)
ALL = {implementation.name: implementation for implementation in (*OURS, *PEERS, *INSTRUCTION_SETS)}


def named(names: str | None, default: tuple[Implementation, ...]) -> list[Implementation]:
    """Comma-separated names -> those that are installed. Raises ValueError for an unknown name."""
    chosen = [ALL[name] for name in names.split(",")] if names and _known(names) else list(default)
    for implementation in chosen:
        if not implementation.available():
            print(f"no environment for {implementation.name}: run `python -m benchmarks envs` to include it")
    return [implementation for implementation in chosen if implementation.available()]


def _known(names: str) -> bool:
    unknown = [name for name in names.split(",") if name not in ALL]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(ALL)}")
    return True
