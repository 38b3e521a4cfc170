"""The neural factorial HMM: several chains whose probabilities are computed by one small network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from structlv.distributions import FactorialChain, FactorialHMM, LogLinearCategorical
from structlv.models.base import Model
from structlv.models.neural_hmm import ResidualMLP, unigram


class NeuralFactorialHMM(Model):
    """A factorial HMM over symbols, parameterised by embeddings of states and symbols and residual networks.

    The states of all m chains have embeddings e_i in one table, symbols have w_v; with residual networks f,
    g, h of width d that all chains share:
        p(z_1 = j)           = softmax over the chain's j of  f(start_c)·t_j + c_j
        p(z_{t+1} = j | i)   = softmax over the chain's j of  g(e_i)·t_j + c_j
        p(x_t = v | z_t)     = softmax over v of  b_v + sum over chains of h(e_{z_t})·w_v

    The length is given, not modelled. There are O((sum_c k_c + V) d + d²) parameters; inference is exact,
    with S = prod_c k_c joint states.

    Args: `num_states` (k_1, ..., k_m); `vocab_size` V; `dim` d; `layers` residual blocks in each network.
    Cost of `log_prob` on N symbols: O(N S sum_c k_c + S V) time, O(N S + S V) memory.
    Source: Ghahramani & Jordan, "Factorial Hidden Markov Models", 1997, with the parameterisation of Tran,
    Bisk, Vaswani, Marcu & Knight, "Unsupervised Neural Hidden Markov Models", 2016, section 3.
    """

    def __init__(self, num_states: Sequence[int], vocab_size: int, *, dim: int = 64, layers: int = 1) -> None:
        sizes = tuple(num_states)
        if min((*sizes, vocab_size, dim, len(sizes))) < 1 or layers < 0:
            raise ValueError(
                "expected at least one chain, num_states, vocab_size, dim >= 1 and layers >= 0, found "
                f"{sizes}, {vocab_size}, {dim}, {layers}"
            )
        super().__init__(num_states=list(sizes), vocab_size=vocab_size, dim=dim, layers=layers)
        self.num_states, self.vocab_size = sizes, vocab_size
        scale, total = dim**-0.5, sum(sizes)
        self.start = nn.Parameter(torch.randn(len(sizes), dim))
        self.states = nn.Parameter(torch.randn(total, dim))
        self.targets = nn.Parameter(torch.randn(total, dim) * scale)
        self.words = nn.Parameter(torch.randn(vocab_size, dim) * scale)
        self.target_bias = nn.Parameter(torch.zeros(total))
        self.word_bias = nn.Parameter(torch.zeros(vocab_size))
        self.leave, self.enter, self.emit = (ResidualMLP(dim, layers) for _ in range(3))

    @torch.no_grad()
    def start_from_counts(self, counts: Tensor) -> None:
        """Set the symbols' biases to log relative frequencies of `counts` (V,), add-one: a unigram start.

        Raises ValueError on a wrong shape.
        """
        self.word_bias.copy_(unigram(counts, self.vocab_size))

    def initial_logits(self) -> tuple[Tensor, ...]:
        """For each chain (k,), scores of its first state."""
        rows = self.enter(self.start) @ self.targets.T + self.target_bias
        return tuple(row[c] for c, row in enumerate(rows.split(self.num_states, -1)))

    def transition_logits(self) -> tuple[Tensor, ...]:
        """For each chain (k, k), scores from state to state; none across chains is computed."""
        leaving = self.leave(self.states).split(self.num_states)
        targets, biases = self.targets.split(self.num_states), self.target_bias.split(self.num_states)
        return tuple(h @ t.T + c for h, t, c in zip(leaving, targets, biases, strict=True))

    def emission_logits(self) -> tuple[Tensor, ...]:
        """For each chain (k, V), what its states add to the scores of symbols; the first adds the bias."""
        first, *others = (self.emit(self.states) @ self.words.T).split(self.num_states)
        return (first + self.word_bias, *others)

    def distribution(self) -> FactorialHMM:
        """The factorial HMM itself, batch_shape (): build it once for a batch and ask it everything."""
        emission = LogLinearCategorical(self.emission_logits())
        return FactorialHMM(self.initial_logits(), self.transition_logits(), emission)

    def log_prob(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x) in nats, summed over the states of all chains: x (*b, n) symbols, lengths (*b) -> (*b)."""
        return self.distribution().log_prob(x, lengths=lengths)

    forward = log_prob

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> FactorialChain:
        """p(z | x), a FactorialChain: x (*b, n), lengths (*b)."""
        return self.distribution().posterior(x, lengths=lengths)

    @torch.no_grad()
    def tag(self, x: Tensor, lengths: Tensor | None = None, *, method: str = "viterbi") -> Tensor:
        """States (*b, m, n), -1 in the padding: the best ones jointly, or ("posterior") the best state of
        each chain and step by itself. Raises ValueError for another method. No gradient.
        """
        if method not in ("viterbi", "posterior"):
            raise ValueError(f"method must be 'viterbi' or 'posterior', found {method!r}")
        chains = self.posterior(x, lengths)
        return chains.argmax() if method == "viterbi" else chains.posterior_decode()
