"""Inference networks q(z | x) whose latent z is a structure: they emit the potentials of its parts.

Each is a module from words x (b, n) and lengths (b) to a structured distribution of batch shape (b).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structlv.distributions import BinaryTree, LinearChain, TreePosterior
from structlv.models.recurrent import WordEncoder


class ChainRecognition(nn.Module):
    """A chain whose scores of states come from a bidirectional LSTM; one transition matrix for all steps.

    Args: `vocab_size` V; `num_states` K; `dim`, even, of the network.
    """

    def __init__(self, vocab_size: int, num_states: int, dim: int) -> None:
        super().__init__()
        self.encoder = WordEncoder(vocab_size, dim)
        self.state = nn.Linear(dim, num_states)
        self.transition = nn.Parameter(torch.zeros(num_states, num_states))

    def forward(self, x: Tensor, lengths: Tensor) -> LinearChain:
        return LinearChain(self.state(self.encoder(x, lengths)), self.transition, lengths=lengths)


class SpanScorer(nn.Module):
    """Scores of every span from what the encoder says of its first and last words: (b, n, d) to (b, n, n, L).

    Stern, Andreas and Klein (2017), "A minimal span-based neural constituency parser", section 3.
    """

    def __init__(self, dim: int, num_labels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.label = nn.Linear(dim, num_labels)

    def forward(self, states: Tensor) -> Tensor:
        pairs = self.first(states).unsqueeze(-2) + self.last(states).unsqueeze(-3)
        return self.label(pairs.relu())


class SpanRecognition(nn.Module):
    """A ``BinaryTree`` (a constituency CRF) whose scores of labelled spans come from a bidirectional LSTM.

    Args: `vocab_size` V; `num_labels` L; `dim`, even, of the network.
    """

    def __init__(self, vocab_size: int, num_labels: int, dim: int) -> None:
        super().__init__()
        self.encoder = WordEncoder(vocab_size, dim)
        self.scorer = SpanScorer(dim, num_labels)

    def forward(self, x: Tensor, lengths: Tensor) -> BinaryTree:
        scores = self.scorer(self.encoder(x, lengths))
        return BinaryTree(scores, lengths=lengths, labelled=True)


class GrammarRecognition(nn.Module):
    """A ``TreePosterior``: scores of spans and of preterminals from a bidirectional LSTM, rules of its own.

    Args: `vocab_size` V; `num_nonterminals` NT; `num_preterminals` T; `dim`, even, of the network.
    """

    def __init__(self, vocab_size: int, num_nonterminals: int, num_preterminals: int, dim: int) -> None:
        super().__init__()
        symbols = num_nonterminals + num_preterminals
        self.encoder = WordEncoder(vocab_size, dim)
        self.scorer = SpanScorer(dim, num_nonterminals)
        self.preterminal = nn.Linear(dim, num_preterminals)
        self.root = nn.Parameter(torch.zeros(num_nonterminals))
        self.rules = nn.Parameter(torch.zeros(num_nonterminals, symbols, symbols))

    def forward(self, x: Tensor, lengths: Tensor) -> TreePosterior:
        states = self.encoder(x, lengths)
        unary, spans = self.preterminal(states), self.scorer(states)
        return TreePosterior(self.root, self.rules, unary, spans=spans, lengths=lengths)
