"""HMMs that emit counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributions as td
from sklearn.utils.validation import check_non_negative
from torch import Tensor

from structlv.sklearn.chain import ChainEstimator
from structlv.sklearn.sequences import Array


class PoissonHMM(ChainEstimator):
    """An HMM over vectors of counts, independent of one another given the state.

    Args: those of `CategoricalHMM`, but for symbols; and
        lambdas_prior, lambdas_weight: of a Gamma prior, as that many more events in that many more samples.
        params, init_params: s, t, and l for ``lambdas_``.

    Attributes:
        startprob_ (k), transmat_ (k, k), lambdas_ (k, d): rates; monitor_, n_iter_.
    """

    _names = {"l": "rates"}  # noqa: RUF012

    def __init__(
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        lambdas_prior: Any = 0.0,
        lambdas_weight: Any = 0.0,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        n_init: int = 1,
        verbose: bool = False,
        params: str = "stl",
        init_params: str = "stl",
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.lambdas_prior = lambdas_prior
        self.lambdas_weight = lambdas_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.n_init = n_init
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    def _rows(self, X: Array) -> Tensor:
        check_non_negative(X, "PoissonHMM")
        if (np.round(X) != X).any():
            raise ValueError("X must be counts, found numbers that are no integers")
        return torch.tensor(X)

    def _first_emission(self, X: Array, rng: np.random.RandomState) -> dict[str, Array]:
        if not self._new("l", "lambdas_"):
            return {}
        mean, variance = max(X.mean(), 1e-3), max(X.var(), 1e-3)  # a Gamma of the data's mean and variance
        size = (self.n_components, X.shape[1])
        return {"lambdas_": rng.gamma(mean**2 / variance, variance / mean, size).clip(1e-3)}

    def _emission(self, of: Any) -> td.Distribution:
        rates = torch.as_tensor(np.array(of.lambdas_, dtype=np.float64))
        if rates.dim() != 2 or len(rates) != self.n_components or not bool((rates >= 0).all()):
            expected = f"({self.n_components}, n_features)"
            raise ValueError(f"lambdas_ must be rates {expected}, at least 0, found {tuple(rates.shape)}")
        return td.Independent(td.Poisson(rates), 1)

    def _store_emission(self, emission: Any) -> None:
        self.lambdas_ = emission.base_dist.rate.numpy()

    def sample(
        self, n_samples: int = 1, random_state: Any = None, currstate: Any = None
    ) -> tuple[Array, Array]:
        """As of the other models; observations are integers."""
        counts, states = super().sample(n_samples, random_state, currstate)
        return counts.astype(np.int64), states

    def _prior(self) -> dict[str, Any]:
        return {
            "events": torch.as_tensor(np.array(self.lambdas_prior, dtype=np.float64)),
            "exposure": torch.as_tensor(np.array(self.lambdas_weight, dtype=np.float64)),
        }
