"""Mixtures: a discrete z for each sentence, so that everything is exact by enumeration."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from structlv.models.bags import counts, draw_words
from structlv.models.decoder import RecurrentDecoder
from structlv.models.grammar import require_sizes
from structlv.models.latent import LatentModel, require_latent, require_tokens


class Mixture(LatentModel):
    """z ~ Categorical(K); x ~ p(x | z). Abstract: ``components`` is to be given.

    The posterior is exact, and ``encode`` is the posterior: ``elbo`` then is log p(x), whatever z. With
    ``context_dim`` C it is a mixture of experts: p(z | c) is log-linear in c, a vector (b, C) for each
    sentence, which is then an argument of everything.

    Source: Kim, Wiseman & Rush 2018, sections 3.1 and 4.1; mixtures of experts: Jacobs et al. 1991.
    """

    def __init__(self, num_components: int, context_dim: int = 0, **hyperparameters: Any) -> None:
        require_sizes(num_components=num_components)
        super().__init__(num_components=num_components, **hyperparameters)
        self.num_components, self.context_dim = num_components, context_dim
        self.prior_logits = nn.Parameter(torch.zeros(num_components))
        self.gate = nn.Linear(context_dim, num_components, bias=False) if context_dim else None

    @abstractmethod
    def components(self, x: Tensor, lengths: Tensor | None, context: Tensor | None) -> Tensor:
        """log p(x | z = k), (b, K) nats."""

    def prior(self, context: Tensor | None = None) -> Categorical:
        """p(z), batch shape (); of experts p(z | c), batch shape (b)."""
        if (self.gate is None) != (context is None) or (
            context is not None and context.shape[-1] != self.context_dim
        ):
            wanted = "no context" if self.gate is None else f"a context of shape (b, {self.context_dim})"
            found = "none" if context is None else f"shape {tuple(context.shape)}"
            raise ValueError(f"expected {wanted}, found {found}")
        logits = self.prior_logits
        return Categorical(logits=logits if self.gate is None else logits + self.gate(context))

    def log_joint(self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """log p(x, z = k), (b, K) nats."""
        return self.prior(context).logits + self.components(x, lengths, context)

    def log_prob(self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """log p(x) in nats, z summed out: x (b, n), lengths (b) -> (b)."""
        return self.log_joint(x, lengths, context).logsumexp(-1)

    def posterior(
        self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> Categorical:
        """p(z | x), exact, batch shape (b)."""
        return Categorical(logits=self.log_joint(x, lengths, context))

    encode = posterior

    def log_likelihood(
        self, x: Tensor, lengths: Tensor | None, z: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """log p(x | z) for z (*s, b) in 0..K-1: (*s, b) nats."""
        table = self.components(x, lengths, context)
        require_latent(z, len(x), ())
        return table.expand(*z.shape, -1).gather(-1, z.unsqueeze(-1)).squeeze(-1)


class NaiveBayes(Mixture):
    """z ~ Categorical(K); each word of x from the words of z, independently, given the length.

    No multinomial coefficient: x is a sequence. EM has the M-step
    word[z, v] = sum_n q_n(z) c_nv / sum_n q_n(z) T_n.

    Args: `num_components` K; `vocab_size` V. Parameters: ``prior_logits`` (K) and ``word_logits`` (K, V),
    softmaxed here. Cost of `log_prob`: O(b V K). Source: Kim, Wiseman & Rush 2018, section 3.1, equation 3.
    """

    scores_end = False

    def __init__(self, num_components: int, vocab_size: int) -> None:
        require_sizes(vocab_size=vocab_size)
        super().__init__(num_components, vocab_size=vocab_size)
        self.vocab_size = vocab_size
        self.word_logits = nn.Parameter(0.1 * torch.randn(num_components, vocab_size))

    @torch.no_grad()
    def start_from_tables(self, prior_logits: Tensor, word_logits: Tensor) -> None:
        """Set the parameters, (K) and (K, V) unnormalised, for instance to what EM has found.

        Raises ValueError on a wrong shape.
        """
        for name, value in (("prior_logits", prior_logits), ("word_logits", word_logits)):
            mine = getattr(self, name)
            if value.shape != mine.shape:
                raise ValueError(f"{name} must have shape {tuple(mine.shape)}, found {tuple(value.shape)}")
            mine.copy_(value)

    def components(self, x: Tensor, lengths: Tensor | None, context: Tensor | None = None) -> Tensor:
        """log p(x | z = k), (b, K) nats."""
        require_tokens(x, lengths)
        found = counts(x, lengths, self.vocab_size, self.word_logits.dtype).unsqueeze(-1)
        table = self.word_logits.log_softmax(-1).T
        if bool((table > -torch.inf).all()):
            return found.squeeze(-1) @ table
        return torch.where(found > 0, found * table, 0.0).sum(-2)  # 0 log 0 = 0

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Words (b, n) drawn given z (b) and lengths (b), and the lengths. ValueError without lengths."""
        return draw_words(self.word_logits.log_softmax(-1)[z], lengths)


class MixtureOfRNNLM(Mixture):
    """z ~ Categorical(K); x from the z-th of K recurrent language models. Embeddings and softmax are shared.

    The end of the sentence is scored. With `context_dim` C it is a mixture of experts: the gate p(z | c) and
    every step of every expert see the context c (b, C).

    Args: `num_components` K; `vocab_size` V; `word_dim`, `dim` of embeddings and of each GRU; `context_dim`
    C. Cost of `log_prob` of N tokens: O(K N (dim^2 + V dim)). Source: Kim, Wiseman & Rush 2018, sections 3.1
    (equation 4) and 4.1.
    """

    scores_end = True

    def __init__(
        self,
        num_components: int,
        vocab_size: int,
        *,
        word_dim: int = 128,
        dim: int = 256,
        context_dim: int = 0,
    ) -> None:
        super().__init__(
            num_components, vocab_size=vocab_size, word_dim=word_dim, dim=dim, context_dim=context_dim
        )
        self.decoders = nn.ModuleList(
            RecurrentDecoder(vocab_size, word_dim=word_dim, dim=dim, latent=context_dim)
            for _ in range(num_components)
        )
        for decoder in self.decoders[1:]:
            decoder.embedding, decoder.out = self.decoders[0].embedding, self.decoders[0].out

    def components(self, x: Tensor, lengths: Tensor | None, context: Tensor | None = None) -> Tensor:
        """log p(x | z = k, c), (b, K) nats."""
        return torch.stack([decoder(x, lengths, context) for decoder in self.decoders], -1)

    @torch.no_grad()
    def generate(
        self,
        z: Tensor,
        lengths: Tensor | None = None,
        *,
        context: Tensor | None = None,
        max_length: int = 100,
        greedy: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Words (b, n) and lengths (b), drawn given z (b); ``lengths`` are ignored."""
        words, found = z.new_zeros(len(z), max_length), z.new_zeros(len(z))
        for k in z.unique().tolist():
            rows = z == k
            given = None if context is None else context[rows]
            x, n = self.decoders[k].generate(int(rows.sum()), given, max_length=max_length, greedy=greedy)
            words[rows] = torch.nn.functional.pad(x, (0, max_length - x.shape[1]))
            found[rows] = n
        return words[:, : max(1, int(found.max()))], found
