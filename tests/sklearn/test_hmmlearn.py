"""The same parameters, data and starts give hmmlearn's numbers: queries, and EM after some iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

theirs = pytest.importorskip("hmmlearn.hmm")
pytest.importorskip("sklearn")

from structlv import sklearn as ours  # noqa: E402

K, M, D, V = 3, 2, 2, 5
LENGTHS = [12, 1, 30, 17]
N = sum(LENGTHS)
CLOSE = 1e-6

Pair = tuple[Any, Any]


def rows(rng: Any, *shape: int) -> Any:
    table = rng.gamma(2.0, size=shape)
    return table / table.sum(-1, keepdims=True)


def spd(rng: Any, *shape: int) -> Any:
    root = rng.normal(size=(*shape, D, D))
    return root @ np.swapaxes(root, -1, -2) + np.eye(D)


def covars(rng: Any, kind: str, *lead: int) -> Any:
    if kind == "full":
        return spd(rng, *lead)
    if kind == "tied":
        return spd(rng, *lead[:-1])
    return rng.gamma(3.0, size=lead if kind == "spherical" else (*lead, D))


def pair(name: str, attributes: dict[str, Any], n_iter: int, **options: Any) -> Pair:
    """Both estimators with the same attributes, that fitting begins with."""
    models = []
    for module, tol in ((ours, -np.inf), (theirs, -np.inf)):
        model = getattr(module, name)(K, n_iter=n_iter, tol=tol, init_params="", **options)
        for attribute, value in attributes.items():
            setattr(model, attribute, np.array(value))
        models.append(model)
    return models[0], models[1]


def chain(rng: Any) -> dict[str, Any]:
    return {"startprob_": rows(rng, K), "transmat_": rows(rng, K, K)}


def categorical(n_iter: int, **options: Any) -> tuple[Pair, Any]:
    rng = np.random.RandomState(5)
    attributes = {**chain(rng), "emissionprob_": rows(rng, K, V)}
    return pair("CategoricalHMM", attributes, n_iter, **options), rng.randint(V, size=(N, 1))


def poisson(n_iter: int, **options: Any) -> tuple[Pair, Any]:
    rng = np.random.RandomState(1)
    attributes = {**chain(rng), "lambdas_": rng.gamma(3.0, size=(K, D))}
    return pair("PoissonHMM", attributes, n_iter, **options), rng.randint(9, size=(N, D))


def gaussian(n_iter: int, kind: str = "diag", **options: Any) -> tuple[Pair, Any]:
    rng = np.random.RandomState(2)
    attributes = {**chain(rng), "means_": rng.normal(size=(K, D)), "covars_": covars(rng, kind, K)}
    models = pair("GaussianHMM", attributes, n_iter, covariance_type=kind, **options)
    return models, 3 + 2 * rng.normal(size=(N, D))


def mixture(n_iter: int, kind: str = "diag", **options: Any) -> tuple[Pair, Any]:
    rng = np.random.RandomState(3)
    attributes = {
        **chain(rng),
        "weights_": rows(rng, K, M),
        "means_": rng.normal(size=(K, M, D)),
        "covars_": covars(rng, kind, K, M),
    }
    models = pair("GMMHMM", attributes, n_iter, n_mix=M, covariance_type=kind, **options)
    return models, 1 + rng.normal(size=(N, D))


TYPES = ("spherical", "diag", "full", "tied")
CASES = [
    (categorical, {}),
    (poisson, {}),
    *[(gaussian, {"kind": kind}) for kind in TYPES],
    *[(mixture, {"kind": kind}) for kind in TYPES],
]


def names(case: Any) -> str:
    return "-".join([case[0].__name__, *case[1].values()]) if isinstance(case, tuple) else str(case)


cases = pytest.mark.parametrize("case", CASES, ids=names)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=CLOSE, atol=CLOSE)


@cases
def test_queries_agree(case: Any) -> None:
    (mine, other), x = case[0](1, **case[1])
    if other.__class__.__name__ in ("CategoricalHMM", "PoissonHMM"):
        other.n_features = V if other.__class__.__name__ == "CategoricalHMM" else D
    close(mine.score(x, LENGTHS), other.score(x, LENGTHS))
    for a, b in zip(mine.score_samples(x, LENGTHS), other.score_samples(x, LENGTHS), strict=True):
        close(a, b)
    close(mine.predict_proba(x, LENGTHS), other.predict_proba(x, LENGTHS))
    for algorithm in ("viterbi", "map"):
        (log_p, states), (wanted, path) = (m.decode(x, LENGTHS, algorithm=algorithm) for m in (mine, other))
        close(log_p, wanted)
        assert states.tolist() == path.tolist()
    assert mine.predict(x, LENGTHS).tolist() == other.predict(x, LENGTHS).tolist()
    close(mine.get_stationary_distribution(), other.get_stationary_distribution())
    close(mine.score(x), other.score(x))


@cases
@pytest.mark.parametrize("n_iter", [1, 8])
def test_em_agrees_after_some_iterations(case: Any, n_iter: int) -> None:
    """But for GMMHMM, which takes covariances about the means before the M-step: one of the two is held."""
    for params in ("stmw", "stcw") if case[0] is mixture else (None,):
        (mine, other), x = case[0](n_iter, **case[1], **({"params": params} if params else {}))
        if case == (mixture, {"kind": "spherical"}):  # hmmlearn's default prior is none only where m = d
            assert M == D
        mine.fit(x, LENGTHS)
        other.fit(x, LENGTHS)
        assert_same_parameters(mine, other)
        if case[0] is not gaussian:  # there our history has the log prior in it
            close(mine.monitor_.history[:n_iter], list(other.monitor_.history)[:n_iter])
        close(mine.score(x, LENGTHS), other.score(x, LENGTHS))
        assert mine.n_iter_ == n_iter


def assert_same_parameters(mine: Any, other: Any) -> None:
    found = [n for n in vars(other) if n.endswith("_") and n not in ("monitor_", "_covars_")]
    assert {"startprob_", "transmat_"} < set(found)
    for name in found:
        close(getattr(mine, name), getattr(other, name))
    if hasattr(other, "_covars_") and other.covariance_type == "spherical":
        close(mine._covars_, other._covars_[:, 0])  # theirs are read in a wrong shape after fitting
    elif hasattr(other, "covars_"):
        close(mine.covars_, other.covars_)


@pytest.mark.parametrize("kind", TYPES)
def test_priors_of_normal_distributions_agree(kind: str) -> None:
    prior = {
        "means_prior": 0.7,
        "means_weight": 1.3,
        "covars_prior": np.eye(D) if kind in ("full", "tied") else 0.4,
        "covars_weight": 4.0,
        "startprob_prior": 1.5,
        "transmat_prior": rows(np.random.RandomState(9), K, K) + 1,
    }
    (mine, other), x = gaussian(6, kind, **prior)
    assert_same_parameters(mine.fit(x, LENGTHS), other.fit(x, LENGTHS))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("params", ["stcw", "stmw"])
def test_priors_of_mixtures_agree(kind: str, params: str) -> None:
    prior = {
        "weights_prior": 1.4,
        "means_prior": 0.7,
        "means_weight": 1.3,
        "covars_prior": np.eye(D) if kind in ("full", "tied") else 1.5,
        "covars_weight": 2.0 if kind in ("full", "tied") else 0.7,
    }
    (mine, other), x = mixture(6, kind, params=params, **prior)
    assert_same_parameters(mine.fit(x, LENGTHS), other.fit(x, LENGTHS))


def test_dirichlet_priors_of_symbols_agree() -> None:
    (mine, other), x = categorical(6, emissionprob_prior=1.3, startprob_prior=2.0, transmat_prior=1.2)
    assert_same_parameters(mine.fit(x, LENGTHS), other.fit(x, LENGTHS))


def test_our_mixtures_climb_higher_than_means_of_the_step_before() -> None:
    """Both are learned; ours is the M-step of Rabiner's equations 52 and 53."""
    (mine, other), x = mixture(5)
    assert mine.fit(x, LENGTHS).monitor_.history[1] >= other.fit(x, LENGTHS).monitor_.history[1] - 1e-9


def test_a_left_right_model_keeps_its_zeros() -> None:
    (mine, other), x = gaussian(5, transmat_prior=1.5)
    for model in (mine, other):
        model.startprob_ = np.array([1.0, 0.0, 0.0])
        model.transmat_ = np.array([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 1.0]])
    assert_same_parameters(mine.fit(x, LENGTHS), other.fit(x, LENGTHS))
    assert mine.transmat_[2].tolist() == [0.0, 0.0, 1.0]


@cases
def test_criteria_agree(case: Any) -> None:
    """But of mixtures hmmlearn counts the weights of one state alone."""
    (mine, other), x = case[0](2, **case[1])
    mine.fit(x, LENGTHS)
    for name in [n for n in vars(other) if n.endswith("_") and n != "monitor_"]:
        setattr(other, name, getattr(mine, name))
    other.n_features = V if case[0] is categorical else D
    missed = (K - 1) * (M - 1) if case[0] is mixture else 0
    close(mine.aic(x, LENGTHS), other.aic(x, LENGTHS) + 2 * missed)
    close(mine.bic(x, LENGTHS), other.bic(x, LENGTHS) + np.log(N) * missed)
