"""What the grammar-induction models share: parsing, and the network of Kim, Dyer & Rush (2019)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from structlv.distributions import TreePosterior
from structlv.models.base import Model


class GrammarModel(Model):
    """A model of sentences whose latent structure is a binary tree. Abstract: `posterior` is to be given.

    A sentence has at least two words: a PCFG in Chomsky normal form gives shorter ones probability 0.
    """

    @abstractmethod
    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> TreePosterior:
        """p(tree | x), over labelled trees: x (b, n) word indices, lengths (b)."""

    @torch.no_grad()
    def parse(self, x: Tensor, lengths: Tensor | None = None, *, method: str = "viterbi") -> Tensor:
        """Trees (b, 2n-1, 3), rows (i, j, symbol) in pre-order, -1 in the padding.

        "viterbi" is the best labelled tree; "mbr" the tree with the most expected constituents, whatever
        their labels (minimum Bayes risk; Goodman 1996). Raises ValueError for another method. No gradient.
        """
        if method not in ("viterbi", "mbr"):
            raise ValueError(f"method must be 'viterbi' or 'mbr', found {method!r}")
        trees = self.posterior(x, lengths)
        return trees.argmax() if method == "viterbi" else trees.decode()


class ResidualTower(nn.Sequential):
    """A linear map to `dim`, then two blocks of h + relu(W2 relu(W1 h)): (*, inputs) to (*, dim)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__(nn.Linear(inputs, dim), ResidualBlock(dim), ResidualBlock(dim))


class ResidualBlock(nn.Module):
    """h + relu(W2 relu(W1 h)), (*, dim) to (*, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


def xavier(module: nn.Module) -> None:
    """Every matrix of `module` drawn anew by Xavier's uniform rule (Glorot & Bengio 2010), biases kept."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def require_sizes(**sizes: int) -> None:
    """Raise ValueError unless every size is at least 1."""
    wrong = [f"{name}={value}" for name, value in sizes.items() if value < 1]
    if wrong:
        raise ValueError(f"expected sizes of at least 1, found {', '.join(wrong)}")
