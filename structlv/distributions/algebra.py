"""Sums over parts in which 0 times infinity is 0, for the algebra of structured distributions.

Parts are named tuples of tensors. A field may also be a tuple of tensors, or None for zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from structlv.distributions.validation import is_eager

if TYPE_CHECKING:
    from structlv.distributions.base import StructuredDistribution


def paired(parts: Any, others: Any) -> Iterator[tuple[Any, Tensor]]:
    """Each tensor of ``others`` with the tensor of ``parts`` in its place."""
    if len(parts) != len(others):
        raise ValueError(
            f"parts must hold {len(parts)} tensors where the structure has them, found {len(others)}"
        )
    for mine, other in zip(parts, others, strict=True):
        if isinstance(other, tuple | list):
            yield from paired(mine, other)
        elif other is not None:
            yield mine, other


def mapped(parts: Any, fn: Callable[[Tensor], Any]) -> list[Any]:
    """``fn`` of every tensor of ``parts``, in lists of the same nesting; None stays None."""
    return [
        mapped(part, fn) if isinstance(part, tuple | list) else None if part is None else fn(part)
        for part in parts
    ]


def added(score: Any, move: Any) -> Any:
    """``score`` plus ``move``, tensors or tuples of them; None stands for zeros."""
    if isinstance(score, tuple):
        return score if move is None else tuple(map(added, score, move))
    return score if move is None else move if score is None else score + move


def flat(parts: Any) -> list[Tensor]:
    """Every tensor of ``parts``, in order."""
    found: list[Tensor] = []
    for part in parts:
        if part is not None:
            found += flat(part) if isinstance(part, tuple | list) else [part]
    return found


def rebuilt(parts: Any, tensors: Iterable[Tensor]) -> Any:
    """The inverse of ``flat``: other tensors in the nesting of ``parts``, a named tuple."""
    queue = iter(tensors)
    nested = mapped(parts, lambda _: next(queue))
    return type(parts)(*[tuple(part) if isinstance(part, list) else part for part in nested])


def inner(marginals: Any, scores: Any, batch_dims: int) -> Tensor:
    """Sum over parts of marginal times score, keeping the batch dimensions.

    A part of marginal 0 contributes 0 whatever its score: -inf, or the content of padding.
    """
    total: Tensor | None = None
    for weight, score in paired(marginals, scores):
        term = (weight * torch.where(weight == 0, 0.0, score)).flatten(batch_dims).sum(-1)
        total = term if total is None else total + term
    if total is None:
        raise ValueError("parts must hold at least one tensor, found only None")
    return total


def finite(x: Tensor) -> Tensor:
    """``x`` with 0, and no gradient, in place of -inf."""
    return x.masked_fill(x == -torch.inf, 0.0)


def mean_score(marginals: Any, scores: Any, batch_dims: int) -> Tensor:
    """E_p[score_q], (*b), from q's part scores; what q forbids counts as 0, for ``guarded`` to put right."""
    return inner(marginals, mapped(scores, finite), batch_dims)


def _is_finite(score: Tensor) -> bool:
    """Whether ``score`` is known to forbid nothing, without waiting for a device."""
    return is_eager(score) and score.is_cpu and not bool((score == -torch.inf).any())


def guarded(p: StructuredDistribution, q: StructuredDistribution, value: Tensor, log_z: Tensor) -> Tensor:
    """``value``, but 0 where p, of log-partition ``log_z``, is empty and +inf where it allows what q forbids.

    What p allows is read off the max-marginals: a marginal can underflow to 0.
    """
    scores = q._part_scores()
    if all(_is_finite(score) for _, score in paired(scores, scores)):
        return value.masked_fill(log_z == -torch.inf, 0.0)
    forbidden = torch.zeros_like(log_z, dtype=torch.bool)
    for best, score in paired(p.max_marginals(), scores):
        missed = (best > -torch.inf) & (score == -torch.inf)
        forbidden = forbidden | missed.flatten(log_z.dim()).any(-1)
    return value.masked_fill(forbidden, torch.inf).masked_fill(log_z == -torch.inf, 0.0)


def tempered(value: Tensor, temperature: Tensor, event_dims: int) -> Tensor:
    """``value / temperature`` per item; neither -inf nor padding reaches the temperature's gradient."""
    if not value.is_floating_point():
        return value
    divisor = temperature.reshape(temperature.shape + (1,) * event_dims)
    finite = value.isfinite()
    return torch.where(finite, torch.where(finite, value, 0.0) / divisor, value)
