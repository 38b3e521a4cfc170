"""What estimators with one hidden chain share: its start, its transitions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from structlv.distributions import HMM
from structlv.learning import Prior, Tied, free_parameters
from structlv.sklearn.estimator import SequenceEstimator, dirichlet, pseudo_counts, require_rows
from structlv.sklearn.sequences import Array, log


class ChainEstimator(SequenceEstimator):
    """An HMM: ``startprob_`` (k), ``transmat_`` (k, k), and what a subclass knows of emissions. Abstract."""

    n_components: int
    startprob_prior: Any
    transmat_prior: Any
    _names: dict[str, str]  # what each letter of ``params`` is called by `fit_em`, but s and t

    # ---- hooks -----------------------------------------------------------------------------------------

    @abstractmethod
    def _first_emission(self, X: Array, rng: np.random.RandomState) -> dict[str, Array]:
        """By attribute name what EM begins with, of what is initialised."""

    @abstractmethod
    def _emission(self, of: Any) -> Any:
        """The emission of an `HMM`, from the attributes of ``of``. Raises ValueError where they are wrong."""

    @abstractmethod
    def _store_emission(self, emission: Any) -> None:
        """Set the fitted attributes."""

    @abstractmethod
    def _prior(self) -> dict[str, Any]:
        """The emission's part of `Prior`."""

    def _tied(self) -> Tied | None:
        return None

    # ---- for the base class ----------------------------------------------------------------------------

    def _start(self, X: Array, rng: np.random.RandomState) -> HMM:
        k = self.n_components
        begin = _Attributes(self)
        if self._new("s", "startprob_"):
            begin.startprob_ = dirichlet(rng, k)
        if self._new("t", "transmat_"):
            begin.transmat_ = dirichlet(rng, k, k)
        for name, value in self._first_emission(X, rng).items():
            setattr(begin, name, value)
        return self._made(begin)

    def _made(self, of: Any) -> HMM:
        k = self.n_components
        require_rows("startprob_", of.startprob_, k)
        require_rows("transmat_", of.transmat_, k, k)
        return HMM(log(of.startprob_), log(of.transmat_), self._emission(of))

    def _model(self) -> HMM:
        return self._made(self)

    def _store(self, model: HMM) -> None:
        self.startprob_ = model.initial_logits.exp().numpy()
        self.transmat_ = model.transition_logits.exp().numpy()
        self._store_emission(model.emission)

    def _fixed(self) -> tuple[str, ...]:
        known = {"s": "initial", "t": "transition", **self._names}
        unknown = sorted((set(self.params) | set(self.init_params)) - set(known))
        if unknown:
            raise ValueError(f"params and init_params must be of letters {''.join(known)}, found {unknown}")
        return tuple(name for code, name in known.items() if code not in self.params)

    def _options(self) -> dict[str, Any]:
        if self.n_components < 1:
            raise ValueError(f"n_components must be at least 1, found {self.n_components}")
        prior = Prior(
            initial=pseudo_counts("startprob_prior", self.startprob_prior),
            transition=pseudo_counts("transmat_prior", self.transmat_prior),
            **self._prior(),
        )
        return {"prior": prior, "fixed": self._fixed(), "tied": self._tied()}

    def _free_parameters(self) -> int:
        return free_parameters(self._model(), tied=self._tied())

    def _beginning(self, model: HMM, state: Any) -> HMM:
        if state is None:
            return model
        if not 0 <= int(state) < self.n_components:
            raise ValueError(f"currstate must be within 0..{self.n_components - 1}, found {state}")
        first = torch.full((self.n_components,), -torch.inf, dtype=torch.float64)
        first[int(state)] = 0.0
        return HMM(first, model.transition_logits, model.emission)

    def get_stationary_distribution(self) -> Array:
        """The probabilities (k) of a chain's states in the long run. Raises ValueError if not unique."""
        check_is_fitted(self, "startprob_")
        return self._model().stationary().numpy()


class _Attributes:
    """The attributes of an estimator, of which some are replaced."""

    def __init__(self, estimator: ChainEstimator) -> None:
        self._estimator = estimator

    startprob_: Any
    transmat_: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._estimator, name)
