"""The one place of tolerances. A test names what it compares; how close that must be is decided here.

Errors of log Z, scores and other quantities in nats are relative to max(1, |expected|); errors of
probabilities, marginals and gradients are absolute, relative to the largest expected entry if that exceeds 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

NATS = {torch.float64: 1e-10, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}
PERTURBED = {torch.float64: 1e-10, torch.float32: 1e-5}
PROBABILITIES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
FILTERED = {torch.float64: 1e-10, torch.float32: 4e-6}
SECOND_ORDER = {torch.float64: 1e-9, torch.float32: 2e-4}
CHI_SQUARE = (
    1e-4  # the p-value under which a test of a sampler fails; seeds are fixed, so it never does by chance
)


def assert_nats(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Log-partitions, scores, log-probabilities: infinities equal, the rest close; NaN fails."""
    _assert_relative(actual, expected, NATS[dtype or actual.dtype])


def assert_perturbed(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Log-probabilities with noise, from potentials of ``dtype``: sums over the choices of a structure."""
    _assert_relative(actual, expected, PERTURBED[dtype])


def _assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    a, e = _pair(actual, expected)
    finite = e.isfinite()
    assert torch.equal(a[~finite], e[~finite]), f"infinities differ: {actual} and {expected}"
    error = (a - e)[finite].abs() / e[finite].abs().clamp(min=1)
    assert bool((error <= tolerance).all()), f"relative error {_worst(error)} > {tolerance}"


def assert_filtered(actual: Tensor, expected: Tensor) -> None:
    """Logarithms of probabilities that were themselves found in the precision of ``actual``; NaN fails."""
    a, e = _pair(actual, expected)
    assert torch.equal(a.isfinite(), e.isfinite()), f"infinities differ: {actual} and {expected}"
    error = (a - e)[e.isfinite()].abs() / e[e.isfinite()].abs().clamp(min=1)
    assert bool((error <= FILTERED[actual.dtype]).all()), f"relative error {_worst(error)}"


def assert_probabilities(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Marginals and gradients of log Z; NaN fails."""
    _assert_scaled(actual, expected, PROBABILITIES[dtype or actual.dtype])


def assert_second_order(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Hessian-vector products; NaN fails."""
    _assert_scaled(actual, expected, SECOND_ORDER[dtype or actual.dtype])


def _assert_scaled(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    a, e = _pair(actual, expected)
    scale = max(1.0, float(e.abs().max())) if e.numel() else 1.0
    error = (a - e).abs() / scale
    assert bool((error <= tolerance).all()), f"error {_worst(error)} > {tolerance}"


def _pair(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    return actual.detach().double(), expected.detach().double()


def _worst(error: Tensor) -> float:
    return float("nan") if bool(error.isnan().any()) else float(error.max())
