"""The neural topic model: a document mixes topics, distributions over words, by a point on the simplex."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, TransformedDistribution, constraints

from structlv.models.bags import BagEncoder, draw_words
from structlv.models.families import diagonal_gaussian
from structlv.models.grammar import require_sizes
from structlv.models.latent import LatentModel, require_latent, require_tokens
from structlv.models.recurrent import all_lengths, inside


class AdditiveLogRatio(Transform):
    """y in R^(K-1) to softmax([y, 0]) on the simplex of K: of a Gaussian, the logistic normal (Aitchison &
    Shen 1980)."""

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdditiveLogRatio)

    def __hash__(self) -> int:
        return hash(type(self))

    def _call(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 1)).softmax(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., :-1].log() - y[..., -1:].log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 1)).log_softmax(-1).sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        return torch.Size([*shape[:-1], shape[-1] + 1])

    def inverse_shape(self, shape: tuple[int, ...]) -> torch.Size:
        return torch.Size([*shape[:-1], shape[-1] - 1])


class NeuralTopicModel(LatentModel):
    """z on the simplex of K topics, logistic normal; each word from sum_k z_k beta[k], given the length.

    z = softmax([y, 0]) with y ~ N(mu, diag(sigma^2)) in R^(K-1), learned; beta[k] is a softmax over words.
    Posteriors are logistic normals too, so the KL has a closed form.

    Args: `vocab_size` V; `num_topics` K, at least 2; `encoder_dim` of the inference network, which reads word
    frequencies. Cost of `log_likelihood` of s draws: O(s b n K). Source: Kim, Wiseman & Rush 2018, section
    4.2; Blei & Lafferty 2007 (correlated topics); Srivastava & Sutton 2017 (amortised inference).
    """

    scores_end = False

    def __init__(self, vocab_size: int, *, num_topics: int = 20, encoder_dim: int = 128) -> None:
        require_sizes(vocab_size=vocab_size, encoder_dim=encoder_dim, **{"num_topics - 1": num_topics - 1})
        super().__init__(vocab_size=vocab_size, num_topics=num_topics, encoder_dim=encoder_dim)
        self.num_topics = num_topics
        self.mean = nn.Parameter(torch.zeros(num_topics - 1))
        self.log_variance = nn.Parameter(torch.zeros(num_topics - 1))
        self.topic_logits = nn.Parameter(torch.randn(num_topics, vocab_size))
        self.encoder = BagEncoder(vocab_size, encoder_dim, num_topics - 1)

    def prior(self, context: Any = None) -> TransformedDistribution:
        """The logistic normal, event shape (K)."""
        return TransformedDistribution(diagonal_gaussian(self.mean, self.log_variance), [AdditiveLogRatio()])

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> TransformedDistribution:
        """q(z | x), a logistic normal, batch shape (b): words x (b, n), lengths (b)."""
        return TransformedDistribution(self.encoder(x, lengths), [AdditiveLogRatio()])

    def topics(self) -> Tensor:
        """beta (K, V): the words of each topic, rows that sum to 1."""
        return self.topic_logits.softmax(-1)

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        """sum_t log sum_k z_k beta[k, x_t]: z (*s, b, K) -> (*s, b) nats."""
        require_tokens(x, lengths)
        require_latent(z, len(x), (self.num_topics,))
        nats = torch.einsum("...bk,bnk->...bn", z, self.topics().T[x]).log()
        return torch.where(inside(all_lengths(x, lengths), x.shape[1]), nats, 0.0).sum(-1)

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Words (b, n) drawn given z (b, K) and lengths (b), and the lengths."""
        return draw_words((z @ self.topics()).log(), lengths)

    @torch.no_grad()
    def typical_words(self, count: int = 8) -> Tensor:
        """(K, count) the most probable words of each topic."""
        return self.topic_logits.topk(min(count, self.topic_logits.shape[-1]), -1).indices
