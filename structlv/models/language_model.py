"""The recurrent language model: what latent-variable models of sentences are compared with."""

from __future__ import annotations

from torch import Tensor

from structlv.models.base import Model
from structlv.models.decoder import RecurrentDecoder


class RNNLM(Model):
    """p(x) = prod_t softmax(W h_t)[x_t], h_t = GRU(h_{t-1}, x_{t-1}); the end of the sentence is a word.

    Args: `vocab_size` V; `word_dim` of embeddings; `dim` of the GRU. Cost of `log_prob` of N tokens: O(N
    (dim^2 + V dim)). Source: Kim, Wiseman & Rush 2018, section 2, equations 1 and 2.
    """

    scores_end = True

    def __init__(self, vocab_size: int, *, word_dim: int = 128, dim: int = 256) -> None:
        super().__init__(vocab_size=vocab_size, word_dim=word_dim, dim=dim)
        self.decoder = RecurrentDecoder(vocab_size, word_dim=word_dim, dim=dim)

    def log_prob(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x) in nats, end included: x (b, n) words, lengths (b) -> (b)."""
        return self.decoder(x, lengths)

    forward = log_prob

    def generate(self, count: int, *, max_length: int = 100, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Words (count, n) and lengths (count), drawn; cut at ``max_length`` words."""
        return self.decoder.generate(count, max_length=max_length, greedy=greedy)
