"""HMMs of several hidden chains that emit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from structlv import distributions
from structlv.distributions import AdditiveGaussian, Exact, LogLinearCategorical, StructuredMeanField
from structlv.learning import Prior, num_parameters, random_categorical, random_gaussian
from structlv.sklearn.estimator import SequenceEstimator, pseudo_counts
from structlv.sklearn.sequences import Array, joined, log

KINDS = ("gaussian", "categorical")
METHODS = ("exact", "mean_field")


class FactorialHMM(SequenceEstimator):
    """Several Markov chains that move independently and emit together: Ghahramani & Jordan (1997).

    Args:
        n_components: the states of each chain, such as (2, 3); a number is one chain.
        emission: "gaussian", the means of the chains' states add up and share one covariance; or
            "categorical", one column of symbols, whose scores add up.
        method: the E-step, "exact" over all joint states or "mean_field", a lower bound for many chains.
        startprob_prior, transmat_prior: parameters of Dirichlet priors, numbers of at least 1.
        covars_prior: a pull of the covariance, so that no variance is smaller than it / n_samples.
        algorithm, random_state, n_iter, tol, n_init, verbose: as of `CategoricalHMM`. Every fit begins anew.
        params: what is learned: s, t, and e, all of the emission.

    Attributes:
        startprob_, transmat_: of each chain (k_i) and (k_i, k_i), in lists.
        means_: of each chain (k_i, d), and covars_ (d, d); or emission_logits_, of each chain (k_i, v).
        monitor_, n_iter_.

    States are (n_samples, chains), their probabilities a list of (n_samples, k_i).
    """

    def __init__(
        self,
        n_components: int | Sequence[int] = (2, 2),
        *,
        emission: str = "gaussian",
        method: str = "exact",
        startprob_prior: float = 1.0,
        transmat_prior: float = 1.0,
        covars_prior: float = 1e-2,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 100,
        tol: float = 1e-2,
        n_init: int = 1,
        verbose: bool = False,
        params: str = "ste",
    ) -> None:
        self.n_components = n_components
        self.emission = emission
        self.method = method
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.covars_prior = covars_prior
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.n_init = n_init
        self.verbose = verbose
        self.params = params

    # ---- for the base class ----------------------------------------------------------------------------

    def _check_options(self) -> None:
        super()._check_options()
        sizes = self._sizes
        if not sizes or not all(isinstance(k, int) and k > 0 for k in sizes):
            found = f"{self.n_components!r}"
            raise ValueError(f"n_components must be the states of each chain, such as (2, 3), found {found}")
        if self.emission not in KINDS or self.method not in METHODS:
            found = f"{self.emission!r} and {self.method!r}"
            raise ValueError(f"emission must be one of {KINDS} and method one of {METHODS}, found {found}")
        if not set(self.params) <= set("ste"):
            raise ValueError(f"params must be of letters ste, found {self.params!r}")

    def _rows(self, X: Array) -> Tensor:
        if self.emission == "gaussian":
            return torch.tensor(X)
        if X.shape[1] != 1 or (np.round(X) != X).any() or (X < 0).any():
            raise ValueError(f"X must be one column of symbols 0, 1, ..., found shape {X.shape}")
        return torch.as_tensor(X[:, 0].astype(np.int64))

    def _start(self, X: Array, rng: np.random.RandomState) -> distributions.FactorialHMM:
        if len(X) < 2:
            raise ValueError(f"FactorialHMM needs 2 samples or more, found {len(X)} sample")
        seed, rows = int(rng.randint(np.iinfo(np.int32).max)), self._rows(X)
        if self.emission == "gaussian":
            return random_gaussian(self._sizes, rows, seed)
        return random_categorical(self._sizes, torch.bincount(rows), seed)

    def _model(self) -> distributions.FactorialHMM:
        emission: Any
        if self.emission == "gaussian":
            means = [torch.as_tensor(np.array(m, dtype=np.float64)) for m in self.means_]
            emission = AdditiveGaussian(means, torch.as_tensor(np.array(self.covars_, dtype=np.float64)))
        else:
            tables = [torch.as_tensor(np.array(t, dtype=np.float64)) for t in self.emission_logits_]
            emission = LogLinearCategorical(tables)
        starts, moves = ([log(p) for p in each] for each in (self.startprob_, self.transmat_))
        return distributions.FactorialHMM(starts, moves, emission)

    def _store(self, model: distributions.FactorialHMM) -> None:
        self.startprob_ = [x.exp().numpy() for x in model.initial_logits]
        self.transmat_ = [x.exp().numpy() for x in model.transition_logits]
        if isinstance(model.emission, AdditiveGaussian):
            self.means_ = [m.numpy() for m in model.emission.means]
            self.covars_ = model.emission.covariance.numpy()
        elif isinstance(model.emission, LogLinearCategorical):
            self.emission_logits_ = [x.numpy() for x in model.emission.logits]

    def _options(self) -> dict[str, Any]:
        prior = Prior(
            initial=pseudo_counts("startprob_prior", self.startprob_prior),
            transition=pseudo_counts("transmat_prior", self.transmat_prior),
            covariance=float(self.covars_prior),
        )
        fixed = {"s": "initial", "t": "transition", "e": "emission"}
        return {
            "prior": prior,
            "fixed": tuple(name for code, name in fixed.items() if code not in self.params),
            "method": Exact() if self.method == "exact" else StructuredMeanField(),
        }

    def _free_parameters(self) -> int:
        sizes = [len(p) for p in self.startprob_]
        if self.emission == "categorical":
            return num_parameters(sizes, self.emission_logits_[0].shape[1])
        d = len(self.covars_)
        chains = sum(k * k - 1 for k in sizes)
        return chains + d * (1 + sum(k - 1 for k in sizes)) + d * (d + 1) // 2

    @property
    def _sizes(self) -> tuple[int, ...]:
        given = self.n_components
        return tuple(given) if isinstance(given, Sequence) else (given,)

    # ---- several chains --------------------------------------------------------------------------------

    def _event(self, states: Tensor) -> Tensor:
        return states.movedim(-2, -1)

    def _probabilities(self, posterior: Any, lengths: Tensor) -> list[Tensor]:
        return [joined(p, lengths) for p in posterior.marginals().unary]

    def _each(self, probabilities: list[Tensor]) -> list[Tensor]:
        return probabilities

    def _together(self, found: list[list[Tensor]]) -> list[Array]:
        return [torch.cat(parts).numpy() for parts in zip(*found, strict=True)]
