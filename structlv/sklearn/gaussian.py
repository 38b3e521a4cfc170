"""HMMs that emit vectors from a normal distribution for each state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributions as td
from sklearn.cluster import KMeans
from torch import Tensor

from structlv.learning import Tied
from structlv.sklearn import covariances
from structlv.sklearn.chain import ChainEstimator
from structlv.sklearn.sequences import Array


class GaussianHMM(ChainEstimator):
    """An HMM over vectors, normally distributed given the state.

    Args: those of `CategoricalHMM`, but for symbols; and
        covariance_type: "spherical", "diag", "full", or "tied", one full matrix for all states.
        min_covar: added to the variances of the data to begin with.
        means_prior, means_weight: as that many more samples at that mean in every state.
        covars_prior, covars_weight: B and w of a pull -trace(B C^-1) / 2 - a log det C / 2 on covariances,
            where a is max(w - 1, 0) for "spherical" and "diag", else max(w - n_features, 0). A number is
            that in every place of B, as in hmmlearn.
        params, init_params: s, t, m for ``means_``, c for ``covars_``.

    Attributes:
        startprob_ (k), transmat_ (k, k), means_ (k, d); monitor_, n_iter_.
        covars_: read as (k, d, d); set in the shape of its type: (k,), (k, d), (k, d, d) or (d, d).
    """

    _names = {"m": "means", "c": "covariance"}  # noqa: RUF012

    def __init__(
        self,
        n_components: int = 1,
        covariance_type: str = "diag",
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        means_prior: Any = 0,
        means_weight: Any = 0,
        covars_prior: Any = 1e-2,
        covars_weight: float = 1,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        n_init: int = 1,
        verbose: bool = False,
        params: str = "stmc",
        init_params: str = "stmc",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.n_init = n_init
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    @property
    def covars_(self) -> Array:
        """(k, d, d), whatever the type."""
        if not hasattr(self, "_covars_"):
            raise AttributeError("covars_ is not set")
        kind, d = self.covariance_type, np.shape(self.means_)[-1]
        if kind == "full":
            return self._covars_
        if kind == "tied":
            return np.tile(self._covars_, (self.n_components, 1, 1))
        rows = self._covars_ if kind == "diag" else np.tile(self._covars_[:, None], (1, d))
        return rows[:, :, None] * np.eye(d)

    @covars_.setter
    def covars_(self, covars: Any) -> None:
        covariances.check_type(self.covariance_type)
        self._covars_ = covariances.checked(covars, self.covariance_type, self.n_components)

    def _rows(self, X: Array) -> Tensor:
        return torch.tensor(X)

    def _first_emission(self, X: Array, rng: np.random.RandomState) -> dict[str, Array]:
        found = {}
        if self._new("m", "means_"):
            found["means_"] = centres(X, self.n_components, rng, self.n_init)
        if self._new("c", "_covars_"):
            covariance = covariances.of_data(X, self.min_covar)
            found["_covars_"] = covariances.compact(covariance, self.covariance_type, self.n_components)
        return found

    def _emission(self, of: Any) -> td.Distribution:
        means = np.asarray(of.means_, dtype=np.float64)
        if means.ndim != 2 or len(means) != self.n_components:
            expected = f"({self.n_components}, n_features)"
            raise ValueError(f"means_ must have shape {expected}, found {means.shape}")
        return covariances.normals(means, of._covars_, self.covariance_type)

    def _store_emission(self, emission: Any) -> None:
        self.means_, self._covars_ = covariances.parameters(emission, self.covariance_type)

    def _check_options(self) -> None:
        super()._check_options()
        covariances.check_type(self.covariance_type)

    def _prior(self) -> dict[str, Any]:
        kind, d = self.covariance_type, self.n_features_in_
        least = covariances.tensor(self.covars_prior)
        if kind in ("full", "tied") and least.dim() < 2:
            least = least.expand(d, d)
        spare = self.covars_weight - (1 if kind in ("spherical", "diag") else d)
        return {
            "covariance": least,
            "degrees": float(max(spare, 0)),
            "mean": covariances.tensor(self.means_prior),
            "mean_weight": covariances.tensor(self.means_weight),
        }

    def _tied(self) -> Tied | None:
        if self.covariance_type == "tied":
            return Tied(covariance=[0] * self.n_components)
        return Tied(spherical=self.covariance_type == "spherical")


def centres(X: Array, count: int, rng: np.random.RandomState, n_init: int) -> Array:
    """Centres (count, d) of clusters; with several starts of EM they may differ from one to the next."""
    return KMeans(count, random_state=rng, n_init=10 if n_init == 1 else 1).fit(X).cluster_centers_
