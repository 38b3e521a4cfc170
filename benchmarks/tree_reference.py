"""Float64 answers for PCFGs: a plain numpy inside-outside, span by span, sharing no code with the library.

``root (B,NT)``, ``rules (B,NT,S,S)`` and ``unary (B,n,T)`` are natural-log potentials, S = NT + T; a symbol
from NT on is a preterminal and covers one word, one below NT covers more.
"""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


class Chart:
    """Per span (i, j), both included: weights (B,S) relative to exp(scale (B))."""

    def __init__(self, root: np.ndarray, rules: np.ndarray, unary: np.ndarray) -> None:
        self.root, self.rules, self.unary = (x.astype(np.float64) for x in (root, rules, unary))
        self.batch, self.words, self.preterminals = unary.shape
        self.nonterminals, self.symbols = rules.shape[1], rules.shape[-1]

    def leaf(self, i: int) -> np.ndarray:
        """Log weights (B,S) of word i."""
        none = np.full((self.batch, self.nonterminals), -np.inf)
        return np.concatenate([none, self.unary[:, i]], -1)

    def spans(self) -> list[tuple[int, int]]:
        return [(i, i + w) for w in range(1, self.words) for i in range(self.words - w)]


def inside_outside(root: np.ndarray, rules: np.ndarray, unary: np.ndarray) -> Arrays:
    """-> log_z (B,) and the expected counts root (B,NT), rules (B,NT,S,S), unary (B,n,T)."""
    c = Chart(root, rules, unary)
    top = c.rules.max((-1, -2), keepdims=True)
    weight = np.exp(c.rules - top)
    inside, pairs, shift = _inside(c, weight, top[..., 0, 0])
    last = inside[0, c.words - 1][:, : c.nonterminals]
    scores = c.root + last
    log_z = np.logaddexp.reduce(scores, -1)
    outside = {(0, c.words - 1): c.root - log_z[:, None]}  # log, nonterminals only
    counts = np.zeros_like(c.rules)
    leaves = np.zeros_like(c.unary)
    for i, j in reversed(c.spans()):
        above = np.exp(outside[i, j] + top[..., 0, 0] + shift[i, j][:, None])  # (B,NT)
        counts += above[..., None, None] * pairs[i, j][:, None]
        back = np.einsum("ba,bayz->byz", above, weight)
        for k in range(i, j):
            left, right = inside[i, k], inside[k + 1, j]
            scaled = np.exp(left - _finite_max(left)), np.exp(right - _finite_max(right))
            scale = np.exp(_finite_max(left) + _finite_max(right) - shift[i, j][:, None])
            _add(c, outside, leaves, i, k, np.einsum("byz,bz->by", back, scaled[1]) * scale, left)
            _add(c, outside, leaves, k + 1, j, np.einsum("byz,by->bz", back, scaled[0]) * scale, right)
    return {
        "log_z": log_z,
        "root": np.exp(scores - log_z[:, None]),
        "rules": counts * weight,
        "unary": leaves,
    }


def _inside(c: Chart, weight: np.ndarray, top: np.ndarray) -> tuple[dict, dict, dict]:
    inside = {(i, i): c.leaf(i) for i in range(c.words)}
    pairs, shift = {}, {}
    for i, j in c.spans():
        left = np.stack([inside[i, k] for k in range(i, j)], 1)
        right = np.stack([inside[k + 1, j] for k in range(i, j)], 1)
        high = left.max(-1) + right.max(-1)
        shift[i, j] = high.max(-1)
        scale = np.exp(high - shift[i, j][:, None])[..., None]
        scaled = np.exp(left - left.max(-1, keepdims=True)) * scale
        pairs[i, j] = scaled.swapaxes(1, 2) @ np.exp(right - right.max(-1, keepdims=True))
        total = np.einsum("bayz,byz->ba", weight, pairs[i, j])
        none = np.full((c.batch, c.preterminals), -np.inf)
        inside[i, j] = np.concatenate([np.log(total) + top + shift[i, j][:, None], none], -1)
    return inside, pairs, shift


def _finite_max(x: np.ndarray) -> np.ndarray:
    return x.max(-1, keepdims=True)


def _add(
    c: Chart, outside: dict, leaves: np.ndarray, i: int, j: int, weight: np.ndarray, own: np.ndarray
) -> None:
    """Adds to the outside of a child `weight` (B,S), which is relative to exp of its own maximum."""
    if i == j:
        leaves[:, i] += (weight * np.exp(own - _finite_max(own)))[:, c.nonterminals :]
        return
    found = np.log(weight[:, : c.nonterminals]) - _finite_max(own)
    outside[i, j] = np.logaddexp(outside[i, j], found) if (i, j) in outside else found


def best_score(root: np.ndarray, rules: np.ndarray, unary: np.ndarray) -> np.ndarray:
    """-> (B,) score of the best tree (max-plus recursion)."""
    c = Chart(root, rules, unary)
    best = {(i, i): c.leaf(i) for i in range(c.words)}
    none = np.full((c.batch, c.preterminals), -np.inf)
    for i, j in c.spans():
        pair = np.full((c.batch, c.symbols, c.symbols), -np.inf)
        for k in range(i, j):
            np.maximum(pair, best[i, k][:, :, None] + best[k + 1, j][:, None, :], out=pair)
        top = np.stack([(c.rules[:, a] + pair).max((-1, -2)) for a in range(c.nonterminals)], -1)
        best[i, j] = np.concatenate([top, none], -1)
    return (c.root + best[0, c.words - 1][:, : c.nonterminals]).max(-1)


def counts(event: np.ndarray, root: np.ndarray, rules: np.ndarray, unary: np.ndarray) -> list[np.ndarray]:
    """Trees (B,2n-1,3), rows (i, j, symbol) in pre-order -> how often each uses root, rules and unary."""
    found = [np.zeros(x.shape) for x in (root, rules, unary)]
    nonterminals = rules.shape[1]
    for b, rows in enumerate(event.tolist()):
        found[0][b, rows[0][2]] += 1
        waiting = []  # parents whose children are still to come, innermost last
        for i, j, symbol in rows:
            if waiting:
                waiting[-1][1].append(symbol)
            if i < j:
                waiting.append((symbol, []))
            else:
                found[2][b, i, symbol - nonterminals] += 1
            while waiting and len(waiting[-1][1]) == 2:
                parent, (left, right) = waiting.pop()
                found[1][b, parent, left, right] += 1
    return found
