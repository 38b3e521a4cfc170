"""Many-to-one and one-to-one accuracy, V-measure."""

import itertools
import math

import pytest

from structlv.metrics import many_to_one, one_to_one, v_measure


def test_many_to_one() -> None:
    assert many_to_one([0, 0, 0, 1, 1, 2], "aabbbb") == 5 / 6
    assert many_to_one([3, 3], "ab") == 0.5


def test_one_to_one() -> None:
    pytest.importorskip("scipy")
    assert one_to_one([0, 0, 0, 1, 1, 2], "aabbbb") == 4 / 6  # 0 is a, and only one of 1 and 2 is b
    assert one_to_one("xyz", "aaa") == 1 / 3
    predicted, gold = [i * i % 5 for i in range(40)], [i % 4 for i in range(40)]
    matchings = itertools.permutations(range(5), 4)
    best = max(sum(m[g] == p for p, g in zip(predicted, gold, strict=True)) for m in matchings)
    assert one_to_one(predicted, gold) == best / 40


def test_v_measure() -> None:
    assert v_measure("xxyy", "aabb") == 1.0
    assert v_measure("xyxy", "aabb") == pytest.approx(0.0, abs=1e-12)
    assert v_measure("wxyz", "aabb") == pytest.approx(2 / 3)  # homogeneity 1, completeness 1/2
    assert v_measure("xx", "aa") == 1.0
    joint, half = -(math.log(0.25) * 0.5 + math.log(0.5) * 0.5), math.log(2)
    clusters = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    homogeneity, completeness = 1 - (joint - clusters) / half, 1 - (joint - half) / clusters
    expected = 2 * homogeneity * completeness / (homogeneity + completeness)
    assert v_measure("xxxy", "aabb"[::-1]) == pytest.approx(expected)


def test_against_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    predicted, gold = [i * i % 7 for i in range(60)], [i % 4 for i in range(60)]
    assert v_measure(predicted, gold) == pytest.approx(sklearn.v_measure_score(gold, predicted))


@pytest.mark.parametrize("score", [many_to_one, one_to_one, v_measure])
def test_what_is_refused(score) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="found 0 for 0"):
        score([], [])
    with pytest.raises(ValueError, match="expected a cluster for each tag, found 1 for 2 tags"):
        score([1], [1, 2])
