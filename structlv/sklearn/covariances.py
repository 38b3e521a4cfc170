"""Covariances in hmmlearn's four shapes, and as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributions as td
from torch import Tensor

from structlv.sklearn.sequences import Array

TYPES = ("spherical", "diag", "full", "tied")


def check_type(kind: str) -> None:
    """Raises ValueError for another."""
    if kind not in TYPES:
        raise ValueError(f"covariance_type must be one of {TYPES}, found {kind!r}")


def of_data(X: Array, least: float) -> Array:
    """(d, d): the covariance of the rows, and ``least`` on its diagonal. Raises ValueError with one row."""
    if len(X) < 2:
        raise ValueError(f"a covariance needs 2 samples or more, found {len(X)} sample")
    d = X.shape[1]
    return np.cov(X.T).reshape(d, d) + least * np.eye(d)


def compact(covariance: Array, kind: str, *rows: int) -> Array:
    """One covariance (d, d) for all rows, in the shape of its kind. (Of "tied": with rows but the last.)"""
    if kind == "spherical":
        return np.full(rows, covariance.trace() / len(covariance))
    if kind == "diag":
        return np.tile(covariance.diagonal(), (*rows, 1))
    return np.tile(covariance, (*(rows if kind == "full" else rows[:-1]), 1, 1))


def checked(covars: Any, kind: str, *rows: int) -> Array:
    """As an array of the kind's shape. Raises ValueError where it is none, or not positive."""
    given = np.array(covars, dtype=np.float64)
    lead = rows if kind != "tied" else rows[:-1]
    ends = {"spherical": 0, "diag": 1, "full": 2, "tied": 2}[kind]
    if given.ndim != len(lead) + ends or given.shape[: len(lead)] != lead:
        wanted = ", ".join([*map(str, lead), *["n_features"] * ends])
        raise ValueError(f"{kind} covars_ must have shape ({wanted}), found {given.shape}")
    positive = (given > 0).all() if ends < 2 else _positive_definite(given)
    if not positive:
        raise ValueError(f"{kind} covars_ must be positive" + (" definite" if ends == 2 else ""))
    return given


def _positive_definite(matrices: Array) -> bool:
    symmetric = np.allclose(matrices, np.swapaxes(matrices, -1, -2))
    return bool(symmetric and (np.linalg.eigvalsh(matrices) > 0).all())


def normals(means: Array, covars: Array, kind: str) -> td.Distribution:
    """Normal distributions, a batch (*rows) of them, for ``means`` (*rows, d)."""
    m = torch.as_tensor(np.array(means, dtype=np.float64))
    c = torch.as_tensor(np.array(covars, dtype=np.float64))
    if kind in ("spherical", "diag"):
        variances = c.unsqueeze(-1) if kind == "spherical" else c
        return td.Independent(td.Normal(m, variances.sqrt().expand_as(m)), 1)
    if kind == "tied":
        c = c.unsqueeze(-3)
    return td.MultivariateNormal(m, c.expand(*m.shape, m.shape[-1]))


def parameters(normal: Any, kind: str) -> tuple[Array, Array]:
    """Means and covariances of `normals`, in the kind's shape."""
    if kind in ("spherical", "diag"):
        inner = normal.base_dist
        variances = inner.scale.square()
        return inner.loc.numpy(), (variances[..., 0] if kind == "spherical" else variances).numpy()
    found = normal.covariance_matrix
    return normal.loc.numpy(), (found[..., 0, :, :] if kind == "tied" else found).numpy()


def tensor(value: Any) -> Tensor:
    return torch.as_tensor(np.array(value, dtype=np.float64))
