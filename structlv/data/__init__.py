"""Readers for text, vocabularies, and length-bucketed batches whose order can be resumed exactly."""

from structlv.data.batches import Batch, Batches
from structlv.data.corpora import demo_corpus
from structlv.data.readers import Sentence, read_conllu, read_sentences, read_text, tokenise
from structlv.data.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "Batches",
    "Sentence",
    "Vocabulary",
    "demo_corpus",
    "read_conllu",
    "read_sentences",
    "read_text",
    "tokenise",
]
