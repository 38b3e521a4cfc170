"""What the M-steps of all models share: priors, ties, and relative frequencies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Prior(NamedTuple):
    """What small data needs: pseudo-counts, and pulls to known values. All zero is maximum likelihood.

    The log prior is, in nats and up to a constant, the sum of
        initial * sum log p(z_1), transition * sum log p(z_t+1 | z_t), final * sum log p(stop | z): that many
        more of each. (Of a grammar: its roots, its rules; of Naive Bayes: its classes.)
        emission * sum over states and symbols of log p(x | z): that many more of each symbol (of bits: set
        and not set) in every state; of factorial HMMs in every joint state, of which there are prod_i k_i;
        weights * sum of the log weights of mixtures;
        events * sum log rate - exposure * sum rate, of Poisson rates: that many events in that many steps;
        - decay / 2 * sum of squared logits of the emission (factorial HMMs alone);
        and of every normal distribution, with mean m and covariance C in d dimensions,
        - covariance / 2 * trace of the inverse of C: no variance is smaller than covariance / N;
        - degrees / 2 * log det C, as many more observations at the mean;
        - mean_weight / 2 * (m - mean)' C^-1 (m - mean), as many more observations at ``mean``.

    ``initial``, ``transition``, ``final``, ``emission``, ``weights``, ``events``, ``exposure``, ``mean``,
    ``mean_weight`` may be tensors that broadcast to the probabilities (rates, means, one number a normal
    distribution) that they concern, ``covariance`` a matrix B: then its term is - trace(B C^-1) / 2.
    (Factorial HMMs take numbers.) What is impossible in the model that EM starts with stays so: it has no
    pseudo-counts, and no part in the prior.
    """

    initial: float | Tensor = 0.0
    transition: float | Tensor = 0.0
    emission: float | Tensor = 0.0
    decay: float = 0.0
    covariance: float | Tensor = 0.0
    final: float | Tensor = 0.0
    weights: float | Tensor = 0.0
    degrees: float = 0.0
    mean: float | Tensor = 0.0
    mean_weight: float | Tensor = 0.0
    events: float | Tensor = 0.0
    exposure: float | Tensor = 0.0

    def check(self) -> None:
        """Raises ValueError where a number that must not be negative is, or is NaN."""
        for name, value in self._asdict().items():
            if name != "mean" and not bool((torch.as_tensor(value) >= 0).all()):
                raise ValueError(f"prior.{name} must be at least 0, found {value}")

    def fingerprint(self) -> str:
        """The same for equal values."""
        plain = (value.tolist() if isinstance(value, Tensor) else value for value in self)
        return str(tuple(plain))


class Tied(NamedTuple):
    """Which parameters of an HMM are one and the same: a group number for each state; None, all differ.

    Attributes:
        transition: (k), states of a group have one row of transition (and stopping) probabilities.
        emission: (k), states of a group emit alike.
        covariance: (k), or (k, m) of mixtures: normal distributions of a group have one covariance.
        spherical: whether a diagonal covariance is the same in all dimensions.

    The members of a group begin as the first of them (of covariances: as their mean). Tensors of a `Prior`
    then have a row for each group, in the order of their numbers.
    """

    transition: Sequence[int] | Tensor | None = None
    emission: Sequence[int] | Tensor | None = None
    covariance: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None
    spherical: bool = False

    def fingerprint(self) -> str:
        """The same for equal values."""
        plain = (value.tolist() if isinstance(value, Tensor) else value for value in self)
        return str(tuple(plain))


class Groups:
    """Rows of which those of a group share parameters. ``first``: (G), a row of each group."""

    def __init__(self, name: str, numbers: object, rows: int, device: torch.device) -> None:
        """Raises ValueError unless ``numbers`` (None: all differ) names a group for each of ``rows`` rows."""
        given = torch.arange(rows) if numbers is None else torch.as_tensor(numbers).flatten()
        if given.is_floating_point() or len(given) != rows:
            raise ValueError(f"tied.{name} must hold {rows} integers, found {numbers}")
        _, self.of = given.to(device).unique(return_inverse=True)
        count = int(self.of.max()) + 1
        self.first = torch.full((count,), rows, device=device).scatter_reduce(
            0, self.of, torch.arange(rows, device=device), "amin"
        )

    def pooled(self, x: Tensor) -> Tensor:
        """Sums over the rows (dimension 0) of each group."""
        if len(self.first) == len(self.of):
            return x[self.first]
        return x.new_zeros(len(self.first), *x.shape[1:]).index_add(0, self.of, x)


def check_fixed(fixed: Collection[str], allowed: Sequence[str]) -> frozenset[str]:
    """Raises ValueError where ``fixed`` names a parameter that the model has not."""
    names = {fixed} if isinstance(fixed, str) else set(fixed)
    if not names <= set(allowed):
        unknown = ", ".join(sorted(names - set(allowed)))
        raise ValueError(f"fixed must name parameters among {', '.join(allowed)}, found {unknown}")
    return frozenset(names)


def log_ratio(counts: Tensor, old: Tensor, weight: float | Tensor = 0.0) -> Tensor:
    """Logarithms of relative frequencies with ``weight`` more of each; ``old`` where nothing was counted.

    What is -inf in ``old`` stays so.
    """
    possible = old > -torch.inf
    counts = torch.where(possible, counts + torch.as_tensor(weight).to(counts), 0.0)
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, (counts / total).log(), old.double()).to(old.dtype)


def weighted(weight: float | Tensor, logits: Tensor) -> float:
    """Sum of ``weight`` times log-probabilities, of those above -inf."""
    if not isinstance(weight, Tensor) and not weight:
        return 0.0
    finite = logits.double().masked_fill(logits == -torch.inf, 0.0)
    return float((torch.as_tensor(weight).to(finite) * finite).sum())
