"""How well induced states agree with gold tags."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable

from structlv._extras import require


def many_to_one(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> float:
    """Accuracy when each predicted cluster is read as the gold tag that it meets most often.

    The two are aligned, one entry a word. Raises ValueError if they are not of one length, or empty.
    """
    pairs = _pairs(predicted, gold)
    best: Counter[Hashable] = Counter()
    for (cluster, _), count in pairs.items():
        best[cluster] = max(best[cluster], count)
    return best.total() / pairs.total()


def one_to_one(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> float:
    """Accuracy under the best matching of clusters to gold tags, each used at most once.

    The assignment is scipy's (extra "metrics"); Haghighi and Klein (2006), section 5. Raises as
    `many_to_one`, and MissingExtra.
    """
    pairs = _pairs(predicted, gold)
    optimize = require("scipy.optimize", "metrics")
    rows, columns = ({key: i for i, key in enumerate(_marginal(pairs, place))} for place in (0, 1))
    counts = [[0] * len(columns) for _ in rows]
    for (cluster, tag), count in pairs.items():
        counts[rows[cluster]][columns[tag]] = count
    chosen = optimize.linear_sum_assignment(counts, maximize=True)
    return sum(counts[i][j] for i, j in zip(*chosen, strict=True)) / pairs.total()


def v_measure(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> float:
    """Harmonic mean of homogeneity 1 - H(gold | predicted) / H(gold) and completeness, the same turned round.

    Either is 1 where its denominator is 0. Source: Rosenberg and Hirschberg (2007). Raises as `many_to_one`.
    """
    pairs = _pairs(predicted, gold)
    joint = _entropy(pairs)
    clusters, tags = (_entropy(_marginal(pairs, place)) for place in (0, 1))
    homogeneity = 1.0 - (joint - clusters) / tags if tags > 0 else 1.0
    completeness = 1.0 - (joint - tags) / clusters if clusters > 0 else 1.0
    total = homogeneity + completeness
    return 2.0 * homogeneity * completeness / total if total > 0 else 0.0


def _pairs(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> Counter[tuple[Hashable, Hashable]]:
    clusters, tags = list(predicted), list(gold)
    if len(clusters) != len(tags) or not tags:
        raise ValueError(f"expected a cluster for each tag, found {len(clusters)} for {len(tags)} tags")
    return Counter(zip(clusters, tags, strict=True))


def _marginal(pairs: Counter[tuple[Hashable, Hashable]], place: int) -> Counter[Hashable]:
    counts: Counter[Hashable] = Counter()
    for pair, count in pairs.items():
        counts[pair[place]] += count
    return counts


def _entropy(counts: Counter) -> float:
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())
