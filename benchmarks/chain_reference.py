"""Float64 answers to check against: a plain log-space forward-backward in numpy that shares no code with
the library.

`transition` is (K,K) for all steps or (B,T-1,K,K). All functions take and return natural-log potentials.
"""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def _steps(unary: np.ndarray, transition: np.ndarray) -> list[np.ndarray]:
    shared = transition.ndim == 2
    return [transition[None] if shared else transition[:, t] for t in range(unary.shape[1] - 1)]


def _log_product(vector: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """log sum_i exp(vector[b,i] + matrix[b,i,j]) -> (B,j), each row shifted by its maximum."""
    shift, scale = vector.max(-1, keepdims=True), matrix.max((-1, -2), keepdims=True)
    product = np.exp(vector - shift)[:, None, :] @ np.exp(matrix - scale)
    return np.log(product[:, 0]) + shift + scale[..., 0]


def forward_backward(unary: np.ndarray, transition: np.ndarray) -> Arrays:
    """-> log_z (B,), unary marginals (B,T,K), edge marginals: summed (K,K) if shared, else (B,T-1,K,K)."""
    unary, transition = unary.astype(np.float64), transition.astype(np.float64)
    matrices = _steps(unary, transition)
    alpha, beta = [unary[:, 0]], [np.zeros_like(unary[:, 0])]
    for t, matrix in enumerate(matrices):
        alpha.append(_log_product(alpha[-1], matrix) + unary[:, t + 1])
    for t, matrix in reversed(list(enumerate(matrices))):
        beta.append(_log_product(beta[-1] + unary[:, t + 1], matrix.swapaxes(-1, -2)))
    beta.reverse()
    log_z = np.logaddexp.reduce(alpha[-1], -1)
    marginals = np.exp(np.stack(alpha, 1) + np.stack(beta, 1) - log_z[:, None, None])
    edges = _edges(alpha, beta, unary, transition, log_z)
    return {"log_z": log_z, "unary": marginals, "transition": edges}


def _edges(
    alpha: list, beta: list, unary: np.ndarray, transition: np.ndarray, log_z: np.ndarray
) -> np.ndarray:
    """Pairwise marginals, shifted by each position's maxima so that no factor leaves float64's range."""
    left = np.stack(alpha[:-1], 1)
    right = np.stack(beta[1:], 1) + unary[:, 1:]
    shift = left.max(-1, keepdims=True)
    left, right = np.exp(left - shift), np.exp(right + shift - log_z[:, None, None])
    if transition.ndim == 2:
        states = unary.shape[-1]
        return np.exp(transition) * (left.reshape(-1, states).T @ right.reshape(-1, states))
    return np.exp(transition) * left[..., :, None] * right[..., None, :]


def best_score(unary: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """-> (B,) score of the best path (max-plus recursion)."""
    unary, transition = unary.astype(np.float64), transition.astype(np.float64)
    score = unary[:, 0]
    for t, matrix in enumerate(_steps(unary, transition)):
        score = (score[:, :, None] + matrix).max(1) + unary[:, t + 1]
    return score.max(-1)


def score(states: np.ndarray, unary: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """-> (B,) float64 scores of paths (B,T)."""
    rows, steps = np.arange(len(unary))[:, None], np.arange(unary.shape[1])
    total = unary.astype(np.float64)[rows, steps, states].sum(-1)
    source, target = states[:, :-1], states[:, 1:]
    edge = (
        transition[source, target] if transition.ndim == 2 else transition[rows, steps[:-1], source, target]
    )
    return total + edge.astype(np.float64).sum(-1)
