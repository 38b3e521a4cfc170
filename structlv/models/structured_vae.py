"""Structured variational autoencoders: the latent z of a sentence is a chain of states, or a tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Generator, Tensor, nn

from structlv.distributions import StraightThroughMarginals, StructuredDistribution
from structlv.models.base import Elbo, Model
from structlv.models.grammar import require_sizes
from structlv.models.recognition import ChainRecognition, GrammarRecognition, SpanRecognition
from structlv.models.recurrent import all_lengths
from structlv.models.structured_decoders import ChainDecoder, SpanDecoder, StructuredDecoder
from structlv.models.structured_priors import GrammarPrior, MarkovPrior, SpanPrior

Self = TypeVar("Self", bound="StructuredVAE")


class GradientEstimator(Protocol):
    """What a `StructuredVAE` asks of an estimator: those of ``structlv.learning.estimators`` have it."""

    of_parts: ClassVar[bool]
    of_mean: ClassVar[bool]

    @property
    def through_parts(self) -> bool:
        """Whether f is asked for relaxed parts, or for its derivative in parts."""

    def __call__(self, p: StructuredDistribution, f: Any, generator: Generator | None = None) -> Tensor:
        """A surrogate (*b) of E_p[f]."""


class StructuredVAE(Model):
    """A model of sentences x with a structured latent z: z ~ p(z | length), x ~ p(x | z); q(z | x) beside it.

    p(z) and q(z | x) are structured distributions of one kind, chains or trees, so that entropy and KL(q ||
    p) are exact, and so are their gradients. Only the reconstruction E_q[log p(x | z)] is estimated, by the
    estimator that ``use`` sets. Lengths are given, not modelled. Kim, Wiseman & Rush 2018, section 6.4.2;
    among others Corro & Titov, "Differentiable Perturb-and-Parse", 2019.

    `ChainVAE`, `TreeVAE` and `GrammarVAE` build their parts from sizes. Other parts can be given here; a
    model of such parts can be saved where it is a subclass whose constructor takes plain JSON values.

    Args:
        recognition: q, a module from x (b, n) and lengths (b) to a ``StructuredDistribution`` of batch (b).
        prior: a module from n and lengths (*b) to a distribution of the same kind.
        decoder: a ``StructuredDecoder``.
        hyperparameters: those of a subclass.
    """

    def __init__(
        self, recognition: nn.Module, prior: nn.Module, decoder: StructuredDecoder, **hyperparameters: Any
    ) -> None:
        super().__init__(**hyperparameters)
        self.recognition, self.structure_prior, self.decoder = recognition, prior, decoder
        self.estimator: GradientEstimator | None = None

    def use(self: Self, estimator: GradientEstimator | None) -> Self:
        """Estimate the gradient of the reconstruction in this way from now on; returns the model.

        None stands for one exact sample with the gradient of the marginals (``StraightThroughMarginals``).
        ``Relaxed`` with soft parts maximises log p(x | relaxed z) less the KL of structures, which bounds
        nothing: judge by hard samples, as `elbo` does where no gradient is recorded. The parameters of an
        estimator that has some (``REBAR``, ``RELAX``) are trained with the model's, as part of it, but not
        saved with it.

        Raises:
            ValueError: the estimator needs relaxed parts, or derivatives in them, and the decoder says that
            it takes structures alone; or it is no estimator of a mean (``VIMCO``: see ``importance_bound``).
        """
        if estimator is not None and not estimator.of_mean:
            raise ValueError(
                f"{type(estimator).__name__} does not estimate a mean; give it to importance_bound"
            )
        if estimator is not None and estimator.through_parts:
            self._require_soft(type(estimator).__name__)
        del self.estimator  # a module in its place would refuse what is none
        self.estimator = estimator
        return self

    def prior_for(self, x: Tensor, lengths: Tensor | None = None) -> StructuredDistribution:
        """p(z | lengths), batch shape (b), of structures over sequences as long as x (b, n)."""
        return self.structure_prior(x.shape[1], all_lengths(x, lengths))

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> StructuredDistribution:
        """q(z | x), batch shape (b): words x (b, n), lengths (b)."""
        return self.recognition(x, all_lengths(x, lengths))

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        """log p(x | z) of structures z (*s, b, *event), in nats: (*s, b)."""
        return self.decoder(x, all_lengths(x, lengths), self.prior_for(x, lengths).to_parts(z))

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """E_q[log p(x | z)], estimated, and KL(q || p), exact: x (b, n) -> two of (b), nats.

        Where no gradient is recorded the first is log p(x | z) of one exact sample z, never of a relaxed one.

        Raises:
            ValueError: no estimator has been chosen, and the decoder takes structures alone.
        """
        q, sizes = self.encode(x, lengths), all_lengths(x, lengths)

        def of_parts(parts: Any) -> Tensor:
            return self.decoder(x, sizes, parts)

        def of_events(z: Tensor) -> Tensor:
            return of_parts(q.to_parts(z))

        if not torch.is_grad_enabled():
            reconstruction = of_events(q.sample())
        elif self.estimator is None:
            self._require_soft("the default estimator (see `use`)")
            reconstruction = of_parts(q.rsample(method=StraightThroughMarginals()))
        else:
            reconstruction = self.estimator(q, of_parts if self.estimator.of_parts else of_events)
        return Elbo(reconstruction, q.kl(self.prior_for(x, lengths)))

    forward = elbo

    def importance_bound(self, x: Tensor, lengths: Tensor | None, estimator: GradientEstimator) -> Tensor:
        """log mean_s p(x, z_s) / q(z_s | x) with z_s from q, (b) nats: in the mean at most log p(x).

        Args:
            estimator: ``VIMCO(num_samples)``, which makes the bound of the log-weights, and its gradient.

        Raises:
            ValueError: the estimator is one of a mean.
        """
        if estimator.of_mean:
            raise ValueError(
                f"expected an estimator of the log of a mean, VIMCO, found {type(estimator).__name__}"
            )
        q, p = self.encode(x, lengths), self.prior_for(x, lengths)
        return estimator(q, lambda z: self.log_likelihood(x, lengths, z) + p.log_prob(z) - q.log_prob(z))

    def save(self, folder: str | Path) -> None:
        """As ``Model.save``, without the estimator. Raises TypeError where the parts were given as
        modules.
        """
        if type(self) is StructuredVAE:
            raise TypeError(
                "a StructuredVAE of given modules cannot be saved: expected a subclass whose constructor "
                "makes them from plain values, as ChainVAE does"
            )
        chosen = self.estimator
        self.use(None)
        try:
            super().save(folder)
        finally:
            self.use(chosen)

    def _require_soft(self, what: str) -> None:
        if not self.decoder.soft:
            raise ValueError(
                f"{what} needs relaxed parts or derivatives in them, and {type(self.decoder).__name__} takes "
                "structures alone (soft = False): expected an estimator such as ScoreFunction"
            )


class ChainVAE(StructuredVAE):
    """States z_1..z_n of a Markov chain; words from an LSTM that reads their embeddings.

    q(z | x) is a ``LinearChain`` (a CRF) over a bidirectional LSTM, the prior that of an HMM.

    Args: `vocab_size` V; `num_states` K; `dim`, even, of embeddings and networks; `history`: whether the
    decoder sees the words before, too; `word_dropout` of those. Cost of `elbo` with s samples of N words in
    all: O(N (K^2 + s (K dim + dim^2 + V dim))) time.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        num_states: int = 16,
        dim: int = 64,
        history: bool = False,
        word_dropout: float = 0.0,
    ) -> None:
        require_sizes(vocab_size=vocab_size, num_states=num_states, dim=dim)
        super().__init__(
            ChainRecognition(vocab_size, num_states, dim),
            MarkovPrior(num_states),
            ChainDecoder(vocab_size, num_states, dim, history=history, word_dropout=word_dropout),
            vocab_size=vocab_size,
            num_states=num_states,
            dim=dim,
            history=history,
            word_dropout=word_dropout,
        )


class TreeVAE(StructuredVAE):
    """Binary trees z, labelled or not; words from the constituents around them.

    q(z | x) is a ``BinaryTree`` (a constituency CRF) over a bidirectional LSTM, the prior one whose scores
    know widths and ends of the sentence; see ``SpanDecoder`` for p(x | z).

    Args: `vocab_size` V; `num_labels` L, 1 for trees without labels; `dim`, even, of embeddings and networks;
    `word_dropout` of the words that the decoder sees. Cost of `elbo` with s samples of a sentence of n words:
    O(n^3 + n^2 (s + dim) dim + s n V dim) time.
    """

    def __init__(
        self, vocab_size: int, *, num_labels: int = 1, dim: int = 64, word_dropout: float = 0.0
    ) -> None:
        require_sizes(vocab_size=vocab_size, num_labels=num_labels, dim=dim)
        super().__init__(
            SpanRecognition(vocab_size, num_labels, dim),
            SpanPrior(num_labels),
            SpanDecoder(vocab_size, num_labels, dim, word_dropout=word_dropout),
            vocab_size=vocab_size,
            num_labels=num_labels,
            dim=dim,
            word_dropout=word_dropout,
        )


class GrammarVAE(StructuredVAE):
    """Trees z of a PCFG, given the number of words; words from the constituents around them.

    q(z | x) is a ``TreePosterior`` with spans' scores from a bidirectional LSTM, the prior the grammar's own
    trees. A sentence has at least two words.

    Args: `vocab_size` V; `num_nonterminals` NT; `num_preterminals` T; `dim`, even, of embeddings and
    networks; `word_dropout` of the words that the decoder sees. Cost of `elbo`: as `TreeVAE`, and that of a
    PCFG.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        num_nonterminals: int = 4,
        num_preterminals: int = 8,
        dim: int = 64,
        word_dropout: float = 0.0,
    ) -> None:
        require_sizes(
            vocab_size=vocab_size,
            num_nonterminals=num_nonterminals,
            num_preterminals=num_preterminals,
            dim=dim,
        )
        symbols = num_nonterminals + num_preterminals
        super().__init__(
            GrammarRecognition(vocab_size, num_nonterminals, num_preterminals, dim),
            GrammarPrior(num_nonterminals, num_preterminals),
            SpanDecoder(vocab_size, symbols, dim, word_dropout=word_dropout),
            vocab_size=vocab_size,
            num_nonterminals=num_nonterminals,
            num_preterminals=num_preterminals,
            dim=dim,
            word_dropout=word_dropout,
        )

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> StructuredDistribution:
        """q(tree | x), batch shape (b): words x (b, n), lengths (b). ValueError where one is under two."""
        sizes = all_lengths(x, lengths)
        if sizes.numel() and int(sizes.min()) < 2:
            raise ValueError(
                f"a grammar's trees have at least two words, found a length of {int(sizes.min())}"
            )
        return super().encode(x, sizes)
