"""Cases of chains: their sizes, random inputs, counted work, the speed they are meant to have, their checks.

Sizes are (B, T, K): sequences, positions, states. A *chain* has one transition matrix for all steps (an HMM
or a plain CRF); a *dense* chain has its own potentials for every step of every sequence.
"""

from __future__ import annotations

import numpy as np

from benchmarks import chain_reference as reference
from benchmarks.check import Wrong, relative

Size = tuple[int, ...]
Arrays = dict[str, np.ndarray]

SUFFIX = ""  # of the names of the peers' modules
QUERIES = {
    "logz": "log-partition",
    "logz_grad": "log-partition and its gradient",
    "marginals": "marginals",
    "viterbi": "Viterbi",
    "sample": "posterior sample, one per sequence",
    "dense_grad": "dense CRF: log-partition and its gradient",
}
CHAIN_SIZES = ((32, 100, 32), (256, 50, 16), (32, 100, 128), (16, 100, 512), (1, 10000, 64))
DENSE_SIZES = ((32, 50, 16), (32, 50, 64), (8, 500, 32))
# query -> (peer, wanted speed-up at each size). "best" is the fastest peer of the run.
GOALS: dict[str, tuple[str, tuple[float, ...]]] = {
    "logz_grad": ("dynamax", (7, 8, 2.5, 2.1, 14)),
    "viterbi": ("best", (18, 9, 40, 40, 18)),
    "sample": ("dynamax", (8, 6, 3, 1.5, 14)),
    "dense_grad": ("best", (8, 6, 12)),
}
# Operations per B*T*K^2: one multiply-add per entry of a product; the gradient needs three products. In
# max-plus the addition takes the multiply-add's place, and the maximum may run beside it.
FLOPS = {"logz": 2, "logz_grad": 6, "marginals": 4, "viterbi": 2, "sample": 2, "dense_grad": 6}


def sizes(query: str) -> tuple[Size, ...]:
    return DENSE_SIZES if query == "dense_grad" else CHAIN_SIZES


def require_size(query: str, size: Size) -> None:
    if len(size) != 3 or min(size[0], size[1] - 1, size[2]) < 1:
        raise ValueError(f"{size}: expected B,T,K with B and K positive and T at least 2")


def smoke(query: str) -> Size:
    return (3, 7, 6) if query == "dense_grad" else (4, 9, 8)


def small(query: str) -> Size:
    return (4000 if query == "sample" else 3, 6, 5)


def goals(query: str, size: Size) -> tuple[tuple[str, float], ...]:
    if query not in GOALS or size not in sizes(query):
        return ()
    peer, factors = GOALS[query]
    return ((peer, factors[sizes(query).index(size)]),)


def flops(query: str, size: Size) -> float:
    batch, length, states = size
    return float(FLOPS[query] * batch * length * states**2)


def streamed(query: str, size: Size) -> int:
    """Numbers in a dense chain's potentials, 0 for a shared matrix (which stays in cache)."""
    batch, length, states = size
    return batch * (length - 1) * states**2 if query == "dense_grad" else 0


def inputs(query: str, size: Size, copies: bool, seed: int) -> Arrays:
    """-> unary (B,T,K) and transition (K,K), or (B,T-1,K,K) for a dense chain, whose unary is zero.

    The transition matrix of a plain chain is a log stochastic matrix and unary holds standard normal
    log-likelihoods, so that HMM libraries can take them too; the initial scores are zero.
    """
    batch, length, states = size
    rng = np.random.default_rng([seed, *size])
    rows = 1 if copies else batch
    unary = rng.standard_normal((rows, length, states))
    transition = rng.standard_normal((states, states))
    transition -= np.log(np.exp(transition).sum(-1, keepdims=True))
    if query == "dense_grad":
        unary = np.zeros_like(unary)
        transition = rng.standard_normal((rows, length - 1, states, states))
        transition = np.repeat(transition, batch // rows, 0)
    return {"unary": np.repeat(unary, batch // rows, 0), "transition": transition}


def expected(query: str, inputs: Arrays) -> Arrays:
    """The reference's arrays that `errors` needs."""
    if query == "viterbi":
        return {"best_score": reference.best_score(**inputs)}
    return reference.forward_backward(**inputs)


def errors(query: str, size: Size, answer: list, inputs: Arrays, wanted: Arrays, copies: bool) -> dict:
    """Errors by name. `answer`, by query: log Z; log Z and both gradients; unary marginals; states."""
    if query in ("viterbi", "sample"):
        return _path_errors(query, size, answer[0], inputs, wanted, copies)
    names = {"logz": ("log_z",), "marginals": ("unary",), "dense_grad": ("log_z", "transition")}
    chosen = names.get(query, ("log_z", "unary", "transition"))
    pairs = zip(chosen, answer, strict=False)
    return {name: relative(value.astype(np.float64), wanted[name]) for name, value in pairs}


def _path_errors(
    query: str, size: Size, states: np.ndarray, inputs: Arrays, wanted: Arrays, copies: bool
) -> dict:
    if states.shape != size[:2] or states.min() < 0 or states.max() >= size[2]:
        raise Wrong(f"not {size[0]} paths of {size[1]} states in 0..{size[2] - 1}")
    if copies:
        return {"frequency": _frequency_error(states, wanted)}
    score = reference.score(states, **inputs)
    if query == "viterbi":
        return {"score": relative(score, wanted["best_score"])}
    return {"typicality": _typicality(score, inputs, wanted)}


def _frequency_error(states: np.ndarray, wanted: Arrays) -> float:
    """Largest error of the frequencies of states and edges in samples from copies of one chain."""
    size = wanted["unary"].shape[-1]
    onehot = np.eye(size)[states]
    edges = np.einsum("bti,btj->ij", onehot[:, :-1], onehot[:, 1:])
    unary = np.abs(onehot.mean(0) - wanted["unary"][0]).max()
    return float(max(unary, np.abs(edges - wanted["transition"]).max() / onehot[:, 1:, 0].size))


def _typicality(score: np.ndarray, inputs: Arrays, wanted: Arrays) -> float:
    """|mean log-probability of the samples + entropy| / sqrt(T/B), its order of magnitude in nats."""
    energy = (wanted["unary"] * inputs["unary"]).sum() + (wanted["transition"] * inputs["transition"]).sum()
    entropy = wanted["log_z"].mean() - energy / len(score)
    surprise = score.mean() - wanted["log_z"].mean() + entropy
    return float(abs(surprise) / np.sqrt(inputs["unary"].shape[1] / len(score)))
