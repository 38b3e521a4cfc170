"""Autoregressive decoders of words: p(x | z) = prod_t p(x_t | x_<t, z), the end of the sentence included.

z enters the input of every step, beside the embedding of the word before: Kim, Wiseman & Rush 2018, equations
6 and 7 (CRNNLM); without z it is an RNN language model, equations 1 and 2.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from structlv.models.grammar import require_sizes
from structlv.models.latent import require_latent, require_tokens
from structlv.models.recurrent import all_lengths, inside

UNKNOWN = 0  # what word dropout puts in place of a word: <unk> of structlv.data.Vocabulary


class Decoder(nn.Module):
    """log p(x | z) and draws of it. Abstract: ``hidden`` is to be given.

    Words are 0..V-1; V stands for the start among inputs and for the end among outputs.

    Args:
        vocab_size: V.
        word_dim: of embeddings of words.
        dim: of the hidden vectors that the softmax sees.
        latent: dimension of z, 0 for none.
        word_dropout: in training a word that the decoder sees is replaced by ``<unk>`` with this probability;
            what it has to predict never is. Bowman et al. 2016, section 3.1.
        skip: z also adds to the scores of words directly. Dieng et al. 2018, "Avoiding latent variable
            collapse with generative skip models".

    Raises ValueError where a size or a probability makes no sense.
    """

    def __init__(
        self, vocab_size: int, word_dim: int, dim: int, latent: int, word_dropout: float, skip: bool
    ) -> None:
        super().__init__()
        require_sizes(vocab_size=vocab_size, word_dim=word_dim, dim=dim)
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"word_dropout must be in [0, 1], found {word_dropout}")
        self.vocab_size, self.latent, self.word_dropout = vocab_size, latent, word_dropout
        self.embedding = nn.Embedding(vocab_size + 1, word_dim)
        self.out = nn.Linear(dim, vocab_size + 1)
        self.skip = nn.Linear(latent, vocab_size + 1, bias=False) if skip else None

    @abstractmethod
    def hidden(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(b, n, inputs) to (b, n, dim), of which row t depends on inputs up to t alone; and the state from
        which more inputs can follow."""

    def forward(self, x: Tensor, lengths: Tensor | None, z: Tensor | None = None) -> Tensor:
        """log p(x | z) in nats, (*s, b): words x (b, n), lengths (b), z (*s, b, latent), or (b) without z.

        Raises ValueError on another shape.
        """
        require_tokens(x, lengths)
        self._require(z, len(x))
        lengths = all_lengths(x, lengths)
        real = inside(lengths + 1, x.shape[1] + 1)
        words = torch.where(real[:, :-1] & inside(lengths, x.shape[1]), x, UNKNOWN)
        seen = pad(self._dropped(words), (1, 0), value=self.vocab_size)
        wanted = pad(words, (0, 1)).masked_fill(
            inside(lengths, x.shape[1] + 1).logical_not(), self.vocab_size
        )
        batch = (len(x),) if z is None else z.shape[:-1]
        expand = (*batch, x.shape[1] + 1)
        flat = None if z is None else z.flatten(0, -2)
        inputs = self._inputs(seen.expand(expand).flatten(0, -2), flat)
        real, wanted = (t.expand(expand).flatten(0, -2) for t in (real, wanted))
        rows = torch.arange(len(real), device=x.device).unsqueeze(-1).expand(real.shape)[real]
        states, _ = self.hidden(inputs)
        nats = -cross_entropy(self._scores(states[real], flat, rows), wanted[real], reduction="none")
        return nats.new_zeros(len(real)).index_add(0, rows, nats).view(batch)

    @torch.no_grad()
    def generate(
        self, count: int, z: Tensor | None = None, *, max_length: int = 100, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Words (count, n), 0 past the end, and lengths (count), drawn given z (count, latent).

        With ``greedy`` each word is the most probable one. A sentence that has not ended by ``max_length``
        words is cut there.
        """
        self._require(z, count)
        word = torch.full((count,), self.vocab_size, device=self.out.weight.device)
        rows = torch.arange(count, device=word.device)
        lengths, ended, words, state = (
            torch.zeros_like(word),
            torch.zeros_like(word, dtype=torch.bool),
            [],
            None,
        )
        for _ in range(max_length):
            hidden, state = self.hidden(self._inputs(word.unsqueeze(-1), z), state)
            scores = self._scores(hidden[:, -1], z, rows)
            word = scores.argmax(-1) if greedy else scores.softmax(-1).multinomial(1).squeeze(-1)
            ended = ended | (word == self.vocab_size)
            words.append(word.masked_fill(ended, 0))
            lengths = lengths + ended.logical_not()
            if bool(ended.all()):
                break
        return torch.stack(words, -1)[:, : max(1, int(lengths.max()))], lengths

    def _require(self, z: Tensor | None, batch: int) -> None:
        if (z is None) != (self.latent == 0):
            raise ValueError(f"expected {'a' if self.latent else 'no'} z of dimension {self.latent}")
        if z is not None:
            require_latent(z, batch, (self.latent,))

    def _dropped(self, words: Tensor) -> Tensor:
        if not self.training or self.word_dropout == 0:
            return words
        lost = torch.rand(words.shape, device=words.device) < self.word_dropout
        return words.masked_fill(lost, UNKNOWN)

    def _inputs(self, words: Tensor, z: Tensor | None) -> Tensor:
        """[embedding; z] of every step: words (b, n), z (b, latent)."""
        embedded = self.embedding(words)
        if z is None:
            return embedded
        return torch.cat([embedded, z.unsqueeze(1).expand(*words.shape, -1)], -1)

    def _scores(self, hidden: Tensor, z: Tensor | None, rows: Tensor) -> Tensor:
        """(m, V + 1) of hidden vectors (m, dim) that belong to those rows of z."""
        scores = self.out(hidden)
        return scores if self.skip is None or z is None else scores + self.skip(z)[rows]


class RecurrentDecoder(Decoder):
    """A GRU. Cost of a sentence of n words: O(n (dim^2 + V dim)). Arguments: ``Decoder``."""

    def __init__(
        self,
        vocab_size: int,
        *,
        word_dim: int = 128,
        dim: int = 256,
        latent: int = 0,
        word_dropout: float = 0.0,
        skip: bool = False,
    ) -> None:
        super().__init__(vocab_size, word_dim, dim, latent, word_dropout, skip)
        self.gru = nn.GRU(word_dim + latent, dim, batch_first=True)

    def hidden(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return self.gru(inputs, state)


class ConvolutionalDecoder(Decoder):
    """Dilated causal convolutions with residual connections; a word sees the 1 + 2 (2^layers - 1) before it.

    A decoder of short sight has to ask z for the rest. Yang et al. 2017, "Improved variational autoencoders
    for text modeling using dilated convolutions". Arguments: ``Decoder``, and `layers`; drawing recomputes
    the prefix.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        word_dim: int = 128,
        dim: int = 256,
        latent: int = 0,
        word_dropout: float = 0.0,
        skip: bool = False,
        layers: int = 3,
    ) -> None:
        super().__init__(vocab_size, word_dim, dim, latent, word_dropout, skip)
        self.entry = nn.Linear(word_dim + latent, dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, 3, dilation=2**i) for i in range(layers))

    def hidden(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        seen = inputs if state is None else torch.cat([state, inputs], 1)
        h = self.entry(seen).mT
        for i, convolution in enumerate(self.convolutions):
            h = h + convolution(pad(h.relu(), (2 * 2**i, 0)))
        return h.mT[:, -inputs.shape[1] :], seen
