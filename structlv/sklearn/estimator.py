"""What all estimators share: fitting by EM from several starts, scoring and decoding of many sequences."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from structlv.learning import fit_em, selection
from structlv.sklearn.sequences import Array, batches, checked_lengths, joined

Self = TypeVar("Self", bound="SequenceEstimator")
ALGORITHMS = ("viterbi", "map")


class Monitor(NamedTuple):
    """How EM went: its objective before each M-step and after the last, the M-steps, whether it converged."""

    history: tuple[float, ...]
    iter: int
    converged: bool


class SequenceEstimator(BaseEstimator):
    """The queries of a model of sequences, on rows of a matrix. Abstract.

    A subclass sets its options in ``__init__`` (``n_iter``, ``tol``, ``n_init``, ``random_state``,
    ``verbose``, ``algorithm``, ``params``, ``init_params`` among them) and supplies the hooks.
    """

    n_iter: int
    tol: float
    n_init: int
    random_state: Any
    verbose: bool
    algorithm: str
    params: str
    init_params: str

    # ---- hooks -----------------------------------------------------------------------------------------

    @abstractmethod
    def _rows(self, X: Array) -> Tensor:
        """Observations, one a row of X, as the model takes them. Raises ValueError where they are none."""

    @abstractmethod
    def _start(self, X: Array, rng: np.random.RandomState) -> Any:
        """The model that EM begins with."""

    @abstractmethod
    def _model(self) -> Any:
        """The model of the fitted attributes."""

    @abstractmethod
    def _store(self, model: Any) -> None:
        """Set the fitted attributes."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What `fit_em` is to respect: ``prior``, ``fixed``, ..."""

    @abstractmethod
    def _free_parameters(self) -> int:
        """Numbers that may be chosen freely."""

    def _event(self, states: Tensor) -> Tensor:
        """States (b, n, ...) of a batch of sequences from those of `LinearChain`."""
        return states

    # ---- fitting ---------------------------------------------------------------------------------------

    def fit(self: Self, X: Any, lengths: Any = None) -> Self:
        """Learn by EM, from ``n_init`` starts, of which the best is kept.

        Args:
            X: (n_samples, n_features), the sequences one after the other.
            lengths: of each sequence; None where all rows are one.

        Raises ValueError where X, lengths or an option does not fit.
        """
        X = validate_data(self, X, dtype=np.float64)
        of_each = checked_lengths(len(X), lengths)
        self._check_options()
        (x, lens), *_ = batches(self._rows(X), of_each, most=2**62)
        rng = check_random_state(self.random_state)
        seeds = [int(seed) for seed in rng.randint(np.iinfo(np.int32).max, size=self.n_init)]
        result = fit_em(
            lambda seed: self._start(X, np.random.RandomState(seed)),
            x,
            lens,
            iterations=self.n_iter,
            tolerance=self.tol / len(X),
            seeds=seeds,
            progress=bool(self.verbose),
            **self._options(),
        )
        self._store(result.model)
        self.monitor_ = Monitor(result.history, len(result.history) - 1, result.converged)
        self.n_iter_ = max(self.monitor_.iter, 1)
        return self

    def _check_options(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {ALGORITHMS}, found {self.algorithm!r}")
        if self.n_init < 1 or self.n_iter < 1:
            raise ValueError(f"n_init and n_iter must be at least 1, found {self.n_init} and {self.n_iter}")

    def _new(self, code: str, name: str) -> bool:
        """Whether fitting sets the attribute anew to begin with."""
        return code in self.init_params or not hasattr(self, name)

    # ---- queries ---------------------------------------------------------------------------------------

    def score(self, X: Any, lengths: Any = None) -> float:
        """log p(X), the sum over sequences, in nats."""
        return sum(float(p.log_partition().sum()) for p, _ in self._posteriors(X, lengths))

    def score_samples(self, X: Any, lengths: Any = None) -> tuple[float, Any]:
        """log p(X), and the probability of each state at each sample: (n_samples, n_components)."""
        total, found = 0.0, []
        for posterior, lens in self._posteriors(X, lengths):
            total += float(posterior.log_partition().sum())
            found.append(self._probabilities(posterior, lens))
        return total, self._together(found)

    def predict_proba(self, X: Any, lengths: Any = None) -> Any:
        """The probability of each state at each sample, (n_samples, n_components)."""
        return self.score_samples(X, lengths)[1]

    def decode(self, X: Any, lengths: Any = None, algorithm: str | None = None) -> tuple[float, Array]:
        """The best states of each sequence, (n_samples,), and their log-probability with the data.

        With ``algorithm="map"`` the most probable state at each sample by itself, and the sum of their
        probabilities.
        """
        chosen = algorithm or self.algorithm
        if chosen not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {ALGORITHMS}, found {chosen!r}")
        total, found = 0.0, []
        for posterior, lens in self._posteriors(X, lengths):
            if chosen == "viterbi":
                total += float(posterior.max().sum())
                found.append(joined(self._event(posterior.argmax()), lens))
            else:
                best = [p.max(-1) for p in self._each(self._probabilities(posterior, lens))]
                total += float(sum(b.values.sum() for b in best))
                found.append(torch.stack([b.indices for b in best], -1).squeeze(-1))
        return total, torch.cat(found).numpy()

    def predict(self, X: Any, lengths: Any = None) -> Array:
        """The states that `decode` finds."""
        return self.decode(X, lengths)[1]

    def sample(
        self, n_samples: int = 1, random_state: Any = None, currstate: Any = None
    ) -> tuple[Array, Array]:
        """A sequence of observations (n_samples, n_features) and its states (n_samples,).

        ``currstate``: that of the first observation, else it is drawn.
        """
        check_is_fitted(self, "startprob_")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        generator = torch.Generator().manual_seed(int(rng.randint(np.iinfo(np.int32).max)))
        model = self._beginning(self._model(), currstate)
        x, states = model.sample((1,), length=n_samples, with_states=True, generator=generator)
        rows = x[0].reshape(n_samples, -1).numpy()
        return rows, self._event(states)[0].numpy()

    def _beginning(self, model: Any, state: Any) -> Any:
        """``model``, but for its first state."""
        return model

    def aic(self, X: Any, lengths: Any = None) -> float:
        """Akaike's criterion on X: the lower the better."""
        return selection.aic(self.score(X, lengths), self._free_parameters())

    def bic(self, X: Any, lengths: Any = None) -> float:
        """Schwarz's criterion on X, of as many observations as samples: the lower the better."""
        return selection.bic(self.score(X, lengths), self._free_parameters(), len(X))

    # ---- helpers ---------------------------------------------------------------------------------------

    def _posteriors(self, X: Any, lengths: Any) -> Any:
        """p(states | sequence) of some sequences at a time, and their lengths."""
        check_is_fitted(self, "startprob_")
        X = validate_data(self, X, dtype=np.float64, reset=not hasattr(self, "n_features_in_"))
        model = self._model()
        with torch.no_grad():
            for x, lens in batches(self._rows(X), checked_lengths(len(X), lengths)):
                yield model.posterior(x, lens), lens

    def _probabilities(self, posterior: Any, lengths: Tensor) -> Any:
        return joined(posterior.marginals().unary, lengths)

    def _each(self, probabilities: Any) -> list[Tensor]:
        """Of every hidden chain."""
        return [probabilities]

    def _together(self, found: list[Any]) -> Any:
        return torch.cat(found).numpy()


def dirichlet(rng: np.random.RandomState, k: int, rows: int | None = None) -> Array:
    """Sparse random probabilities, as hmmlearn begins with: concentration 1/k."""
    return rng.dirichlet(np.full(k, 1.0 / k), size=rows)


def pseudo_counts(name: str, prior: Any) -> float | Tensor:
    """A Dirichlet's parameters as counts. Raises ValueError where one is under 1."""
    counts = np.asarray(prior, dtype=np.float64) - 1.0
    if not (counts >= 0).all() or not np.isfinite(counts).all():
        raise ValueError(f"{name} must be at least 1, found {prior!r}")
    return float(counts) if counts.ndim == 0 else torch.as_tensor(counts)


def require_rows(name: str, value: Any, *shape: int) -> None:
    """Raises ValueError unless ``value`` has this shape and its rows sum to 1, none of it negative."""
    given = np.asarray(value, dtype=np.float64)
    if given.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, found {given.shape}")
    if (given < 0).any() or not all(math.isclose(s, 1.0, abs_tol=1e-6) for s in given.sum(-1).flatten()):
        raise ValueError(f"{name} must be probabilities that sum to 1, found sums {given.sum(-1)}")
