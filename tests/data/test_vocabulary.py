"""Vocabularies."""

import pytest
import torch

from structlv.data import Vocabulary


def test_build_orders_by_frequency_then_alphabet_and_cuts() -> None:
    sentences = [("b", "a", "c"), ("b", "a"), ("b", "d", "d")]
    assert Vocabulary.build(sentences).words == ("<unk>", "b", "a", "d")
    assert Vocabulary.build(sentences, min_count=1, max_size=3).words == ("<unk>", "b", "a")


def test_encode_and_decode() -> None:
    vocabulary = Vocabulary(["x", "y"])
    encoded = vocabulary.encode(["y", "never seen", "x"])
    assert encoded.tolist() == [2, 0, 1]
    assert encoded.dtype == torch.int64
    assert vocabulary.decode(torch.tensor([2, 0, 1, -1])) == ["y", "<unk>", "x"]
    assert "x" in vocabulary
    assert len(vocabulary) == 3


def test_a_placeholder_in_the_text_is_the_unknown_word() -> None:
    vocabulary = Vocabulary.build([("<unk>", "<unk>", "a", "a")])
    assert vocabulary.words == ("<unk>", "a")


def test_duplicates_are_refused() -> None:
    with pytest.raises(ValueError, match="found twice: a"):
        Vocabulary(["a", "b", "a"])
