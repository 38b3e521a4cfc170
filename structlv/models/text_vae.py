"""The variational autoencoder of sentences: a Gaussian vector for each, and an autoregressive decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from structlv.models.base import Elbo
from structlv.models.decoder import ConvolutionalDecoder, Decoder, RecurrentDecoder
from structlv.models.families import GaussianFamily, diagonal_gaussian
from structlv.models.grammar import require_sizes
from structlv.models.latent import LatentModel, elbo_at, require_tokens
from structlv.models.recurrent import all_lengths, inside, run_lstm

DECODERS = ("recurrent", "convolutional")


class TextVAE(LatentModel):
    """z ~ N(0, I); x ~ CRNNLM(z): a decoder whose every step sees z. q(z | x) is a diagonal Gaussian.

    The inference network is a bidirectional LSTM, the maximum of its states over time, and a linear map to
    mean and log-variance. The end of the sentence is scored.

    Args:
        vocab_size: V.
        latent: dimension of z.
        word_dim, dim, encoder_dim: of embeddings, of the decoder, of each direction of the encoder.
        decoder: "recurrent" (a GRU) or "convolutional" (dilated causal convolutions).
        word_dropout: of the decoder's inputs alone, in training alone.
        skip: z also adds to the scores of words.
        bag_of_words: weight of an auxiliary loss, log softmax(f(z))[x_t] summed over t: what helps z to tell
            the words (Zhao et al. 2017, "Learning discourse-level diversity for neural dialog models",
            section 3.3). Training maximises the bound plus this; the bound itself stays as it is.

    Cost of `elbo` of N tokens: O(N (dim^2 + encoder_dim^2 + V dim)). Source: Bowman et al. 2016, "Generating
    sentences from a continuous space"; Kim, Wiseman & Rush 2018, sections 3.2 and 6.2. Raises ValueError for
    another decoder, or a size below 1.
    """

    scores_end = True

    def __init__(
        self,
        vocab_size: int,
        *,
        latent: int = 32,
        word_dim: int = 128,
        dim: int = 256,
        encoder_dim: int = 128,
        decoder: str = "recurrent",
        word_dropout: float = 0.0,
        skip: bool = False,
        bag_of_words: float = 0.0,
    ) -> None:
        sizes = {"latent": latent, "word_dim": word_dim, "dim": dim, "encoder_dim": encoder_dim}
        require_sizes(vocab_size=vocab_size, **sizes)
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {DECODERS}, found {decoder!r}")
        options: dict[str, Any] = {"word_dropout": word_dropout, "skip": skip}
        super().__init__(
            vocab_size=vocab_size, decoder=decoder, bag_of_words=bag_of_words, **sizes, **options
        )
        kind = RecurrentDecoder if decoder == "recurrent" else ConvolutionalDecoder
        self.decoder: Decoder = kind(vocab_size, word_dim=word_dim, dim=dim, latent=latent, **options)
        self.embedding = nn.Embedding(vocab_size, word_dim)
        self.encoder = nn.LSTM(word_dim, encoder_dim, bidirectional=True, batch_first=True)
        self.gaussian = GaussianFamily(2 * encoder_dim, latent)
        self.bag_weight = bag_of_words
        self.bag = (
            nn.Sequential(nn.Linear(latent, dim), nn.Tanh(), nn.Linear(dim, vocab_size))
            if bag_of_words
            else None
        )
        self.latent = latent

    def prior(self, context: Any = None) -> Independent:
        """N(0, I) over (latent)."""
        zero = self.decoder.out.weight.new_zeros(self.latent)
        return diagonal_gaussian(zero, zero)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Independent:
        """q(z | x), batch shape (b): words x (b, n), lengths (b)."""
        require_tokens(x, lengths)
        states = run_lstm(self.encoder, self.embedding(x), all_lengths(x, lengths), padding=-torch.inf)
        return self.gaussian(states.amax(-2))

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        """log p(x | z), end included: x (b, n), lengths (b), z (*s, b, latent) -> (*s, b) nats."""
        return self.decoder(x, lengths, z)

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """The bound with one reparameterised draw and the KL in closed form, (b)."""
        q = self.encode(x, lengths)
        z = q.rsample((1,))
        bound = elbo_at(z, q, self, x, lengths)
        return bound if self.bag is None else bound._replace(auxiliary=self._bag_of_words(z[0], x, lengths))

    def _bag_of_words(self, z: Tensor, x: Tensor, lengths: Tensor | None) -> Tensor:
        assert self.bag is not None
        nats = self.bag(z).log_softmax(-1).gather(-1, x)
        return self.bag_weight * torch.where(inside(all_lengths(x, lengths), x.shape[1]), nats, 0.0).sum(-1)

    def generate(
        self, z: Tensor, lengths: Tensor | None = None, *, max_length: int = 100, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Words (b, n) and lengths (b), drawn from p(x | z), z (b, latent); ``lengths`` are ignored: the
        model ends its sentences itself, at ``max_length`` words at the latest."""
        return self.decoder.generate(len(z), z, max_length=max_length, greedy=greedy)
