"""How the chains of a factorial HMM emit observations together."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Size, Tensor

from structlv.distributions.emissions import DistributionEmission, Emission
from structlv.distributions.factorial_checks import one_dtype, tensors
from structlv.distributions.factorial_likelihoods import (
    AdditiveLikelihood,
    TableLikelihood,
)
from structlv.distributions.factorial_tables import joint_table, masked_table, sum_of
from structlv.distributions.parameters import Tensors, item_of, map_tensors
from structlv.distributions.validation import (
    broadcast_batch,
    require_events,
    require_floating,
    require_no_nan,
)

Self = TypeVar("Self", bound="FactorialEmission")

__all__ = [
    "AdditiveGaussian",
    "FactorialEmission",
    "TableEmission",
]


class FactorialEmission(Emission, Tensors):
    """p(x_t | z^1_t, ..., z^m_t): abstract. Observations are (*b, n, *event_shape).

    Attributes:
        sizes: (k_1, ..., k_m), the numbers of states of the chains.
        batch_shape: *b, of the parameters.
        event_shape: of one observation.
    """

    sizes: tuple[int, ...]
    _tensors: ClassVar[dict[str, int]]  # attributes, and how many of their dimensions are not the batch's

    @abstractmethod
    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """log p(x_t | z_t) of all joint states, (*b, n, k_1, ..., k_m); 0 where ``observed`` is False."""

    @abstractmethod
    def likelihood(self, x: Tensor, observed: Tensor | None, batch: Size) -> Any:
        """What x says about each chain given the others, in float64: never a table of joint states."""

    @abstractmethod
    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        """One observation for each step of ``states`` (*s, *batch_shape, m, n)."""

    def check_values(self) -> None:
        """``ValueError`` where a parameter is NaN or otherwise of no use (eager only)."""
        for name in self._tensors:
            map_tensors(getattr(self, name), partial(_require_no_nan, f"emission.{name}"))

    def item(self, index: tuple[Any, ...], batch_shape: Size) -> FactorialEmission:
        """The emission of some items of a batch."""
        chosen = {}
        for name, events in self._tensors.items():
            pick = partial(item_of, events=events, batch_shape=batch_shape, index=index)
            chosen[name] = map_tensors(getattr(self, name), pick)
        return self.with_tensors(chosen)

    def with_tensors(self: Self, named: dict[str, Any]) -> Self:
        """The same kind of emission with these tensors (or tuples of them) in place of its own."""
        new = copy.copy(self)
        vars(new).update(named)
        shapes = []
        for name, value in named.items():
            group = value if isinstance(value, tuple) else (value,)
            shapes += [x.shape[: x.dim() - self._tensors[name]] for x in group]
        new.batch_shape = torch.broadcast_shapes(*shapes)
        return new

    def __repr__(self) -> str:
        shapes = {name: map_tensors(getattr(self, name), lambda x: tuple(x.shape)) for name in self._tensors}
        return f"{type(self).__name__}({', '.join(f'{name}: {shape}' for name, shape in shapes.items())})"


def _require_no_nan(name: str, x: Tensor) -> None:
    require_no_nan(**{name: x})


def check_tables(name: str, tables: tuple[Tensor, ...], letter: str) -> dict[str, Size]:
    """The batch shapes of tensors (*b, k_i, d) with one d."""
    for i, x in enumerate(tables):
        if x.dim() < 2 or 0 in x.shape[-2:] or x.shape[-1] != tables[0].shape[-1]:
            size = tables[0].shape[-1] if tables[0].dim() else letter
            raise ValueError(
                f"{name}[{i}] must have shape (*b, k, {letter}) with k >= 1 and the {letter} >= 1 of all "
                f"chains, {size}, found {tuple(x.shape)}"
            )
    return {f"{name}[{i}]": x.shape[:-2] for i, x in enumerate(tables)}


def chosen_rows(tables: tuple[Tensor, ...], states: Tensor) -> Tensor:
    """The sum over chains of the rows (*b, d) that states (*s, *b, m, n) choose: (*s, *b, n, d)."""
    total: Any = 0
    for i, table in enumerate(tables):
        index = states[..., i, :].clamp_min(0).unsqueeze(-1)
        rows = table.expand(*index.shape[:-2], *table.shape[-2:])
        total = total + rows.gather(-2, index.expand(*index.shape[:-1], table.shape[-1]))
    return total


def generator_of(like: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(seed)


class AdditiveGaussian(FactorialEmission):
    """x_t = sum_i means_i[z^i_t] + noise of one covariance C: a normal distribution whose mean is a sum
    over the chains (Ghahramani and Jordan 1997, equations 4a and 4b). x is (*b, n, d).

    The joint table takes O(b n S) time: log p(x | z) = const - x'x/2 + sum_i (x'w_i - w_i'w_i/2) - sum_i<j
    w_i'w_j, w_i the mean of chain i's state and all in units of C^(1/2), and only the first two terms see
    x. Formed in float64, as it is a difference of large numbers.

    Args:
        means: for each chain (*b, k_i, d), what each of its states adds.
        covariance: (*b, d, d), symmetric and positive definite.

    Raises:
        TypeError: an argument is not of the right kind, or dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together.
    """

    _tensors: ClassVar[dict[str, int]] = {"means": 2, "covariance": 2}
    means: tuple[Tensor, ...]
    covariance: Tensor

    def __init__(self, means: Sequence[Tensor], covariance: Tensor) -> None:
        self.means, self.covariance = one_dtype(means=tensors("means", means), covariance=covariance)
        shapes = check_tables("means", self.means, "d")
        d = self.means[0].shape[-1]
        require_events("covariance", self.covariance, "(*b, d, d)", d, d)
        self.batch_shape = broadcast_batch({**shapes, "covariance": self.covariance.shape[:-2]})
        self.event_shape, self.sizes = torch.Size((d,)), tuple(x.shape[-2] for x in self.means)

    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        require_floating("x", x)
        DistributionEmission.check(self, x, observed, values)  # type: ignore[arg-type]

    def check_values(self) -> None:
        super().check_values()
        if bool((torch.linalg.cholesky_ex(self.covariance.detach())[1] != 0).any()):
            raise ValueError("emission.covariance must be symmetric and positive definite")

    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        found = self.likelihood(x, observed, torch.broadcast_shapes(x.shape[:-2], self.batch_shape))
        return joint_table(found.own, found.constant, found.pairs(), observed, self.means[0].dtype)

    def likelihood(self, x: Tensor, observed: Tensor | None, batch: Size) -> AdditiveLikelihood:
        if observed is not None:
            x = torch.where(observed.unsqueeze(-1), x, 0.0)
        scale = torch.linalg.cholesky(self.covariance.double())
        d = scale.shape[-1]
        identity = torch.eye(d, dtype=scale.dtype, device=scale.device)
        whiten = torch.linalg.solve_triangular(scale, identity, upper=False).transpose(-2, -1)
        # What all states of a chain have in common moves to x, so that less cancels.
        means = [m.double() for m in self.means]
        centres = [m.mean(-2, keepdim=True) for m in means]
        centre = sum_of(centres)
        rows = [(m - c) @ whiten for m, c in zip(means, centres, strict=True)]
        seen = (x.double() - centre) @ whiten
        volume = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * d * math.log(2 * math.pi)
        constant = -0.5 * seen.square().sum(-1) - volume.unsqueeze(-1)
        own = [seen @ w.transpose(-2, -1) - 0.5 * w.square().sum(-1).unsqueeze(-2) for w in rows]
        return AdditiveLikelihood(own, constant, rows, observed, batch)

    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        with torch.no_grad():
            mean = chosen_rows(self.means, states)
            noise = torch.empty_like(mean).normal_(generator=generator_of(mean, seed))
            scale = torch.linalg.cholesky(self.covariance)
            return mean + noise @ scale.transpose(-2, -1)


class TableEmission(FactorialEmission):
    """Whatever a function says: x to log p(x_t | z_t), (*b, n, k_1, ..., k_m). For exact inference and Gibbs
    sampling.

    Missing observations are given to it as zeros, and what it says of them is not used. It can have an
    attribute ``event_shape``, the shape of one observation; else that is ().
    """

    _tensors: ClassVar[dict[str, int]] = {}

    def __init__(self, function: Callable[[Tensor], Tensor], sizes: tuple[int, ...]) -> None:
        self.function, self.sizes, self.batch_shape = function, sizes, torch.Size()
        self.event_shape = torch.Size(getattr(function, "event_shape", ()))

    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        DistributionEmission.check(self, x, observed, values)  # type: ignore[arg-type]

    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        if observed is not None:
            missing = ~observed.reshape(observed.shape + (1,) * len(self.event_shape))
            x = x.masked_fill(missing, 0)
        table = self.function(x)
        n = x.shape[x.dim() - len(self.event_shape) - 1]
        require_floating("the table of a callable emission", table)
        require_events("the table of a callable emission", table, "(*b, n, k_1, ..., k_m)", n, *self.sizes)
        return masked_table(table, observed, len(self.sizes))

    def likelihood(self, x: Tensor, observed: Tensor | None, batch: Size) -> TableLikelihood:
        return TableLikelihood(self.log_likelihood(x, observed), len(self.sizes), batch)

    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        raise NotImplementedError(
            "a callable emission says how likely observations are, not how to draw them"
        )

    def __repr__(self) -> str:
        return f"TableEmission({self.function!r})"
