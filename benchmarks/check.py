"""How far an answer may be from the float64 reference, and a refusal of what is too far.

The limits are loose on purpose: they catch a wrong computation. The errors themselves are part of the
results.
"""

from __future__ import annotations

import numpy as np

LIMIT = {
    "log_z": 1e-4,
    "unary": 2e-3,
    "transition": 2e-3,
    "gradient": 2e-3,
    "rules": 2e-3,
    "root": 2e-3,
    "score": 1e-5,
    "frequency": 0.05,
    "typicality": 8.0,
}


class Wrong(Exception):
    """An implementation's answer is not the reference's."""


def relative(value: np.ndarray, wanted: np.ndarray) -> float:
    """Largest error, relative to max(1, |wanted|) for scalars per row and to the largest entry for arrays."""
    scale = np.maximum(1, np.abs(wanted) if wanted.ndim == 1 else np.abs(wanted).max())
    if value.shape != wanted.shape:
        raise Wrong(f"shape {value.shape}, expected {wanted.shape}")
    return float(np.max(np.abs(value - wanted) / scale))


def require(found: dict) -> None:
    """Raises Wrong if any error is NaN or above its limit."""
    for name, error in found.items():
        if not error <= LIMIT[name]:
            raise Wrong(f"{name}: error {error:.1e} is above {LIMIT[name]:.0e}")
