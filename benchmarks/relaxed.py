"""Cases of relaxed samples of chains with their gradients: a Gumbel-softmax for structures.

Sizes are (B, T, K) as in chains.py. The answer is the relaxed states (B, T, K) at temperature 1/2, the
gradients of their weighted sum with respect to unary (B, T, K) and transition (K, K), and the noise that was
drawn: the reference takes the same, and differentiates numerically.
"""

from __future__ import annotations

import numpy as np

from benchmarks import chain_reference as reference
from benchmarks import chains
from benchmarks.check import relative

Size = tuple[int, ...]
Arrays = dict[str, np.ndarray]

SUFFIX = "_relaxed"
TEMPERATURE = 0.5
QUERIES = {
    "softmax_grad": "stochastic softmax and its gradient",
    "gumbel_crf_grad": "Gumbel-CRF sample and its gradient",
}
SIZES = ((32, 100, 32), (256, 50, 16), (32, 100, 128))
GOAL = 10.0
# Multiply-adds per B*T*K^2, doubled: forward, backward and counts, then all of it again with its tangents;
# forward, backward and counts.
FLOPS = {"softmax_grad": 18, "gumbel_crf_grad": 6}
STEP = 1e-4  # of the numerical derivative, in float64

require_size = chains.require_size


def sizes(query: str) -> tuple[Size, ...]:
    return SIZES


def smoke(query: str) -> Size:
    return (4, 9, 8)


def small(query: str) -> Size:
    return (3, 6, 5)


def goals(query: str, size: Size) -> tuple[tuple[str, float], ...]:
    return (("strong torch", GOAL),) if size == SIZES[0] else ()


def flops(query: str, size: Size) -> float:
    batch, length, states = size
    return float(FLOPS[query] * batch * length * states**2)


def streamed(query: str, size: Size) -> int:
    return 0


def inputs(query: str, size: Size, copies: bool, seed: int) -> Arrays:
    found = chains.inputs("marginals", size, copies, seed)
    weight = np.random.default_rng([seed, *size, 1]).standard_normal(size)
    return {**found, "weight": weight}


def expected(query: str, inputs: Arrays) -> Arrays:
    """Nothing: the noise is not known yet."""
    return {}


def errors(query: str, size: Size, answer: list, inputs: Arrays, wanted: Arrays, copies: bool) -> dict:
    relaxed, d_unary, d_transition, noise = (value.astype(np.float64) for value in answer)
    unary, transition, weight = (
        inputs[name].astype(np.float64) for name in ("unary", "transition", "weight")
    )
    relax = softmax
    if query == "gumbel_crf_grad":  # its choices stay what they are
        states = gumbel_crf(unary, transition, noise)[1]
        relax = lambda *scores: gumbel_crf(*scores, states)[0]  # noqa: E731
    rng = np.random.default_rng(0)
    along = rng.standard_normal(unary.shape), rng.standard_normal(transition.shape)
    ends = [
        (weight * relax(unary + step * along[0], transition + step * along[1], noise)).sum()
        for step in (STEP, -STEP)
    ]
    found = (d_unary * along[0]).sum() + (d_transition * along[1]).sum()
    scale = np.sqrt((d_unary**2).sum() + (d_transition**2).sum())  # of a derivative along such a direction
    return {
        "unary": relative(relaxed, relax(unary, transition, noise)),
        "gradient": float(abs(found - (ends[0] - ends[1]) / (2 * STEP)) / scale),
    }


def softmax(unary: np.ndarray, transition: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The marginals of the perturbed scores at the temperature."""
    return reference.forward_backward((unary + noise) / TEMPERATURE, transition / TEMPERATURE)["unary"]


def gumbel_crf(
    unary: np.ndarray, transition: np.ndarray, noise: np.ndarray, states: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Backward sampling by the largest perturbed score, each choice replaced by its softmax -> both; or the
    softmaxes given the choices.
    """
    alpha = [unary[:, 0]]
    for t in range(1, unary.shape[1]):
        alpha.append(np.logaddexp.reduce(alpha[-1][:, :, None] + transition, 1) + unary[:, t])
    relaxed, chosen, follows = np.zeros_like(unary), np.zeros(unary.shape[:2], dtype=int), 0.0
    for t in reversed(range(len(alpha))):
        # the noise belongs to log-probabilities, but a constant changes neither choice nor softmax
        scores = alpha[t] + follows + noise[:, t]
        weights = np.exp((scores - scores.max(-1, keepdims=True)) / TEMPERATURE)
        relaxed[:, t] = weights / weights.sum(-1, keepdims=True)
        chosen[:, t] = scores.argmax(-1) if states is None else states[:, t]
        follows = transition.T[chosen[:, t]]
    return relaxed, chosen
