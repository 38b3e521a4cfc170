"""Neural PCFGs with many symbols, in rank space: tensor-decomposed and simple."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from structlv.distributions import LowRankPCFG, SimplePCFG, TreePosterior
from structlv.models.grammar import GrammarModel, ResidualTower, require_sizes, xavier


class _ManySymbols(GrammarModel):
    """Embeddings of symbols, the root and the words: what both grammars share."""

    def __init__(
        self, vocab_size: int, *, num_nonterminals: int, num_preterminals: int, dim: int, **rest: int
    ) -> None:
        sizes = {"num_nonterminals": num_nonterminals, "num_preterminals": num_preterminals, "dim": dim}
        require_sizes(vocab_size=vocab_size, **sizes, **rest)
        super().__init__(vocab_size=vocab_size, **sizes, **rest)
        self.num_nonterminals = num_nonterminals
        self.start = nn.Parameter(torch.randn(dim))
        self.embedding = nn.Parameter(torch.randn(num_nonterminals + num_preterminals, dim))
        self.root = nn.Sequential(ResidualTower(dim, dim), nn.Linear(dim, num_nonterminals))
        self.word = nn.Sequential(ResidualTower(dim, dim), nn.Linear(dim, vocab_size))

    @abstractmethod
    def distribution(self) -> Any:
        """The grammar itself, batch_shape (): build it once for a batch and ask it everything."""

    def emission_logits(self) -> Tensor:
        """(T, V) scores of words."""
        return self.word(self.embedding[self.num_nonterminals :])

    def log_prob(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x) in nats, summed over all trees: x (*b, n) word indices, lengths (*b) -> (*b)."""
        return self.distribution().log_prob(x, lengths=lengths)

    forward = log_prob

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> TreePosterior:
        """p(tree | x): x (*b, n), lengths (*b)."""
        return self.distribution().posterior(x, lengths=lengths)


class LowRankNeuralPCFG(_ManySymbols):
    """A neural PCFG whose rules are a sum of `rank` products: p(A -> y z) = sum_q p(q|A) p(y|q) p(z|q).

    With embeddings of symbols e and maps f, g, h of two layers: p(q | A) a softmax over q of f(e_A), p(y | q)
    and p(z | q) softmaxes over the symbols of g(e_y) and h(e_z).

    Args: `vocab_size` V; `num_nonterminals` NT; `num_preterminals` T; `rank` r; `dim` of embeddings.
    Cost of `log_prob` of a sentence of n words: O(n^3 r + n^2 r NT + n r T) time, O(n^2 (NT + r)) memory.
    Source: Yang, Zhao & Tu, "PCFGs Can Do Better: Inducing Probabilistic Context-Free Grammars with Many
    Symbols" (TN-PCFG), 2021, sections 3 and 4 (the published sizes are the defaults).
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        num_nonterminals: int = 250,
        num_preterminals: int = 500,
        rank: int = 500,
        dim: int = 256,
    ) -> None:
        super().__init__(
            vocab_size,
            num_nonterminals=num_nonterminals,
            num_preterminals=num_preterminals,
            dim=dim,
            rank=rank,
        )
        self.head, self.left, self.right = (_two_layers(dim, rank) for _ in range(3))
        xavier(self)

    def distribution(self) -> LowRankPCFG:
        head = self.head(self.embedding[: self.num_nonterminals])
        left, right = self.left(self.embedding).T, self.right(self.embedding).T
        return LowRankPCFG(self.root(self.start), head, left, right, self.emission_logits())


class SimpleNeuralPCFG(_ManySymbols):
    """A neural PCFG whose children are independent given their parent: p(A -> y z) = p(y | A) p(z | A).

    p(y | A) is a softmax over the symbols of f(e_A) . e_y, p(z | A) of g(e_A) . e_z, with maps f, g of two
    layers.

    Args: `vocab_size` V; `num_nonterminals` NT; `num_preterminals` T; `dim` of embeddings.
    Cost of `log_prob` of a sentence of n words: O(n^3 NT + n^2 NT^2) time, O(n^2 NT) memory.
    Source: Liu, Yang, Kim & Tu, "Simple Hardware-Efficient PCFGs with Independent Left and Right
    Productions", 2023, section 3.
    """

    def __init__(
        self, vocab_size: int, *, num_nonterminals: int = 128, num_preterminals: int = 256, dim: int = 256
    ) -> None:
        super().__init__(
            vocab_size, num_nonterminals=num_nonterminals, num_preterminals=num_preterminals, dim=dim
        )
        self.left, self.right = (_two_layers(dim, dim) for _ in range(2))
        xavier(self)

    def distribution(self) -> SimplePCFG:
        parents = self.embedding[: self.num_nonterminals]
        left, right = (side(parents) @ self.embedding.T for side in (self.left, self.right))
        return SimplePCFG(self.root(self.start), left, right, self.emission_logits())


def _two_layers(dim: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs))
