"""Says how far an implementation's answer is from the float64 reference, and refuses what is too far.

The limits are loose on purpose: they catch a wrong computation. The errors themselves are part of the
results.
"""

from __future__ import annotations

import numpy as np

from benchmarks import reference
from benchmarks.cases import Case

LIMIT = {
    "log_z": 1e-4,
    "unary": 2e-3,
    "transition": 2e-3,
    "score": 1e-5,
    "frequency": 0.05,
    "typicality": 8.0,
}


class Wrong(Exception):
    """An implementation's answer is not the reference's."""


def expected(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference's arrays that `errors` needs for this case."""
    if case.query == "viterbi":
        return {"best_score": reference.best_score(**inputs)}
    return reference.forward_backward(**inputs)


def relative(value: np.ndarray, wanted: np.ndarray) -> float:
    """Largest error, relative to max(1, |wanted|) for scalars per row and to the largest entry for arrays."""
    scale = np.maximum(1, np.abs(wanted) if wanted.ndim == 1 else np.abs(wanted).max())
    if value.shape != wanted.shape:
        raise Wrong(f"shape {value.shape}, expected {wanted.shape}")
    return float(np.max(np.abs(value - wanted) / scale))


def errors(case: Case, answer: list[np.ndarray], inputs: dict, wanted: dict, *, copies: bool = False) -> dict:
    """Errors by name. `answer`, by query: log Z; log Z and both gradients; unary marginals; states."""
    if case.query in ("viterbi", "sample"):
        return _path_errors(case, answer[0], inputs, wanted, copies)
    names = {"logz": ("log_z",), "marginals": ("unary",), "dense_grad": ("log_z", "transition")}
    names = names.get(case.query, ("log_z", "unary", "transition"))
    return {
        name: relative(value.astype(np.float64), wanted[name])
        for name, value in zip(names, answer, strict=False)
    }


def _path_errors(case: Case, states: np.ndarray, inputs: dict, wanted: dict, copies: bool) -> dict:
    if states.shape != (case.batch, case.length) or states.min() < 0 or states.max() >= case.states:
        raise Wrong(f"not {case.batch} paths of {case.length} states in 0..{case.states - 1}")
    if copies:
        return {"frequency": _frequency_error(states, wanted)}
    score = reference.score(states, **inputs)
    if case.query == "viterbi":
        return {"score": relative(score, wanted["best_score"])}
    return {"typicality": _typicality(score, inputs, wanted)}


def _frequency_error(states: np.ndarray, wanted: dict) -> float:
    """Largest error of the frequencies of states and edges in samples from copies of one chain."""
    size = wanted["unary"].shape[-1]
    onehot = np.eye(size)[states]
    edges = np.einsum("bti,btj->ij", onehot[:, :-1], onehot[:, 1:]) / len(states)
    unary = np.abs(onehot.mean(0) - wanted["unary"][0]).max()
    return float(max(unary, np.abs(edges - wanted["transition"] / len(states)).max()))


def _typicality(score: np.ndarray, inputs: dict, wanted: dict) -> float:
    """|mean log-probability of the samples + entropy| / sqrt(T/B), its order of magnitude in nats."""
    energy = (wanted["unary"] * inputs["unary"]).sum() + (wanted["transition"] * inputs["transition"]).sum()
    entropy = wanted["log_z"].mean() - energy / len(score)
    surprise = score.mean() - wanted["log_z"].mean() + entropy
    return float(abs(surprise) / np.sqrt(inputs["unary"].shape[1] / len(score)))


def require(found: dict) -> None:
    """Raises Wrong if any error is NaN or above its limit."""
    for name, error in found.items():
        if not error <= LIMIT[name]:
            raise Wrong(f"{name}: error {error:.1e} is above {LIMIT[name]:.0e}")
