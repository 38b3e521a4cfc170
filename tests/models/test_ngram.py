"""The n-gram baselines."""

import math
from pathlib import Path

import pytest

from structlv.data import Vocabulary, tokenise
from structlv.models import WittenBell


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_in_every_context(order: int) -> None:
    model = WittenBell(order, 4).fit([[0, 1, 2], [0, 1, 1], [2]])
    for context in {context for context in model.counts if len(context) == order - 1} | {(3,) * (order - 1)}:
        assert math.isclose(sum(model.prob(context, word) for word in (-1, 0, 1, 2, 3)), 1.0)


def test_one_probability_by_hand() -> None:
    model = WittenBell(2, 2).fit([[0, 1], [0, 0]])
    unigram = (3 + 3 * (1 / 3)) / (
        6 + 3
    )  # word 0: 3 of 6 symbols, 3 distinct ones, uniform over 2 words + end
    assert math.isclose(model.prob((), 0), unigram)
    assert math.isclose(model.prob((0,), 0), (1 + 3 * unigram) / (3 + 3))  # after 0: word 1, word 0, the end


def test_perplexity_counts_the_end_of_the_sentence() -> None:
    model = WittenBell(1, 3).fit([[0, 1], [2]])
    nats = -(model.log_prob([0]) + model.log_prob([1, 2]))
    assert math.isclose(model.perplexity([[0], [1, 2]]), math.exp(nats / 5))


@pytest.mark.corpora
def test_published_perplexities_on_e2e(corpora: Path) -> None:
    parts = [(corpora / "e2e" / name).read_text().splitlines() for name in ("train.tsv", "test.tsv")]
    train, test = ([tokenise(line.split("\t")[1]) for line in part[1:]] for part in parts)
    vocabulary = Vocabulary.build(train)
    encoded = [[vocabulary.encode(s).tolist() for s in part] for part in (train, test)]
    for order, expected in ((1, 121.84), (2, 18.75), (3, 17.50)):  # another tokeniser: 649 types, here 642
        found = WittenBell(order, len(vocabulary)).fit(encoded[0]).perplexity(encoded[1])
        assert math.isclose(found, expected, rel_tol=0.02)
