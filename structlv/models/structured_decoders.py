"""Decoders p(x | z) of words, given a structure z by its parts: sums over parts, so that z may be relaxed."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from structlv.distributions import ChainParts, TreeParts
from structlv.models.recurrent import inside
from structlv.models.structured_priors import WIDTHS


class StructuredDecoder(nn.Module):
    """log p(x | z) of words, given the parts of z. Abstract.

    Attributes:
        soft: whether parts may be relaxed, real numbers in place of counts, and the result is differentiable
            in them. Where a decoder says False it is asked for structures alone, and never for a derivative
            in their parts.
    """

    soft: ClassVar[bool]

    @abstractmethod
    def forward(self, x: Tensor, lengths: Tensor, parts: Any) -> Tensor:
        """(*s, b) nats: words x (b, n), lengths (b), parts as ``q.marginals()`` has them after (*s)."""


class SeenWords(nn.Embedding):
    """Embeddings of the words that a decoder sees, x (b, n) to (b, n, d); in training some are zero.

    Bowman et al. (2016), "Generating sentences from a continuous space", section 3.1.
    """

    def __init__(self, vocab_size: int, dim: int, word_dropout: float) -> None:
        super().__init__(vocab_size, dim)
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"word_dropout must be in [0, 1], found {word_dropout}")
        self.word_dropout = word_dropout

    def forward(self, x: Tensor) -> Tensor:
        words = super().forward(x)
        if not self.training or self.word_dropout == 0:
            return words
        kept = torch.rand(x.shape, device=x.device) >= self.word_dropout
        return words * kept.unsqueeze(-1)


class WordDecoder(StructuredDecoder):
    """The softmax over the vocabulary. Abstract."""

    soft = True

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.word = nn.Linear(dim, vocab_size)

    def log_prob(self, hidden: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
        """(*s, b): the words x (b, n) under the softmax of ``hidden`` (*s, b, n, d)."""
        scores = self.word(hidden)
        words = x.expand(scores.shape[:-1])
        nats = cross_entropy(scores.flatten(0, -2), words.flatten(), reduction="none").view(words.shape)
        return -torch.where(inside(lengths, x.shape[-1]), nats, 0.0).sum(-1)


class ChainDecoder(WordDecoder):
    """An LSTM that reads the states' embeddings, and with `history` the words before: p(x_t | z_1..z_t,
    x_<t).

    A word depends on all states up to its own, so the posterior over states is no chain: it has to be
    inferred.

    Args: `vocab_size` V; `num_states` K; `dim` of embeddings and network; `history`: whether words are seen;
    `word_dropout` of those.
    """

    def __init__(
        self, vocab_size: int, num_states: int, dim: int, *, history: bool, word_dropout: float
    ) -> None:
        super().__init__(vocab_size, dim)
        if word_dropout and not history:
            raise ValueError(f"without history no word is seen that could be dropped, found {word_dropout=}")
        self.seen = SeenWords(vocab_size, dim, word_dropout) if history else None
        self.state = nn.Linear(num_states, dim)
        nn.init.normal_(self.state.weight)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor, parts: ChainParts) -> Tensor:
        inputs = self.state(parts.unary)  # (*s, b, n, d)
        if self.seen is not None:
            inputs = inputs + pad(self.seen(x)[..., :-1, :], (0, 0, 1, 0))
        hidden, _ = self.lstm(inputs.flatten(0, -3))
        return self.log_prob(hidden.view(inputs.shape) + inputs, x, lengths)


class SpanDecoder(WordDecoder):
    """Each word given the constituents that end before it, made of words, and those that begin with it.

    A constituent over the words i..j is a vector c(i, j) of its first, last and mean word; a word sees the
    sum of c over the constituents that end before it (the previous word's own among them), their labels, and
    labels and widths of those that it begins. All are sums over parts. O(n^2 d) for each sample.

    Args: `vocab_size` V; `num_labels` L, symbols of a grammar among them; `dim` of embeddings and network;
    `word_dropout` of the words that constituents are made of.
    """

    def __init__(self, vocab_size: int, num_labels: int, dim: int, *, word_dropout: float) -> None:
        super().__init__(vocab_size, dim)
        self.seen = SeenWords(vocab_size, dim, word_dropout)
        self.first, self.last, self.mean = (nn.Linear(dim, dim, bias=i == 0) for i in range(3))
        self.ends, self.begins = nn.Linear(num_labels, dim, bias=False), nn.Linear(num_labels, dim)
        nn.init.normal_(self.begins.weight)
        self.widths = nn.Parameter(0.1 * torch.randn(WIDTHS, dim))
        self.start = nn.Parameter(0.1 * torch.randn(dim))
        self.hidden = nn.Linear(dim, dim)

    def forward(self, x: Tensor, lengths: Tensor, parts: Any) -> Tensor:
        labelled = _chart(parts)  # (*s, b, n, n, L)
        spans, n = labelled.sum(-1), x.shape[-1]
        ending = torch.einsum("...ij,...ijd->...jd", spans, self._composed(x)) + self.ends(labelled.sum(-3))
        before = torch.cat([self.start.expand_as(ending[..., :1, :]), ending[..., : n - 1, :]], -2)
        word = torch.arange(n, device=x.device)
        widths = self.widths[(word - word.unsqueeze(-1)).clamp(0, WIDTHS - 1)]
        beginning = torch.einsum("...ij,ijd->...id", spans, widths) + self.begins(labelled.sum(-2))
        hidden = (before + beginning).tanh()
        return self.log_prob((hidden + self.hidden(hidden).relu()), x, lengths)

    def _composed(self, x: Tensor) -> Tensor:
        """(b, n, n, d): a vector for every span."""
        words = self.seen(x)
        total = words.cumsum(-2)
        sums = total.unsqueeze(-3) - total.unsqueeze(-2) + words.unsqueeze(-2)  # of the words i..j
        place = torch.arange(x.shape[-1], device=x.device)
        width = (place - place.unsqueeze(-1) + 1).clamp(min=1).unsqueeze(-1)
        ends = self.first(words).unsqueeze(-2) + self.last(words).unsqueeze(-3)
        return (ends + self.mean(sums / width)).tanh()


def _chart(parts: Any) -> Tensor:
    """(*s, b, n, n, L): constituents with their labels, those of words on the diagonal."""
    if not isinstance(parts, TreeParts):
        return parts.spans
    assert parts.unary is not None
    assert parts.spans is not None
    words = torch.diag_embed(parts.unary.movedim(-1, -2)).movedim(-3, -1)
    return torch.cat([parts.spans, words], -1)
