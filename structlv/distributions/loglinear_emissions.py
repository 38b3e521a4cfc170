"""How the chains of a factorial HMM emit symbols or bits together: their logits add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor

from structlv.distributions.emissions import CategoricalEmission
from structlv.distributions.factorial_checks import one_dtype, tensors
from structlv.distributions.factorial_emissions import (
    FactorialEmission,
    check_tables,
    chosen_rows,
    generator_of,
)
from structlv.distributions.factorial_likelihoods import LogLinearLikelihood
from structlv.distributions.factorial_parts import along
from structlv.distributions.factorial_tables import joint_table, sum_of
from structlv.distributions.validation import broadcast_batch, is_eager, require_tensor
from structlv.reference.semiring import log_normalize

__all__ = ["IndependentBernoulli", "LogLinearCategorical"]


class LogLinearCategorical(FactorialEmission):
    """Symbols 0..v-1 with p(x_t = s | z_t) proportional to exp(sum_i logits_i[z^i_t, s]). x is (*b, n)
    integers.

    The joint table takes O(S v + b n S) time. A symbol at -inf is impossible in that state. Mean field
    bounds the log-normaliser: see ``StructuredMeanField``.

    Args:
        logits: for each chain (*b, k_i, v).

    Raises:
        TypeError: an argument is not of the right kind, or dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together.
    """

    _tensors: ClassVar[dict[str, int]] = {"logits": 2}
    logits: tuple[Tensor, ...]

    def __init__(self, logits: Sequence[Tensor]) -> None:
        (self.logits,) = one_dtype(logits=tensors("logits", logits))
        self.batch_shape = broadcast_batch(check_tables("logits", self.logits, "v"))
        self.event_shape, self.sizes = torch.Size(), tuple(x.shape[-2] for x in self.logits)

    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        CategoricalEmission(self.logits[0]).check(x, observed, values)

    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        joint = self._joint().flatten(-len(self.sizes) - 1, -2)
        return CategoricalEmission(log_normalize(joint)).log_likelihood(x, observed).unflatten(-1, self.sizes)

    def likelihood(self, x: Tensor, observed: Tensor | None, batch: Size) -> LogLinearLikelihood:
        logits = [x.double() for x in self.logits]
        own = [CategoricalEmission(table).log_likelihood(x, observed) for table in logits]
        symbols = x.clamp(0, logits[0].shape[-1] - 1)
        return LogLinearLikelihood(own, logits, symbols, observed, batch, categorical=True)

    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        with torch.no_grad():
            scores = chosen_rows(self.logits, states).double()
            u = torch.rand(
                scores.shape, dtype=scores.dtype, device=scores.device, generator=generator_of(scores, seed)
            )
            symbols = (scores - torch.log(-torch.log(u))).argmax(-1)  # the Gumbel trick
            return symbols.masked_fill((states < 0).any(-2), -1)

    def _joint(self) -> Tensor:
        """The sums of logits, (*b, k_1, ..., k_m, v)."""
        count = len(self.logits)
        return sum_of([along(x, i, count, 1) for i, x in enumerate(self.logits)])


class IndependentBernoulli(FactorialEmission):
    """d bits, independent given the states, of log-odds sum_i logits_i[z^i_t]. x is (*b, n, d), zeros and
    ones of any dtype.

    The joint table takes O(S d + b n S) time. At -inf a bit is never set. Mean field bounds the
    log-normalisers: see ``StructuredMeanField``.

    Args:
        logits: for each chain (*b, k_i, d), less than +inf.

    Raises:
        TypeError: an argument is not of the right kind, or dtypes are mixed (outside autocast).
        ValueError: shapes or devices do not fit together.
    """

    _tensors: ClassVar[dict[str, int]] = {"logits": 2}
    logits: tuple[Tensor, ...]

    def __init__(self, logits: Sequence[Tensor]) -> None:
        (self.logits,) = one_dtype(logits=tensors("logits", logits))
        self.batch_shape = broadcast_batch(check_tables("logits", self.logits, "d"))
        self.event_shape = self.logits[0].shape[-1:]
        self.sizes = tuple(x.shape[-2] for x in self.logits)

    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        require_tensor("x", x)
        if values and is_eager(x):
            legal = ((x == 0) | (x == 1)).all(-1)
            if not bool((legal if observed is None else legal | ~observed).all()):
                raise ValueError("x must be 0 or 1 where it is observed; mark missing observations in mask")

    def check_values(self) -> None:
        super().check_values()
        for i, x in enumerate(self.logits):
            if bool((x.detach() == torch.inf).any()):
                raise ValueError(f"emission.logits[{i}] must be less than +inf")

    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        bits, count = _bits(x, observed), len(self.logits)
        own = [_set_bits(bits, table.double()) for table in self.logits]
        odds = sum_of([along(x.double(), i, count, 1) for i, x in enumerate(self.logits)])
        normaliser = torch.nn.functional.softplus(odds, threshold=40).sum(-1)
        return joint_table(own, None, -normaliser, observed, self.logits[0].dtype)

    def likelihood(self, x: Tensor, observed: Tensor | None, batch: Size) -> LogLinearLikelihood:
        bits = _bits(x, observed)
        logits = [table.double() for table in self.logits]
        own = [_set_bits(bits, table) for table in logits]
        return LogLinearLikelihood(own, logits, bits, observed, batch, categorical=False)

    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        with torch.no_grad():
            odds = chosen_rows(self.logits, states)
            u = torch.rand(
                odds.shape, device=odds.device, generator=generator_of(odds, seed), dtype=torch.float64
            )
            return (u < odds.double().sigmoid()).to(odds.dtype)


def _bits(x: Tensor, observed: Tensor | None) -> Tensor:
    """Observations (*b, n, d) as float64, all 0 where nothing is observed."""
    return x.double() if observed is None else torch.where(observed.unsqueeze(-1), x.double(), 0.0)


def _set_bits(bits: Tensor, logits: Tensor) -> Tensor:
    """The sum over set bits of logits (*b, k, d), (*b, n, k); a bit that is not set meets no -inf."""
    never = logits == -torch.inf
    found = bits @ logits.masked_fill(never, 0.0).transpose(-2, -1)
    return found.masked_fill((bits @ never.to(bits.dtype).transpose(-2, -1)) > 0, -torch.inf)
