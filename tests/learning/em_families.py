"""HMMs of every kind of emission that EM knows, their data, and what a climb is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

from structlv import HMM
from structlv.learning import (
    Prior,
    fit_em,
)

F64 = torch.float64
B, N, K, V, D = 6, 9, 3, 4, 2
LENGTHS = torch.tensor([9, 7, 5, 2, 1, 0])
ROUNDING = 1e-9


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def spd(*shape: int) -> Tensor:
    root = rand(*shape, D, D)
    return root @ root.mT + 0.5 * torch.eye(D, dtype=F64)


def symbols() -> tuple[Any, Tensor]:
    return rand(K, V), torch.randint(V, (B, N))


def normal() -> tuple[Any, Tensor]:
    return td.Normal(rand(K), rand(K).exp()), 3 + rand(B, N)


def diagonal() -> tuple[Any, Tensor]:
    return td.Independent(td.Normal(rand(K, D), rand(K, D).exp()), 1), 3 + rand(B, N, D)


def full() -> tuple[Any, Tensor]:
    return td.MultivariateNormal(rand(K, D), spd(K)), 3 + rand(B, N, D)


def poisson() -> tuple[Any, Tensor]:
    return td.Poisson(rand(K).exp()), torch.randint(9, (B, N))


def poissons() -> tuple[Any, Tensor]:
    return td.Independent(td.Poisson(rand(K, D).exp()), 1), torch.randint(9, (B, N, D))


def mixture() -> tuple[Any, Tensor]:
    parts = td.MultivariateNormal(rand(K, 2, D), spd(K, 2))
    return td.MixtureSameFamily(td.Categorical(logits=rand(K, 2)), parts), 3 + rand(B, N, D)


def mixture_of_diagonals() -> tuple[Any, Tensor]:
    parts = td.Independent(td.Normal(rand(K, 2, D), rand(K, 2, D).exp()), 1)
    return td.MixtureSameFamily(td.Categorical(logits=rand(K, 2)), parts), 3 + rand(B, N, D)


def mixture_of_counts() -> tuple[Any, Tensor]:
    parts = td.Poisson(rand(K, 2).exp())
    return td.MixtureSameFamily(td.Categorical(logits=rand(K, 2)), parts), torch.randint(9, (B, N))


FAMILIES = [
    symbols,
    normal,
    diagonal,
    full,
    poisson,
    poissons,
    mixture,
    mixture_of_diagonals,
    mixture_of_counts,
]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
PRIOR = Prior(
    initial=0.1,
    transition=torch.rand(K, K, generator=torch.Generator().manual_seed(0)),
    emission=0.3,
    covariance=0.5,
    final=0.2,
    weights=0.4,
    degrees=1.5,
    mean=1.0,
    mean_weight=0.6,
    events=0.7,
    exposure=0.2,
)
PRIORS = [Prior(covariance=0.1), PRIOR]


def model_of(emission: Any, *, stop: bool = False) -> HMM:
    return HMM(rand(K), rand(K, K), emission, final_logits=rand(K) if stop else None)


def missing() -> Tensor:
    mask = torch.rand(B, N) < 0.9
    mask[:, 0] = True
    return mask


def fit(start: Any, x: Tensor, *given: Any, **options: Any) -> Any:
    return fit_em(start, x, *given, **{"progress": False, "iterations": 15, "tolerance": -1.0, **options})


def assert_climbs(result: Any) -> None:
    """Every iteration; the engine would itself refuse a fall."""
    assert all(b >= a - ROUNDING * max(1.0, abs(a)) for a, b in pairwise(result.history))
    assert result.history[-1] > result.history[0] + 0.1
