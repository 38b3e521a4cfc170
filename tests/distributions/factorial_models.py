"""Factorial HMMs with every kind of emission, and the same models as HMMs on the product space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, Independent, MultivariateNormal

from structlv import HMM, AdditiveGaussian, FactorialHMM, IndependentBernoulli, LogLinearCategorical
from structlv.reference.enumerate import joint_states

SIZES = (2, 3, 2)
EMISSIONS = ("gaussian", "categorical", "bernoulli", "callable")
SYMBOLS, BITS, DIMENSIONS = 4, 3, 2


@dataclass(frozen=True)
class Model:
    """A factorial HMM, and how to build it from its parameters.

    Attributes:
        leaves: float64 tensors that require a gradient.
        build: the model over them.
        hmm: the model itself.
        kind: of its emission.
    """

    leaves: tuple[Tensor, ...]
    build: Callable[..., FactorialHMM]
    kind: str

    @property
    def hmm(self) -> FactorialHMM:
        return self.build(*self.leaves)

    def draw(self, shape: tuple[int, ...], n: int, seed: int = 9) -> Tensor:
        """Observations of the model; for a callable emission symbols at random."""
        generator = torch.Generator().manual_seed(seed)
        if self.kind == "callable":
            return torch.randint(SYMBOLS, (*shape, *self.hmm.batch_shape, n), generator=generator)
        return self.hmm.detach().sample(shape, n, generator=generator)


class SymbolTable:
    """log p(x | z) of symbols, from a table of each symbol's joint scores (S, v)."""

    event_shape = Size()

    def __init__(self, scores: Tensor, sizes: tuple[int, ...]) -> None:
        self.log_probs, self.sizes = scores.log_softmax(-1), sizes

    def __call__(self, x: Tensor) -> Tensor:
        return self.log_probs[:, x].movedim(0, -1).unflatten(-1, self.sizes)


def model(
    kind: str, sizes: tuple[int, ...] = SIZES, batch: tuple[int, ...] = (), seed: int = 0, scale: float = 1.0
) -> Model:
    """A random model; the scores of emissions are of size ``scale``."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    m = len(sizes)
    chains = [randn(*batch, k) for k in sizes] + [randn(k, k) for k in sizes]
    if kind == "callable":
        tables = [scale * randn(torch.Size(sizes).numel(), SYMBOLS)]
    else:
        width = {"gaussian": DIMENSIONS, "categorical": SYMBOLS, "bernoulli": BITS}[kind]
        tables = [scale * randn(*(batch if i else ()), k, width) for i, k in enumerate(sizes)]
    if kind == "gaussian":
        tables.append(randn(*batch, DIMENSIONS, DIMENSIONS))

    def build(*leaves: Tensor) -> FactorialHMM:
        initial, moves, rest = leaves[:m], leaves[m : 2 * m], leaves[2 * m :]
        if kind == "gaussian":
            root = rest[-1]
            covariance = root @ root.transpose(-2, -1) + 0.3 * torch.eye(DIMENSIONS, dtype=root.dtype)
            return FactorialHMM(initial, moves, AdditiveGaussian(rest[:-1], covariance))
        if kind == "callable":
            return FactorialHMM(initial, moves, SymbolTable(rest[0], sizes))
        emission = LogLinearCategorical if kind == "categorical" else IndependentBernoulli
        return FactorialHMM(initial, moves, emission(rest))

    return Model(tuple(x.requires_grad_() for x in chains + tables), build, kind)


def product_hmm(made: Model) -> HMM:
    """The same model with one chain of joint states, by torch's own distributions."""
    hmm = made.hmm.detach()
    states = joint_states(hmm.sizes)  # (S, m)
    chains = range(len(hmm.sizes))
    initial = sum(hmm.initial_logits[i][..., states[:, i]] for i in chains)
    moves = sum(hmm.transition_logits[i][..., states[:, i], :][..., states[:, i]] for i in chains)
    emission = hmm.emission
    if isinstance(emission, AdditiveGaussian):
        means = sum(emission.means[i][..., states[:, i], :] for i in chains)
        return HMM(initial, moves, MultivariateNormal(means, emission.covariance.unsqueeze(-3)))
    if made.kind == "callable":
        return HMM(initial, moves, emission.function.log_probs)  # type: ignore[attr-defined]
    logits = sum(emission.logits[i][..., states[:, i], :] for i in chains)  # type: ignore[attr-defined]
    if isinstance(emission, LogLinearCategorical):
        return HMM(initial, moves, logits)
    return HMM(initial, moves, Independent(Bernoulli(logits=logits), 1))
