"""scikit-learn's own checks of estimators, and what hmmlearn's users expect beyond its numbers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from structlv.sklearn import GMMHMM, CategoricalHMM, FactorialHMM, GaussianHMM, PoissonHMM

# ---- scikit-learn's checks -----------------------------------------------------------------------------
# In scikit-learn the second argument of fit and score is y; here, as in hmmlearn, it is lengths. All else is
# checked on classes that differ in this alone. CategoricalHMM takes one column of symbols, which the checks
# do not have; full covariances of 10 features need more samples than their 5.


class WithoutLengths:
    """fit(X, y) and score(X, y), for sequences that are one."""

    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(X)  # type: ignore[misc]

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)  # type: ignore[misc]


class Gaussian(WithoutLengths, GaussianHMM):
    pass


class Mixture(WithoutLengths, GMMHMM):
    pass


class Factorial(WithoutLengths, FactorialHMM):
    pass


class Poisson(WithoutLengths, PoissonHMM):
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.positive_only = True  # then the checks' data are counts
        return tags


ORDER = "states of one sample depend on the samples before and after it"
EXPECTED = {
    "check_methods_subset_invariance": ORDER,
    "check_methods_sample_order_invariance": ORDER,
}


@parametrize_with_checks(
    [
        Gaussian(2),
        Mixture(2, 2, covars_prior=1.0, covars_weight=0.1),
        Factorial((2, 2)),
        Poisson(2),
    ],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


# ---- fitting -------------------------------------------------------------------------------------------


def known_states() -> Any:
    return np.repeat(np.random.RandomState(0).randint(3, size=24), 5)


def blobs() -> tuple[Any, list[int]]:
    """Runs of points about three centres."""
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    return centres[known_states()] + np.random.RandomState(1).normal(size=(120, 2)), [60, 40, 20]


ALL = [
    GaussianHMM(3, random_state=0),
    GMMHMM(2, 2, covars_prior=1.0, covars_weight=0.1, random_state=0),
    FactorialHMM((2, 2), random_state=0),
    CategoricalHMM(3, random_state=0),
    PoissonHMM(3, random_state=0),
    FactorialHMM((2, 2), emission="categorical", random_state=0),
    FactorialHMM((2, 3), method="mean_field", n_iter=10, random_state=0),
]


def data_for(model: Any) -> tuple[Any, list[int]]:
    if isinstance(model, PoissonHMM):
        return np.random.RandomState(0).poisson(np.repeat([[1, 9], [8, 2]], 60, 0)), [60, 40, 20]
    if isinstance(model, CategoricalHMM) or getattr(model, "emission", "") == "categorical":
        return np.random.RandomState(0).randint(4, size=(120, 1)), [60, 40, 20]
    return blobs()


@pytest.mark.parametrize("model", ALL, ids=lambda m: type(m).__name__)
def test_all_methods_work_together(model: Any) -> None:
    x, lengths = data_for(model)
    model = clone(model).fit(x, lengths)
    log_p, probabilities = model.score_samples(x, lengths)
    assert log_p == pytest.approx(model.score(x, lengths))
    assert log_p == pytest.approx(sum(model.score(part) for part in np.split(x, np.cumsum(lengths)[:-1])))
    each = probabilities if isinstance(probabilities, list) else [probabilities]
    for p in each:
        np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-9)
    path = model.decode(x, lengths)[1]
    assert len(path) == 120
    assert (path == model.predict(x, lengths)).all()
    best = np.stack([p.argmax(-1) for p in each], -1).squeeze()
    assert (model.decode(x, lengths, algorithm="map")[1] == best).all()
    assert model.bic(x, lengths) > model.aic(x, lengths) > -2 * log_p
    drawn, states = model.sample(7, random_state=1)
    assert drawn.shape == (7, x.shape[1])
    assert (drawn == model.sample(7, random_state=1)[0]).all()
    assert len(states) == 7
    assert model.monitor_.history[-1] >= model.monitor_.history[0]
    again = pickle.loads(pickle.dumps(model))
    assert again.score(x, lengths) == log_p


def test_known_states_are_found() -> None:
    x, lengths = blobs()
    for model in (GaussianHMM(3, n_init=3, random_state=0), GMMHMM(3, 1, n_init=3, random_state=0)):
        found = model.fit(x, lengths).predict(x, lengths)
        table = np.zeros((3, 3), int)
        np.add.at(table, (known_states(), found), 1)
        assert table.max(-1).sum() > 115


def test_more_starts_are_no_worse_and_the_seed_decides() -> None:
    x, lengths = data_for(ALL[3])
    one, many, again = (
        CategoricalHMM(3, n_init=n, n_iter=30, random_state=0).fit(x, lengths) for n in (1, 5, 5)
    )
    assert many.score(x, lengths) >= one.score(x, lengths)
    assert (many.transmat_ == again.transmat_).all()
    other = CategoricalHMM(3, n_iter=30, random_state=1).fit(x, lengths)
    assert other.score(x, lengths) != one.score(x, lengths)


def test_letters_say_what_is_learned_and_what_is_set_anew() -> None:
    x, lengths = blobs()
    model = GaussianHMM(2, params="mc", init_params="mc", random_state=0)
    model.startprob_, model.transmat_ = np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.2, 0.8]])
    model.fit(x, lengths)
    np.testing.assert_allclose(model.startprob_, [0.3, 0.7])
    np.testing.assert_allclose(model.transmat_, [[0.9, 0.1], [0.2, 0.8]])
    held = GaussianHMM(2, params="st", random_state=0).fit(x, lengths)
    first = GaussianHMM(2, n_iter=1, params="st", random_state=0).fit(x, lengths)
    np.testing.assert_allclose(held.means_, first.means_)
    few, more = (FactorialHMM((2, 2), params="e", random_state=0, n_iter=n).fit(x, lengths) for n in (2, 9))
    np.testing.assert_allclose(few.transmat_[0], more.transmat_[0])
    assert not np.allclose(few.means_[0], more.means_[0])


def test_a_model_may_be_made_by_hand() -> None:
    model = GaussianHMM(2, "full")
    with pytest.raises(NotFittedError):
        model.sample()
    model.startprob_, model.transmat_ = np.array([1.0, 0.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
    model.means_, model.covars_ = np.array([[0.0], [100.0]]), np.ones((2, 1, 1))
    x, states = model.sample(6, random_state=0)
    assert states.tolist() == [0, 1, 0, 1, 0, 1]
    assert model.predict(x).tolist() == states.tolist()
    assert model.sample(3, random_state=0, currstate=1)[1].tolist() == [1, 0, 1]
    np.testing.assert_allclose(model.get_stationary_distribution(), [0.5, 0.5])


@pytest.mark.parametrize("kind", ["spherical", "diag", "full", "tied"])
def test_covariances_are_read_in_full_and_set_in_their_own_shape(kind: str) -> None:
    x, lengths = blobs()
    model = GaussianHMM(2, kind, random_state=0).fit(x, lengths)
    assert model.covars_.shape == (2, 2, 2)
    before = model.score(x, lengths)
    model.covars_ = model._covars_
    assert model.score(x, lengths) == before
    with pytest.raises(ValueError, match=f"{kind} covars_ must have shape"):
        model.covars_ = np.ones((5, 5, 5, 5))
    with pytest.raises(ValueError, match="must be positive"):
        model.covars_ = -model._covars_


def test_clear_words_for_what_does_not_fit() -> None:
    x, lengths = blobs()
    for model, words in [
        (GaussianHMM(2, "round"), "covariance_type must be one of"),
        (GaussianHMM(2, params="x"), "letters stmc"),
        (GaussianHMM(2, algorithm="beam"), "algorithm must be one of"),
        (GaussianHMM(2, n_init=0), "n_init and n_iter"),
        (GaussianHMM(0), "n_components must be at least 1"),
        (GaussianHMM(2, startprob_prior=0.5), "startprob_prior must be at least 1"),
        (GMMHMM(2, 0), "n_mix"),
        (GMMHMM(2, 2, covars_prior=1.0), "given together"),
        (CategoricalHMM(2), "one column of symbols"),
        (PoissonHMM(2), "Negative values"),
        (FactorialHMM((2, 0)), "the states of each chain"),
        (FactorialHMM((2, 2), emission="poisson"), "emission must be one of"),
        (FactorialHMM((2, 2), params="m"), "letters ste"),
        (FactorialHMM((2, 2), emission="categorical"), "one column of symbols"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.fit(x, lengths)
    with pytest.raises(ValueError, match="sum to 120 samples"):
        GaussianHMM(2).fit(x, [60, 10])
    with pytest.raises(ValueError, match="no integers"):
        PoissonHMM(2).fit(abs(x), lengths)
    with pytest.raises(ValueError, match="below n_features = 2"):
        CategoricalHMM(2, n_features=2).fit(np.array([[0], [1], [2]]))
    model = GaussianHMM(2, random_state=0).fit(x, lengths)
    model.transmat_ = np.ones((2, 2))
    with pytest.raises(ValueError, match="transmat_ must be probabilities that sum to 1"):
        model.score(x)
    model.transmat_ = np.ones((3, 3)) / 3
    with pytest.raises(ValueError, match="transmat_ must have shape"):
        model.score(x)
