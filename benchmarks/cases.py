"""What is measured: a query at one size, its random inputs, its counted work, and the speed it is meant to
have.

Sizes are (B, T, K): sequences, positions, states. A *chain* has one transition matrix for all steps (an HMM
or a plain CRF); a *dense* chain has its own potentials for every step of every sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUERIES = ("logz", "logz_grad", "marginals", "viterbi", "sample", "dense_grad")
TITLES = {
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
GOALS = {
    "logz_grad": ("dynamax", (7, 8, 2.5, 2.1, 14)),
    "viterbi": ("best", (18, 9, 40, 40, 18)),
    "sample": ("dynamax", (8, 6, 3, 1.5, 14)),
    "dense_grad": ("best", (8, 6, 12)),
}
# Operations per B*T*K^2: one multiply-add per entry of a product; the gradient needs three products, and
# the maximum of max-plus cannot share an instruction with its addition, so it is counted twice.
FLOPS = {"logz": 2, "logz_grad": 6, "marginals": 4, "viterbi": 4, "sample": 2, "dense_grad": 6}


@dataclass(frozen=True)
class Case:
    query: str
    batch: int
    length: int
    states: int
    dtype: str = "float32"

    @property
    def dense(self) -> bool:
        return self.query == "dense_grad"

    @property
    def size(self) -> tuple[int, int, int]:
        return self.batch, self.length, self.states

    @property
    def name(self) -> str:
        return f"{self.query}:{self.batch},{self.length},{self.states}:{self.dtype}"

    @property
    def edge_bytes(self) -> int:
        """Bytes of a dense chain's potentials, 0 for a shared matrix (which stays in cache)."""
        width = np.dtype(self.dtype).itemsize
        return width * self.batch * (self.length - 1) * self.states**2 if self.dense else 0

    def flops(self) -> float:
        return float(FLOPS[self.query] * self.batch * self.length * self.states**2)

    def goal(self) -> tuple[str, float] | None:
        """The peer to beat and by what factor, or None where no goal was set for this case."""
        sizes = DENSE_SIZES if self.dense else CHAIN_SIZES
        if self.query not in GOALS or self.size not in sizes or self.dtype != "float32":
            return None
        peer, factors = GOALS[self.query]
        return peer, factors[sizes.index(self.size)]


def parse(text: str) -> Case:
    """``query:B,T,K[:dtype]`` -> Case. Raises ValueError on an unknown query or a malformed size."""
    query, size, *dtype = text.split(":")
    if query not in QUERIES:
        raise ValueError(f"unknown query {query!r}; one of {', '.join(QUERIES)}")
    batch, length, states = (int(part) for part in size.split(","))
    if min(batch, length - 1, states) < 1:
        raise ValueError(f"{size}: B and K must be positive, T at least 2")
    return Case(query, batch, length, states, *dtype)


def full() -> list[Case]:
    chains = [Case(query, *size) for query in QUERIES[:-1] for size in CHAIN_SIZES]
    return chains + [Case("dense_grad", *size) for size in DENSE_SIZES]


def smoke() -> list[Case]:
    return [Case(query, 4, 9, 8) for query in QUERIES[:-1]] + [Case("dense_grad", 3, 7, 6)]


def small_version(case: Case) -> Case:
    """Many copies of one short sequence: sampling is checked on it, and it warms up a peer's code."""
    return Case(case.query, 4000 if case.query == "sample" else 3, 6, 5, case.dtype)


def inputs(case: Case, *, copies: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """-> unary (B,T,K) and transition (K,K), or (B,T-1,K,K) for a dense chain, whose unary is zero.

    The transition matrix of a plain chain is a log stochastic matrix and unary holds standard normal
    log-likelihoods, so that HMM libraries can take them too; the initial scores are zero. `copies` repeats
    one sequence over the batch.
    """
    rng = np.random.default_rng([seed, *case.size])
    rows = 1 if copies else case.batch
    unary = rng.standard_normal((rows, case.length, case.states))
    transition = rng.standard_normal((case.states, case.states))
    transition -= np.log(np.exp(transition).sum(-1, keepdims=True))
    if case.dense:
        unary = np.zeros_like(unary)
        transition = rng.standard_normal((rows, case.length - 1, case.states, case.states))
        transition = np.repeat(transition, case.batch // rows, 0)
    unary = np.repeat(unary, case.batch // rows, 0)
    return {"unary": unary.astype(case.dtype), "transition": transition.astype(case.dtype)}
