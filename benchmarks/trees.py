"""Cases of PCFGs: their sizes, random inputs, counted work, the speed they are meant to have, their checks.

Sizes are (B, n, NT, T): sentences, words, nonterminals, preterminals. Every sentence has a grammar of its own
but for the queries that end in "shared".
"""

from __future__ import annotations

from math import comb

import numpy as np

from benchmarks import tree_reference as reference
from benchmarks.check import Wrong, relative

Size = tuple[int, ...]
Arrays = dict[str, np.ndarray]

SUFFIX = "_trees"  # of the names of the peers' modules
QUERIES = {
    "tree_logz": "PCFG: log-partition",
    "tree_grad": "PCFG: log-partition and its gradient",
    "tree_grad_shared": "PCFG, one grammar for all sentences: log-partition and its gradient",
    "tree_viterbi": "PCFG: Viterbi with its tree",
    "tree_sample": "PCFG: posterior sample, one per sentence",
}
SIZES = tuple((batch, n, 30, 60) for batch, n in ((4, 10), (4, 20), (16, 20), (4, 40), (16, 40)))
# (query, B, n) -> wanted speed-ups over peers. "best" is the fastest peer of the run.
GOALS: dict[tuple[str, int, int], tuple[tuple[str, float], ...]] = {
    ("tree_grad", 4, 20): (("strong torch", 21), ("torch-struct", 250)),
    ("tree_grad", 16, 20): (("strong torch", 18),),
    ("tree_grad", 4, 40): (("strong torch", 21),),
    ("tree_grad", 16, 40): (("strong torch", 18),),
    ("tree_viterbi", 4, 20): (("best", 250),),
}


def sizes(query: str) -> tuple[Size, ...]:
    return SIZES


def require_size(query: str, size: Size) -> None:
    if len(size) != 4 or min(size[0], size[1] - 2, *size[2:]) < 1:
        raise ValueError(f"{size}: expected B,n,NT,T, all positive and n at least 3")


def smoke(query: str) -> Size:
    return (2, 6, 4, 5)


def small(query: str) -> Size:
    return (4000 if query == "tree_sample" else 2, 5, 2, 3)


def goals(query: str, size: Size) -> tuple[tuple[str, float], ...]:
    return GOALS.get((query, *size[:2]), ()) if size in SIZES else ()


def flops(query: str, size: Size) -> float:
    """Multiply-adds, twice, of the algorithm that hoists preterminal children out of the loop over spans."""
    batch, n, nt, t = size
    splits, wide, wider = comb(n - 1, 3), comb(n - 2, 2), comb(n - 1, 2)
    forward = (
        splits * nt**2 + wide * nt**3 + 2 * n * nt**2 * t + 2 * wider * nt**2 + n * nt * t**2 + n * nt * t
    )
    return 2.0 * batch * (3 * forward + splits * nt**2 if "grad" in query else forward)


def streamed(query: str, size: Size) -> int:
    """Numbers in the rules of all sentences."""
    batch, _, nt, t = size
    return 0 if query.endswith("shared") else batch * nt * (nt + t) ** 2


def inputs(query: str, size: Size, copies: bool, seed: int) -> Arrays:
    """-> root (B,NT), rules (B,NT,S,S) or (NT,S,S), both log-probabilities, and unary (B,n,T)."""
    batch, n, nt, t = size
    rng = np.random.default_rng([seed, *size])
    rows = 1 if copies else batch
    shared = query.endswith("shared")
    root, rules = (
        rng.standard_normal((rows, nt)),
        rng.standard_normal((1 if shared else rows, nt, (nt + t) ** 2)),
    )
    unary = np.repeat(rng.standard_normal((rows, n, t)), batch // rows, 0)
    root, rules = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (root, rules))
    rules = rules.reshape(-1, nt, nt + t, nt + t)
    rules = rules[0] if shared else np.repeat(rules, batch // rows, 0)
    return {"root": np.repeat(root, batch // rows, 0), "rules": rules, "unary": unary}


def _own_rules(inputs: Arrays) -> Arrays:
    rules, batch = inputs["rules"], len(inputs["unary"])
    return {**inputs, "rules": np.broadcast_to(rules, (batch, *rules.shape)) if rules.ndim == 3 else rules}


def expected(query: str, inputs: Arrays) -> Arrays:
    """The reference's arrays that `errors` needs."""
    if query == "tree_viterbi":
        return {"best_score": reference.best_score(**_own_rules(inputs))}
    wanted = reference.inside_outside(**_own_rules(inputs))
    if query.endswith("shared"):
        wanted["rules"] = wanted["rules"].sum(0)
    return wanted


def errors(query: str, size: Size, answer: list, inputs: Arrays, wanted: Arrays, copies: bool) -> dict:
    """Errors by name. `answer`: log Z; log Z and the gradients root, rules, unary; trees (B,2n-1,3), or, for
    a peer that has no trees, how often root, rules and unary are used."""
    if query in ("tree_viterbi", "tree_sample"):
        return _tree_errors(query, size, answer, _own_rules(inputs), wanted, copies)
    names = ("log_z",) if query == "tree_logz" else ("log_z", "root", "rules", "unary")
    return {
        name: relative(value.astype(np.float64), wanted[name])
        for name, value in zip(names, answer, strict=True)
    }


def _tree_errors(query: str, size: Size, answer: list, inputs: Arrays, wanted: Arrays, copies: bool) -> dict:
    batch, n = size[:2]
    used = reference.counts(answer[0], **inputs) if len(answer) == 1 else answer
    if any(
        int(part[b].sum()) != total
        for part, total in zip(used, (1, n - 1, n), strict=True)
        for b in range(batch)
    ):
        raise Wrong(f"not {batch} binary trees of {n} words")
    if copies:
        errors = [
            np.abs(part.mean(0) - wanted[name][0]).max() for part, name in zip(used, inputs, strict=True)
        ]
        return {"frequency": float(max(errors))}
    score = sum(
        (part * value).reshape(batch, -1).sum(-1) for part, value in zip(used, inputs.values(), strict=True)
    )
    if query == "tree_viterbi":
        return {"score": relative(score, wanted["best_score"])}
    energy = sum((wanted[name] * value).sum() for name, value in inputs.items())
    surprise = score.mean() - energy / batch
    return {"typicality": float(abs(surprise) / np.sqrt(n / batch))}
