"""Paper estimates for the CUDA kernels: `estimate_occupancy.py` prints the table of `docs/cuda.md`.

Occupancy is the share of a multiprocessor's warps that registers leave room for, by the allocation rules of
NVIDIA's "CUDA C++ Programming Guide" (compute capability 9.0: four partitions of 16,384 registers, given to
warps by 256; 64 warps, 32 blocks), at the most threads that a kernel is launched with. Shared memory, which
depends on the problem, is left out. Registers are those of `tests/simt/resources.json`, sm_90, float32.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CUDA = ROOT / "csrc" / "cuda"
ARCHITECTURE = "sm_90"
PARTITIONS, REGISTERS, UNIT, WARPS, BLOCKS = 4, 16_384, 256, 64, 32
SHOWN = [
    "chain_forward",
    "chain_backward",
    "chain_edges",
    "chain_chunk_products",
    "chain_chunk_starts",
    "chain_chunk_ends",
    "chain_argmax",
    "chain_sample",
    "chain_log_forward",
    "chain_tangent",
    "chain_filter",
    "chain_relaxed",
    "chain_distinct",
    "noise_gumbel",
    "factorial_scan",
    "factorial_adjoint",
    "factorial_edges",
    "factorial_sample",
    "factorial_forward",
    "factorial_backward",
    "factorial_tangent",
    "pcfg_hoist",
    "pcfg_scan",
    "pcfg_adjoint",
    "pcfg_unhoist_rules",
    "pcfg_unhoist_words",
    "pcfg_inside",
    "pcfg_pairs",
    "pcfg_rules",
    "pcfg_children",
    "pcfg_means",
    "pcfg_sample",
    "lowrank_side",
    "lowrank_head",
    "lowrank_scan",
    "lowrank_form_symbols",
    "lowrank_adjoint",
    "lowrank_count_table",
    "lowrank_product",
    "lowrank_splits",
    "lowrank_divide",
    "lowrank_means",
    "lowrank_sample",
]


def launch_bounds() -> dict[str, int]:
    """The most threads of a block of each kernel, from `SLV_KERNEL(threads) name(`."""
    text = "\n".join(path.read_text() for path in sorted(CUDA.glob("*.cuh")))
    names = {name: int(value) for name, value in re.findall(r"\b(k\w+) = (\d+)\b", text)}
    found = re.findall(r"SLV_KERNEL\(([^)]*)\)\s+(\w+)\(", text)
    return {kernel: _product(bound, names) for bound, kernel in found}


def _product(text: str, names: dict[str, int]) -> int:
    value = 1
    for factor in text.split("*"):
        name = factor.strip()
        value *= int(name) if name.isdigit() else names[name]
    return value


def occupancy(registers: int, threads: int) -> float:
    """The share of a multiprocessor's warps."""
    of_warp = -(-registers * 32 // UNIT) * UNIT
    room = REGISTERS // of_warp * PARTITIONS
    of_block = -(-threads // 32)
    return min(min(room, WARPS) // of_block, BLOCKS) * of_block / WARPS


def table() -> str:
    """Markdown rows: kernel, threads, registers, occupancy."""
    known = json.loads((ROOT / "tests" / "simt" / "resources.json").read_text())["registers"]
    bounds = launch_bounds()
    rows = ["| kernel | threads | registers | occupancy |", "|---|---|---|---|"]
    for kernel in SHOWN:
        name = next(n for n in known if n.split("<")[0] == kernel and "float" in n)
        registers, threads = known[name][ARCHITECTURE], bounds[kernel]
        rows.append(f"| `{kernel}` | {threads} | {registers} | {occupancy(registers, threads):.0%} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
