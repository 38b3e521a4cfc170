"""Scores of predicted trees and clusters against gold ones, and the baselines to beat."""

from structlv.metrics.baselines import left_branching, random_tree, right_branching
from structlv.metrics.brackets import PUNCTUATION, BracketScore, labelled_f1, unlabelled_f1
from structlv.metrics.clusters import many_to_one, v_measure

__all__ = [
    "PUNCTUATION",
    "BracketScore",
    "labelled_f1",
    "left_branching",
    "many_to_one",
    "random_tree",
    "right_branching",
    "unlabelled_f1",
    "v_measure",
]
