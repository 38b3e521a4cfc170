"""The paper estimates of the CUDA kernels."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "estimate_occupancy.py"
spec = importlib.util.spec_from_file_location("estimate_occupancy", SCRIPT)
assert spec is not None
assert spec.loader is not None
estimates = importlib.util.module_from_spec(spec)
spec.loader.exec_module(estimates)


@pytest.mark.parametrize(
    ("registers", "threads", "share"),
    [(32, 256, 1.0), (64, 256, 0.5), (65, 256, 0.375), (128, 512, 0.25), (24, 32, 0.5), (255, 256, 0.125)],
)
def test_occupancy(registers: int, threads: int, share: float) -> None:
    """By hand: 64 warps of 32 registers a thread fill 65,536; more than 32 blocks do not fit."""
    assert estimates.occupancy(registers, threads) == share


def test_the_page_shows_the_table() -> None:
    assert estimates.table() in (ROOT / "docs" / "cuda.md").read_text()
