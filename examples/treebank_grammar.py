"""A grammar read off a small treebank, and the two readings of a sentence that it makes possible.

Trees are binarised, rules counted, and the posterior over the trees of a new sentence answers: how many are
there, which is the best, how sure is that, and which constituents are there whatever the tree.
"""

from __future__ import annotations

import math

from structlv import SparseRules, TreePosterior
from structlv.data import binarise, collapse_unary, estimate_grammar, expand_unary, parse_trees, unbinarise
from structlv.viz import tree_text

TREEBANK = """
(S (NP I) (VP (V saw) (NP (D the) (N man))))
(S (NP (D the) (N man)) (VP (V saw) (NP (D a) (N telescope))))
(S (NP I) (VP (VP (V saw) (NP (D a) (N star))) (PP (P with) (NP (D the) (N telescope)))))
(S (NP (NP (D the) (N man)) (PP (P with) (NP (D a) (N telescope)))) (VP (V saw) (NP (D a) (N star))))
(S (NP (D a) (N star)) (VP (VP (V saw) (NP I)) (PP (P with) (NP (D a) (N man)))))
"""
SENTENCE = ["I", "saw", "the", "man", "with", "the", "telescope"]


def main() -> None:
    trees = [binarise(collapse_unary(tree), horizontal=1) for tree in parse_trees(TREEBANK)]
    grammar = estimate_grammar(trees)
    unary, lengths = grammar.batch([SENTENCE])
    rules = SparseRules(grammar.index, grammar.scores)
    posterior = TreePosterior(grammar.root, rules, unary, lengths=lengths)

    readings = round(float(posterior.log_count().exp()))
    scores, events = posterior.topk(readings)
    print(f"{' '.join(SENTENCE)!r} has {readings} trees:\n")
    for probability, event in zip(
        (scores - posterior.log_partition()).exp()[:, 0], events[:, 0], strict=True
    ):
        tree = grammar.tree(event, SENTENCE)
        assert tree is not None
        print(f"probability {probability:.2f}\n{tree_text(expand_unary(unbinarise(tree)))}\n")
    print(f"entropy {float(posterior.entropy()):.2f} nats, of at most {math.log(readings):.2f}")
    constituents = posterior.span_marginals()[0]
    print(f"'the man' is a constituent with probability {constituents[2, 3]:.2f},", end=" ")
    print(f"'the man with the telescope' with {constituents[2, 6]:.2f}")


if __name__ == "__main__":
    main()
