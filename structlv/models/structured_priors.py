"""Priors p(z) over structures, given the length: each a module from n and lengths (*b) to a distribution.

They are of the kinds of ``structlv.models.recognition``, so that entropy, cross-entropy and KL are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structlv.distributions import BinaryTree, LinearChain, TreePosterior

WIDTHS = 8  # spans of more words score as those of this many


class MarkovPrior(nn.Module):
    """States of a Markov chain, as those of an HMM: p(z_1) prod_t p(z_t+1 | z_t), its log Z is 0.

    Args: `num_states` K.
    """

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.initial_logits = nn.Parameter(0.1 * torch.randn(num_states))
        self.transition_logits = nn.Parameter(0.1 * torch.randn(num_states, num_states))

    def forward(self, n: int, lengths: Tensor) -> LinearChain:
        initial, transition = self.initial_logits.log_softmax(-1), self.transition_logits.log_softmax(-1)
        unary = initial.new_zeros(()).expand(*lengths.shape, n, len(initial))
        return LinearChain(unary, transition, initial=initial, lengths=lengths)


class SpanPrior(nn.Module):
    """Labelled binary trees that prefer some constituents: a score for each label, width, and whether the
    span begins at the first word and ends at the last. At the start all trees are equally likely.

    Args: `num_labels` L.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(2, 2, WIDTHS, num_labels))

    def forward(self, n: int, lengths: Tensor) -> BinaryTree:
        word = torch.arange(n, device=lengths.device)
        width = (word - word.unsqueeze(-1)).clamp(0, WIDTHS - 1)  # of i..j, less one
        first = (word == 0).long().unsqueeze(-1)
        last = (word == lengths.unsqueeze(-1) - 1).long().unsqueeze(-2)
        return BinaryTree(self.scores[first, last, width], lengths=lengths, labelled=True)


class GrammarPrior(nn.Module):
    """Trees of a PCFG given the number of words: the words are summed out, p(tree | n) = p(tree) / p(n).

    Args: `num_nonterminals` NT; `num_preterminals` T.
    """

    def __init__(self, num_nonterminals: int, num_preterminals: int) -> None:
        super().__init__()
        symbols = num_nonterminals + num_preterminals
        self.num_preterminals = num_preterminals
        self.root_logits = nn.Parameter(0.1 * torch.randn(num_nonterminals))
        self.rule_logits = nn.Parameter(0.1 * torch.randn(num_nonterminals, symbols, symbols))

    def forward(self, n: int, lengths: Tensor) -> TreePosterior:
        root = self.root_logits.log_softmax(-1)
        rules = self.rule_logits.flatten(-2).log_softmax(-1).view_as(self.rule_logits)
        unary = root.new_zeros(()).expand(*lengths.shape, n, self.num_preterminals)
        return TreePosterior(root, rules, unary, lengths=lengths)
