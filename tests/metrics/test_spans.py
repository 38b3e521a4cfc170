"""Span F1 and perplexity."""

import math

import pytest

pytest.importorskip("seqeval")

from structlv.metrics import perplexity, span_f1


def test_spans_count_as_a_whole() -> None:
    gold = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-PER"]]
    predicted = [["B-PER", "O", "O", "B-ORG"], ["B-ORG", "B-PER"]]
    found = span_f1(predicted, gold)  # right: the ORG and the last PER, of 4 found and 3 there
    assert found.precision == pytest.approx(2 / 4)
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(4 / 7)
    assert span_f1(gold, gold) == (1, 1, 1)
    assert span_f1([["O"]], [["O"]]) == (0, 0, 0)
    with pytest.raises(ValueError, match="as many sentences"):
        span_f1([["O"]], [["O", "O"]])


def test_perplexity() -> None:
    assert perplexity(-3 * math.log(8), 3) == pytest.approx(8)
    assert perplexity(-math.inf, 2) == math.inf
    with pytest.raises(ValueError, match="found nan of 2"):
        perplexity(math.nan, 2)
