"""HMMs that emit symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from structlv.sklearn.chain import ChainEstimator
from structlv.sklearn.estimator import pseudo_counts, require_rows
from structlv.sklearn.sequences import Array, log


class CategoricalHMM(ChainEstimator):
    """An HMM over symbols 0, 1, ..., given as integers in a matrix of one column.

    Args:
        n_components: states.
        startprob_prior, transmat_prior, emissionprob_prior: parameters of Dirichlet priors, at least 1 (1:
            none); numbers, or arrays of the parameters' shapes.
        n_features: the number of symbols; None: one more than the largest seen.
        algorithm: of `decode`, "viterbi" or "map".
        random_state: an int, a RandomState, or None.
        n_iter, tol: at most so many M-steps from each start; a start is done when one adds less than ``tol``
            nats in all.
        n_init: starts, of which the best is kept.
        verbose: whether to show a bar (it needs tqdm).
        params, init_params: what is learned, and what is set anew to begin with: s for ``startprob_``, t for
            ``transmat_``, e for ``emissionprob_``. What is not set anew is to be set before.

    Attributes:
        startprob_ (k), transmat_ (k, k), emissionprob_ (k, v).
        monitor_: ``history``, ``iter``, ``converged``; n_iter_.
    """

    _names = {"e": "emission"}  # noqa: RUF012

    def __init__(
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        *,
        emissionprob_prior: Any = 1.0,
        n_features: int | None = None,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        n_init: int = 1,
        verbose: bool = False,
        params: str = "ste",
        init_params: str = "ste",
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.emissionprob_prior = emissionprob_prior
        self.n_features = n_features
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.n_init = n_init
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    def _rows(self, X: Array) -> Tensor:
        if X.shape[1] != 1 or (np.round(X) != X).any() or (X < 0).any():
            raise ValueError(f"X must be one column of symbols 0, 1, ..., found shape {X.shape}")
        return torch.as_tensor(X[:, 0].astype(np.int64))

    def _first_emission(self, X: Array, rng: np.random.RandomState) -> dict[str, Array]:
        if not self._new("e", "emissionprob_"):
            return {}
        symbols = int(X.max()) + 1 if self.n_features is None else self.n_features
        if X.max() >= symbols:
            raise ValueError(f"X must hold symbols below n_features = {symbols}, found {int(X.max())}")
        table = rng.rand(self.n_components, symbols)
        return {"emissionprob_": table / table.sum(-1, keepdims=True)}

    def _emission(self, of: Any) -> Tensor:
        require_rows("emissionprob_", of.emissionprob_, self.n_components, np.shape(of.emissionprob_)[-1])
        return log(of.emissionprob_)

    def _store_emission(self, emission: Tensor) -> None:
        self.emissionprob_ = emission.exp().numpy()

    def _prior(self) -> dict[str, Any]:
        return {"emission": pseudo_counts("emissionprob_prior", self.emissionprob_prior)}
