"""What grammars over sentences share, whatever their rules."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import torch
from torch import Generator, Size, Tensor
from torch.distributions import constraints

from structlv.distributions.derivations import Derivations, derive
from structlv.distributions.emissions import CategoricalEmission
from structlv.distributions.observations import observations
from structlv.distributions.parameters import ParameterizedDistribution
from structlv.distributions.seeding import draw_seed
from structlv.distributions.trees import TreePosterior

Self = TypeVar("Self", bound="Grammar")


class Grammar(ParameterizedDistribution):
    """Distribution over sentences that a grammar generates from the top down. Abstract.

    A subclass has the normalised parameters ``root_logits`` (*b, NT) and ``emission_logits`` (*b, T, v), the
    first and last of ``_parameters``, and supplies its rules: ``_rules`` and ``_derivations``.
    """

    _full = ("root_logits",)
    root_logits: Tensor
    emission_logits: Tensor

    @abstractmethod
    def _rules(self) -> Any:
        """The rules as ``TreePosterior`` takes them."""

    @abstractmethod
    def _derivations(self, max_length: int) -> Derivations:
        """What is needed to derive sentences of up to ``max_length`` words."""

    def log_prob(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """log p(x), (*b), for sentences of words (*b, n); differentiable twice.

        Sentences of all lengths compete: their probabilities sum to 1, or less where derivations may never
        end. With all words missing it is the log-probability of the length.

        Args:
            x: (*b, n) integers in 0..v-1.
            lengths: (*b) integers in 0..n, for right-padded batches; None where all have n words. A sentence
                of fewer than two words has probability 0.
            mask: (*b, n) bool, False where a word is missing (it is summed over).

        Raises:
            TypeError: x is not a tensor of integers.
            ValueError: its shape, a word, a length or the mask does not fit.
        """
        return self.posterior(x, lengths, mask).log_partition()

    def posterior(
        self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> TreePosterior:
        """p(tree | x) as a ``TreePosterior`` whose log-partition is log p(x). Arguments as ``log_prob``."""
        emission = CategoricalEmission(self.emission_logits)
        seen = observations(self, emission, x, lengths, mask)
        unary = emission.log_likelihood(x, seen.observed)
        return TreePosterior(
            self.root_logits,
            self._rules(),
            unary.expand(seen.batch + unary.shape[-2:]),
            lengths=seen.lengths,
            validate_args=self._validate_args,
        )

    def sample(
        self,
        sample_shape: Size | list[int] | tuple[int, ...] = (),
        max_length: int | None = None,
        *,
        with_trees: bool = False,
        generator: Generator | None = None,
    ) -> Any:
        """Sentences of at most ``max_length`` words, (*sample_shape, *b, max_length) int64, padded with -1.

        They are exact samples of p(x | at most max_length words), not truncated and not redrawn: lengths are
        summed over first. Where the grammar has no such sentence all is -1. Dense rules take O(max_length NT
        S (S + max_length)) time before the first sentence, then O(max_length + S) a node, all nodes of a
        depth together. Nothing is differentiable. (Not under ``torch.compile``.)

        Args:
            sample_shape: of independent samples.
            max_length: the most words of a sentence.
            with_trees: whether to return (words, trees); trees are (*sample_shape, *b, 2 max_length - 1, 3).
            generator: draws the seed; None for torch's default CPU generator.

        Raises:
            ValueError: max_length is missing or negative.
        """
        if not isinstance(max_length, int) or max_length < 0:
            raise ValueError(f"max_length must be a non-negative integer, found {max_length!r}")
        shape = torch.Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        seed = draw_seed(generator)
        with torch.no_grad():
            trees = derive(self._derivations(max_length), self._batch_shape, shape.numel(), seed)
            trees = trees.reshape(shape + self._batch_shape + trees.shape[-2:])
            leaves = _leaves(trees, max_length, self.root_logits.shape[-1])
            words = CategoricalEmission(self.emission_logits).sample(leaves, self._batch_shape, seed)
        return (words, trees) if with_trees else words

    @property
    def support(self) -> constraints.Constraint:
        """Sequences of words in 0..v-1."""
        return constraints.independent(constraints.integer_interval(0, self.emission_logits.shape[-1] - 1), 1)

    def _assign(self, batch: Size, **parameters: Tensor) -> None:
        """Sets normalised parameters."""
        for name, value in parameters.items():
            full = name in self._full and value.shape[:-1] != batch
            setattr(self, name, value.expand(batch + value.shape[-1:]) if full else value)
        self._batch_shape, self._event_shape = batch, torch.Size()

    def _rebuild(self: Self, **parameters: Any) -> Self:
        new = type(self).__new__(type(self))  # past the constructor: the parameters are normalised already
        new._assign(parameters["root_logits"].shape[:-1], **parameters)
        return new


def require_symbols(root: Tensor, emission: Tensor) -> None:
    """``ValueError`` unless there are nonterminals, preterminals and words."""
    if root.dim() < 1 or root.shape[-1] == 0:
        raise ValueError(f"root_logits must have shape (*b, NT) with NT >= 1, found {tuple(root.shape)}")
    if emission.dim() < 2 or 0 in emission.shape[-2:]:
        found = tuple(emission.shape)
        raise ValueError(f"emission_logits must have shape (*b, T, v) with T, v >= 1, found {found}")


def _leaves(trees: Tensor, n: int, first: int) -> Tensor:
    """The preterminals (*, n) of trees (*, m, 3), counted from 0; -1 past the end."""
    i, j, symbol = trees.unbind(-1)
    place = torch.where((i == j) & (i >= 0), i, n)
    leaves = torch.full((*trees.shape[:-2], n + 1), -1, device=trees.device)
    return leaves.scatter(-1, place, symbol - first)[..., :n]
