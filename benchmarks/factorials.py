"""Cases of factorial chains: their sizes, random inputs, counted work, wanted speed, checks.

Sizes are (B, T, k_1, ..., k_m): sequences, positions, states of each chain. The scores are of joint states,
the transition matrices shared by all steps and sequences. The reference is the chain on the product space.
"""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from benchmarks import chain_reference as reference
from benchmarks.check import Wrong, relative

Size = tuple[int, ...]
Arrays = dict[str, np.ndarray]

SUFFIX = "_factorial"  # of the names of the peers' modules
QUERIES = {
    "factorial_logz": "factorial chain: log-partition",
    "factorial_grad": "factorial chain: log-partition and its gradient",
    "factorial_viterbi": "factorial chain: Viterbi",
    "factorial_sample": "factorial chain: posterior sample, one per sequence",
}
SIZES = ((16, 200, 8, 8, 8), (16, 200, 16, 16), (1, 2000, 4, 4, 4, 4))
PRODUCT = "product space"
# query, size -> wanted speed-ups over peers
GOALS: dict[tuple[str, Size], tuple[tuple[str, float], ...]] = {
    ("factorial_grad", SIZES[0]): ((PRODUCT, 8),),
    ("factorial_grad", SIZES[1]): ((PRODUCT, 4),),
}


def sizes(query: str) -> tuple[Size, ...]:
    return SIZES


def require_size(query: str, size: Size) -> None:
    if len(size) < 3 or min(size[0], size[1] - 1, *size[2:]) < 1:
        raise ValueError(f"{size}: expected B,T,k_1,...,k_m, all positive and T at least 2")


def smoke(query: str) -> Size:
    return (3, 5, 2, 3)


def small(query: str) -> Size:
    return (4000 if query == "factorial_sample" else 2, 4, 2, 3)


def goals(query: str, size: Size) -> tuple[tuple[str, float], ...]:
    return GOALS.get((query, size), ())


def flops(query: str, size: Size) -> float:
    """One multiply-add for each state of one chain and each joint state; the gradient is three times that."""
    batch, length, *states = size
    return 2.0 * (3 if "grad" in query else 1) * batch * length * prod(states) * sum(states)


def streamed(query: str, size: Size) -> int:
    return 0


def inputs(query: str, size: Size, copies: bool, seed: int) -> Arrays:
    """-> unary (B,T,S), joint states row-major, and for each chain ``transition_i`` (k,k), log-stochastic."""
    batch, length, *states = size
    rng = np.random.default_rng([seed, *size])
    rows = 1 if copies else batch
    unary = rng.standard_normal((rows, length, prod(states)))
    scores = [rng.standard_normal((k, k)) for k in states]
    transitions = {
        f"transition_{i}": x - np.log(np.exp(x).sum(-1, keepdims=True)) for i, x in enumerate(scores)
    }
    return {"unary": np.repeat(unary, batch // rows, 0), **transitions}


def transitions(inputs: Arrays) -> list[np.ndarray]:
    return [inputs[f"transition_{i}"] for i in range(len(inputs) - 1)]


def product_space(parts: list[np.ndarray]) -> np.ndarray:
    """(S,S): the sum of one score for each chain."""

    def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        size = len(a) * len(b)
        return (a[:, None, :, None] + b[None, :, None, :]).reshape(size, size)

    return reduce(join, [x.astype(np.float64) for x in parts])


def split_edges(edges: np.ndarray, states: Size) -> list[np.ndarray]:
    """Counts (S,S) of pairs of joint states -> of each chain's, (k,k)."""
    m = len(states)
    table = edges.reshape(*states, *states)
    return [
        table.sum(tuple(axis for axis in range(2 * m) if axis not in (chain, m + chain)))
        for chain in range(m)
    ]


def expected(query: str, inputs: Arrays) -> Arrays:
    """The reference's arrays that `errors` needs."""
    parts = transitions(inputs)
    joint = {"unary": inputs["unary"], "transition": product_space(parts)}
    if query == "factorial_viterbi":
        return {"best_score": reference.best_score(**joint)}
    found = reference.forward_backward(**joint)
    return {**found, "transition": _flat(split_edges(found["transition"], tuple(len(x) for x in parts)))}


def errors(query: str, size: Size, answer: list, inputs: Arrays, wanted: Arrays, copies: bool) -> dict:
    """Errors by name. `answer`: log Z; log Z, the gradient of unary and of each transition; states (B,T)."""
    if query in ("factorial_viterbi", "factorial_sample"):
        return _path_errors(query, size, answer[0], inputs, wanted, copies)
    if query == "factorial_grad":
        log_z, unary, *edges = answer
        answer = [log_z, unary, _flat(edges)]
    pairs = zip(("log_z", "unary", "transition"), answer, strict=False)
    return {name: relative(value.astype(np.float64), wanted[name]) for name, value in pairs}


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.concatenate([np.ravel(x) for x in parts])])


def _path_errors(
    query: str, size: Size, states: np.ndarray, inputs: Arrays, wanted: Arrays, copies: bool
) -> dict:
    batch, length, *counts = size
    if states.shape != (batch, length) or states.min() < 0 or states.max() >= prod(counts):
        raise Wrong(f"not {batch} paths of {length} joint states in 0..{prod(counts) - 1}")
    if copies:
        frequency = np.eye(prod(counts))[states].mean(0)
        return {"frequency": float(np.abs(frequency - wanted["unary"][0]).max())}
    parts = transitions(inputs)
    score = reference.score(states, inputs["unary"], product_space(parts))
    if query == "factorial_viterbi":
        return {"score": relative(score, wanted["best_score"])}
    energy = (wanted["unary"] * inputs["unary"]).sum() + (wanted["transition"] * _flat(parts)).sum()
    surprise = score.mean() - energy / batch
    return {"typicality": float(abs(surprise) / np.sqrt(length / batch))}
