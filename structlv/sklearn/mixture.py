"""HMMs that emit vectors from a mixture of normal distributions for each state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributions as td
from torch import Tensor

from structlv.learning import Tied
from structlv.sklearn import covariances
from structlv.sklearn.chain import ChainEstimator
from structlv.sklearn.estimator import pseudo_counts, require_rows
from structlv.sklearn.gaussian import centres
from structlv.sklearn.sequences import Array, log


class GMMHMM(ChainEstimator):
    """An HMM over vectors, from a mixture of normal distributions given the state.

    Args: those of `GaussianHMM`; and
        n_mix: m, components of each state's mixture.
        weights_prior: of a Dirichlet prior of ``weights_``, at least 1.
        covariance_type: "tied" is one full matrix for the components of a state, another for every state.
        covars_prior, covars_weight: None for no prior; else as hmmlearn's GMMHMM takes them: shape and scale
            of inverse gamma distributions ("spherical", "diag"), or scale matrix and degrees of freedom of
            inverse Wishart distributions ("full", "tied").
        params, init_params: s, t, m, c, and w for ``weights_``.

    Attributes:
        startprob_ (k), transmat_ (k, k), weights_ (k, m), means_ (k, m, d); monitor_, n_iter_.
        covars_: (k, m), (k, m, d), (k, m, d, d), or of "tied" (k, d, d).
    """

    _names = {"m": "means", "c": "covariance", "w": "weights"}  # noqa: RUF012

    def __init__(
        self,
        n_components: int = 1,
        n_mix: int = 1,
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        weights_prior: Any = 1.0,
        means_prior: Any = 0.0,
        means_weight: Any = 0.0,
        covars_prior: Any = None,
        covars_weight: Any = None,
        algorithm: str = "viterbi",
        covariance_type: str = "diag",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        n_init: int = 1,
        verbose: bool = False,
        params: str = "stmcw",
        init_params: str = "stmcw",
    ) -> None:
        self.n_components = n_components
        self.n_mix = n_mix
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.weights_prior = weights_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.covariance_type = covariance_type
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.n_init = n_init
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    def _rows(self, X: Array) -> Tensor:
        return torch.tensor(X)

    def _first_emission(self, X: Array, rng: np.random.RandomState) -> dict[str, Array]:
        k, m, found = self.n_components, self.n_mix, {}
        if self._new("w", "weights_"):
            found["weights_"] = np.full((k, m), 1.0 / m)
        if self._new("m", "means_"):
            outer = centres(X, k, rng, self.n_init)
            nearest = ((X[:, None] - outer) ** 2).sum(-1).argmin(-1)
            found["means_"] = np.stack(
                [self._within(X[nearest == i], c, X, rng) for i, c in enumerate(outer)]
            )
        if self._new("c", "covars_"):
            covariance = covariances.of_data(X, self.min_covar)
            found["covars_"] = covariances.compact(covariance, self.covariance_type, k, m)
        return found

    def _within(self, cluster: Array, centre: Array, X: Array, rng: np.random.RandomState) -> Array:
        """Means (m, d) of a state's components: centres in its cluster, or near its own if that is small."""
        if len(np.unique(cluster, axis=0)) >= self.n_mix:
            return centres(cluster, self.n_mix, rng, self.n_init)
        return rng.multivariate_normal(centre, covariances.of_data(X, self.min_covar), self.n_mix)

    def _emission(self, of: Any) -> td.Distribution:
        k, m = self.n_components, self.n_mix
        means = np.asarray(of.means_, dtype=np.float64)
        if means.ndim != 3 or means.shape[:2] != (k, m):
            raise ValueError(f"means_ must have shape ({k}, {m}, n_features), found {means.shape}")
        require_rows("weights_", of.weights_, k, m)
        covars = covariances.checked(of.covars_, self.covariance_type, k, m)
        parts = covariances.normals(means, covars, self.covariance_type)
        return td.MixtureSameFamily(td.Categorical(logits=log(of.weights_)), parts)

    def _store_emission(self, emission: Any) -> None:
        self.weights_ = emission.mixture_distribution.logits.exp().numpy()
        parts = emission.component_distribution
        self.means_, self.covars_ = covariances.parameters(parts, self.covariance_type)

    def _check_options(self) -> None:
        super()._check_options()
        covariances.check_type(self.covariance_type)
        if self.n_mix < 1:
            raise ValueError(f"n_mix must be at least 1, found {self.n_mix}")

    def _prior(self) -> dict[str, Any]:
        least, degrees = self._pull()
        return {
            "weights": pseudo_counts("weights_prior", self.weights_prior),
            "covariance": least,
            "degrees": degrees,
            "mean": covariances.tensor(self.means_prior),
            "mean_weight": covariances.tensor(self.means_weight),
        }

    def _pull(self) -> tuple[float | Tensor, float]:
        """B and the degrees of `Prior`, from the parameters of inverse gamma and inverse Wishart laws."""
        if self.covars_prior is None and self.covars_weight is None:
            return 0.0, 0.0
        if self.covars_prior is None or self.covars_weight is None:
            raise ValueError("covars_prior and covars_weight must be given together")
        d, first, second = self.n_features_in_, self.covars_prior, self.covars_weight
        if self.covariance_type == "diag":
            return 2.0 * float(second), 2.0 * float(first) + 3.0
        if self.covariance_type == "spherical":
            return 2.0 * float(second) / d, 1.0 + 2.0 * (float(first) + 1.0) / d
        scale = covariances.tensor(first)
        more = 1 if self.covariance_type == "full" else self.n_mix
        return scale if scale.dim() > 1 else scale.expand(d, d), float(second) + d + 1 + more

    def _tied(self) -> Tied | None:
        if self.covariance_type == "tied":
            return Tied(covariance=[[i] * self.n_mix for i in range(self.n_components)])
        return Tied(spherical=self.covariance_type == "spherical")
