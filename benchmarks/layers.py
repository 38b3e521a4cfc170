"""Cases of a CRF layer: a training step through the whole module, with tags, lengths and parameters.

Sizes are (B, T, K): sequences, positions, tags. Sequences have random lengths of 2 to T, the first has T.
"""

from __future__ import annotations

import numpy as np

from benchmarks import chain_reference as reference
from benchmarks.check import relative

Size = tuple[int, ...]
Arrays = dict[str, np.ndarray]

SUFFIX = "_layer"  # of the names of the peers' modules
QUERIES = {"crf_grad": "CRF layer: log-likelihood of tags and its gradient"}
SIZES = ((32, 100, 32), (32, 50, 9))
GOALS = {SIZES[0]: (("pytorch-crf", 8.0),)}


def sizes(query: str) -> tuple[Size, ...]:
    return SIZES


def require_size(query: str, size: Size) -> None:
    if len(size) != 3 or min(size[0], size[1] - 1, size[2]) < 1:
        raise ValueError(f"{size}: expected B,T,K with B and K positive and T at least 2")


def smoke(query: str) -> Size:
    return (4, 9, 8)


def small(query: str) -> Size:
    return (3, 6, 5)


def goals(query: str, size: Size) -> tuple[tuple[str, float], ...]:
    return GOALS.get(size, ())


def flops(query: str, size: Size) -> float:
    """As for the gradient of a chain, of full length."""
    batch, length, states = size
    return 6.0 * batch * length * states**2


def streamed(query: str, size: Size) -> int:
    return 0


def inputs(query: str, size: Size, copies: bool, seed: int) -> Arrays:
    """-> unary (B,T,K), transition (K,K), initial and final (K,), tags (B,T), lengths (B,).

    Tags and lengths are whole numbers in the dtype of the case, which holds them exactly.
    """
    batch, length, states = size
    rng = np.random.default_rng([seed, *size])
    lengths = rng.integers(2, length + 1, batch)
    lengths[0] = length
    return {
        "unary": rng.standard_normal((batch, length, states)),
        "transition": rng.standard_normal((states, states)),
        "initial": rng.standard_normal(states),
        "final": rng.standard_normal(states),
        "tags": rng.integers(0, states, (batch, length)),
        "lengths": lengths,
    }


def expected(query: str, inputs: Arrays) -> Arrays:
    """Log-likelihoods (B,) and their gradients: counts of the tags less the expected ones."""
    unary, transition = (inputs[name].astype(np.float64) for name in ("unary", "transition"))
    nats = np.zeros(len(unary))
    d_unary, d_transition = np.zeros_like(unary), np.zeros_like(transition)
    for i, n in enumerate(inputs["lengths"].astype(int)):
        scores = unary[i, :n].copy()
        scores[0] += inputs["initial"]
        scores[-1] += inputs["final"]
        tags = inputs["tags"][i : i + 1, :n].astype(int)
        found = reference.forward_backward(scores[None], transition)
        nats[i] = reference.score(tags, scores[None], transition)[0] - found["log_z"][0]
        d_unary[i, :n] = np.eye(len(transition))[tags[0]] - found["unary"][0]
        np.add.at(d_transition, (tags[0, :-1], tags[0, 1:]), 1.0)
        d_transition -= found["transition"]
    return {"log_z": nats, "unary": d_unary, "transition": d_transition}


def errors(query: str, size: Size, answer: list, inputs: Arrays, wanted: Arrays, copies: bool) -> dict:
    """Errors by name. `answer`: log-likelihoods, the gradients of unary and of the transitions."""
    names = ("log_z", "unary", "transition")
    return {
        name: relative(value.astype(np.float64), wanted[name])
        for name, value in zip(names, answer, strict=True)
    }
