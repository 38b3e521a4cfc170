"""The neural hidden Markov model: an HMM whose probabilities are computed by a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structlv.distributions import HMM, LinearChain
from structlv.models.base import Model


class ResidualMLP(nn.Module):
    """`layers` blocks of h + W2 relu(W1 norm(h)), then a norm, (*, dim) to (*, dim).

    The last norm bounds the scores that follow: transitions stay within a few tens of nats, which trains
    better and is the range in which inference is fastest.
    """

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = h + block(h)
        return self.norm(h)


def unigram(counts: Tensor, vocab_size: int) -> Tensor:
    """Log relative frequencies of `counts` (V,), add-one, in float64. Raises ValueError on a wrong shape."""
    if counts.shape != (vocab_size,):
        raise ValueError(f"counts must have shape ({vocab_size},), found {tuple(counts.shape)}")
    return ((counts.double() + 1) / (counts.sum() + vocab_size)).log()


class NeuralHMM(Model):
    """An HMM over words, parameterised by embeddings of states and words and residual networks.

    With embeddings of states e_i, targets t_j and words w_v, and residual networks f, g, h of width d:
        p(z_1 = j)           = softmax over j of  f(start)·t_j + c_j
        p(z_{t+1} = j | i)   = softmax over j of  g(e_i)·t_j + c_j, the end one more j with `stop`
        p(x_t = v | z_t = i) = softmax over v of  h(e_i)·w_v + b_v

    Scores are dot products of width d, so there are O((K + V) d + d²) parameters, and K and V can be large.
    The (K, V) table is computed once for each batch and gathered from, never (batch, n, V).

    Args: `num_states` K; `vocab_size` V; `dim` d; `layers` residual blocks in each network; `stop`: the end
    of a sentence is an outcome of every transition (then log_prob scores it; else it is conditional on the
    length).
    Cost of `log_prob` on N tokens: O(N K² + K V d) time, O(N K + K V) memory.
    Source: Tran, Bisk, Vaswani, Marcu & Knight, "Unsupervised Neural Hidden Markov Models", 2016, section 3;
    Kim, Wiseman & Rush 2018, section 3.3 (deep HMM).
    """

    def __init__(
        self, num_states: int, vocab_size: int, *, dim: int = 128, layers: int = 1, stop: bool = True
    ) -> None:
        if min(num_states, vocab_size, dim) < 1 or layers < 0:
            raise ValueError(
                "expected num_states, vocab_size, dim >= 1 and layers >= 0, found "
                f"{num_states}, {vocab_size}, {dim}, {layers}"
            )
        super().__init__(num_states=num_states, vocab_size=vocab_size, dim=dim, layers=layers, stop=stop)
        self.num_states, self.vocab_size, self.stop = num_states, vocab_size, stop
        scale = dim**-0.5
        self.start = nn.Parameter(torch.randn(dim))
        self.states = nn.Parameter(torch.randn(num_states, dim))
        self.targets = nn.Parameter(
            torch.randn(num_states + stop, dim) * scale
        )  # with `stop`, the last row is it
        self.words = nn.Parameter(torch.randn(vocab_size, dim) * scale)
        self.target_bias = nn.Parameter(torch.zeros(num_states + stop))
        self.word_bias = nn.Parameter(torch.zeros(vocab_size))
        self.leave, self.enter, self.emit = (ResidualMLP(dim, layers) for _ in range(3))

    @torch.no_grad()
    def start_from_counts(self, counts: Tensor) -> None:
        """Set the word biases to log relative frequencies of `counts` (V,), add-one: a unigram start.

        Raises ValueError on a wrong shape.
        """
        self.word_bias.copy_(unigram(counts, self.vocab_size))

    def initial_logits(self) -> Tensor:
        """(K,) scores of the first state."""
        k = self.num_states
        return self.enter(self.start) @ self.targets[:k].T + self.target_bias[:k]

    def transition_logits(self) -> tuple[Tensor, Tensor | None]:
        """(K, K) scores from state to state, and (K,) of stopping after a state (None without `stop`)."""
        scores = self.leave(self.states) @ self.targets.T + self.target_bias
        return scores[:, : self.num_states], scores[:, self.num_states] if self.stop else None

    def emission_logits(self) -> Tensor:
        """(K, V) scores of words."""
        return self.emit(self.states) @ self.words.T + self.word_bias

    def distribution(self) -> HMM:
        """The HMM itself, batch_shape (): build it once for a batch and ask it everything."""
        transition, final = self.transition_logits()
        return HMM(self.initial_logits(), transition, self.emission_logits(), final_logits=final)

    @property
    def scores_end(self) -> bool:
        """Whether log_prob includes the end of the sentence."""
        return self.stop

    def log_prob(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x) in nats, summed over all state sequences: x (*b, n) word indices, lengths (*b) -> (*b)."""
        return self.distribution().log_prob(x, lengths=lengths)

    forward = log_prob

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> LinearChain:
        """p(z | x), a LinearChain over states: x (*b, n), lengths (*b)."""
        return self.distribution().posterior(x, lengths=lengths)

    def tag(self, x: Tensor, lengths: Tensor | None = None, *, method: str = "viterbi") -> Tensor:
        """States (*b, n), -1 in the padding: the best sequence, or ("posterior") each position's best state.

        The second makes the fewest errors in expectation, the first is right as a whole most often. Raises
        ValueError for another method. No gradient.
        """
        if method not in ("viterbi", "posterior"):
            raise ValueError(f"method must be 'viterbi' or 'posterior', found {method!r}")
        with torch.no_grad():
            chain = self.posterior(x, lengths)
            return chain.argmax() if method == "viterbi" else chain.posterior_decode()

    @torch.no_grad()
    def typical_words(self, count: int = 8) -> Tensor:
        """(K, count) words v with the highest p(v | state) log(p(v | state) / mean over states of p(v))."""
        table = self.emission_logits().log_softmax(-1)
        background = table.logsumexp(0) - torch.tensor(float(self.num_states)).log()
        return (table.exp() * (table - background)).topk(min(count, self.vocab_size), -1).indices
