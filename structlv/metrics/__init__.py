"""Scores of predicted trees, clusters and spans against gold ones, and the baselines to beat."""

from structlv.metrics.baselines import left_branching, random_tree, right_branching
from structlv.metrics.brackets import PUNCTUATION, BracketScore, labelled_f1, unlabelled_f1
from structlv.metrics.clusters import many_to_one, one_to_one, v_measure
from structlv.metrics.spans import SpanScore, perplexity, span_f1

__all__ = [
    "PUNCTUATION",
    "BracketScore",
    "SpanScore",
    "labelled_f1",
    "left_branching",
    "many_to_one",
    "one_to_one",
    "perplexity",
    "random_tree",
    "right_branching",
    "span_f1",
    "unlabelled_f1",
    "v_measure",
]
