"""Readers for text, treebanks, grammars, alignments, melodies; vocabularies; batches that resume exactly."""

from structlv.data.batches import Batch, Batches
from structlv.data.binarise import binarise, collapse_unary, expand_unary, unbinarise
from structlv.data.cfg import read_cfg
from structlv.data.chorales import (
    Chorale,
    Melody,
    bach_chorales,
    pitch_name,
    pitch_number,
    read_melodies,
    shipped_tunes,
)
from structlv.data.corpora import demo_corpus
from structlv.data.download import TREEBANKS, download, download_treebank
from structlv.data.grammar import Grammar, Rule, Terminal, estimate_grammar
from structlv.data.packed import Unpacked, unpack
from structlv.data.readers import Sentence, read_conllu, read_sentences, read_text, tokenise
from structlv.data.series import read_series
from structlv.data.stockholm import Alignment, base_pairs, read_stockholm, ungapped
from structlv.data.treebank import parse_tree, parse_trees, read_trees, without_functions, write_trees
from structlv.data.trees import Span, Tree
from structlv.data.vocabulary import Vocabulary

__all__ = [
    "TREEBANKS",
    "Alignment",
    "Batch",
    "Batches",
    "Chorale",
    "Grammar",
    "Melody",
    "Rule",
    "Sentence",
    "Span",
    "Terminal",
    "Tree",
    "Unpacked",
    "Vocabulary",
    "bach_chorales",
    "base_pairs",
    "binarise",
    "collapse_unary",
    "demo_corpus",
    "download",
    "download_treebank",
    "estimate_grammar",
    "expand_unary",
    "parse_tree",
    "parse_trees",
    "pitch_name",
    "pitch_number",
    "read_cfg",
    "read_conllu",
    "read_melodies",
    "read_sentences",
    "read_series",
    "read_stockholm",
    "read_text",
    "read_trees",
    "shipped_tunes",
    "tokenise",
    "unbinarise",
    "ungapped",
    "unpack",
    "without_functions",
    "write_trees",
]
