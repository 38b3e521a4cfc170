"""Continuous Naive Bayes: the words of a sentence from a softmax that is linear in a Gaussian vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from structlv.models.bags import BagEncoder, counts, draw_words
from structlv.models.families import diagonal_gaussian
from structlv.models.grammar import require_sizes
from structlv.models.latent import LatentModel, require_latent, require_tokens


class ContinuousNaiveBayes(LatentModel):
    """z ~ N(mu, I); each word of x from softmax(W z), independently, given the length.

    Args: `vocab_size` V; `latent` dimension of z; `encoder_dim` of the inference network, which reads word
    frequencies. Cost of `log_likelihood` of s draws: O(s b V latent). Source: Kim, Wiseman & Rush 2018,
    section 3.2, equation 5.
    """

    scores_end = False

    def __init__(self, vocab_size: int, *, latent: int = 16, encoder_dim: int = 128) -> None:
        require_sizes(vocab_size=vocab_size, latent=latent, encoder_dim=encoder_dim)
        super().__init__(vocab_size=vocab_size, latent=latent, encoder_dim=encoder_dim)
        self.vocab_size, self.latent = vocab_size, latent
        self.mean = nn.Parameter(torch.zeros(latent))
        self.weight = nn.Parameter(torch.randn(vocab_size, latent) * latent**-0.5)
        self.encoder = BagEncoder(vocab_size, encoder_dim, latent)

    def prior(self, context: Any = None) -> Independent:
        """N(mu, I), mu learned."""
        return diagonal_gaussian(self.mean, torch.zeros_like(self.mean))

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Independent:
        """q(z | x), batch shape (b): words x (b, n), lengths (b)."""
        return self.encoder(x, lengths)

    def words(self, z: Tensor) -> Tensor:
        """log p(word | z), (*s, b, V)."""
        return (z @ self.weight.T).log_softmax(-1)

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        """log p(x | z) given the length: z (*s, b, latent) -> (*s, b) nats."""
        require_tokens(x, lengths)
        require_latent(z, len(x), (self.latent,))
        return (counts(x, lengths, self.vocab_size, z.dtype) * self.words(z)).sum(-1)

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Words (b, n) drawn given z (b, latent) and lengths (b), and the lengths."""
        return draw_words(self.words(z), lengths)
