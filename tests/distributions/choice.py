"""The smallest structured distribution, one choice among k, made of the hooks alone.

It shows what a new structure has to supply; every law runs on it, so the algebra of the base class is tested
on something that is not a chain.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from structlv.distributions import StructuredDistribution
from structlv.ops.noise import gumbel
from structlv.reference import philox, semiring


class ChoiceParts(NamedTuple):
    """(*b, k): whether each option is chosen."""

    option: Tensor


class AmongOptions(torch.distributions.constraints.Constraint):
    """One option in 0..k-1, shape (*, 1)."""

    is_discrete, event_dim = True, 1

    def __init__(self, k: int) -> None:
        self.k = k

    def check(self, value: Tensor) -> Tensor:
        return ((value >= 0) & (value < self.k)).all(-1)


class Choice(StructuredDistribution):
    """p(z) proportional to exp(options[z]); an event is (*b, 1)."""

    _parameters = _full = ("options",)
    arg_constraints: ClassVar[dict[str, Any]] = {"options": torch.distributions.constraints.real_vector}

    def __init__(self, options: Tensor, *, validate_args: bool | None = None) -> None:
        self.options = options
        self._batch_shape, self._event_shape = options.shape[:-1], torch.Size((1,))
        if validate_args is not None:
            self._validate_args = validate_args

    def _log_partition(self, *, as_double: bool) -> Tensor:
        log_z = semiring.logsumexp(self.options.double(), -1)
        return log_z if as_double else self._rounded(log_z)

    def marginals(self) -> ChoiceParts:
        return ChoiceParts(semiring.softmax(self.options.double(), -1).to(self._dtype))

    def max_marginals(self) -> ChoiceParts:
        return ChoiceParts(self.options.detach())

    def argmax(self) -> Tensor:
        return self._best(1)[0]

    def _best(self, k: int) -> Tensor:
        scores, order = self.options.detach().sort(stable=True, dim=-1, descending=True)
        order = order.masked_fill(scores == -torch.inf, -1)
        missing = order.new_full((*self._batch_shape, max(0, k - order.shape[-1])), -1)
        return torch.cat([order[..., :k], missing], -1).movedim(-1, 0).unsqueeze(-1)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        weights = semiring.softmax(self.options.detach().double(), -1).cumsum(-1)
        items = self._batch_shape.numel()
        u = philox.uniform(seed, num_samples, items, 1, self._dtype, self.options.device)
        u = u.reshape(num_samples, *self._batch_shape, 1)
        chosen = (weights <= u * weights[..., -1:]).sum(-1, keepdim=True)
        return chosen.masked_fill(weights[..., -1:] == 0, -1)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        noise = gumbel(self.options.detach().double(), event_dims=1, num_samples=1, seed=seed)[0]
        log_prob = semiring.log_normalize(self.options.detach().double())
        perturbed, order = (log_prob + noise).sort(dim=-1, descending=True)
        order = order.masked_fill(perturbed == -torch.inf, -1)
        missing = (0, max(0, k - order.shape[-1]))
        order, perturbed = pad(order, missing, value=-1), pad(perturbed, missing, value=-torch.inf)
        return order[..., :k].movedim(-1, 0).unsqueeze(-1), perturbed[..., :k].movedim(-1, 0)

    def _perturbed(self, num_samples: int, seed: int) -> Choice:
        return Choice(self.options + gumbel(self.options, event_dims=1, num_samples=num_samples, seed=seed))

    def _moved(self, parts: Any) -> Choice:
        return Choice(self.options + parts[0])

    def _score(self, event: Tensor) -> Tensor:
        options = self.options.double().expand(*event.shape[:-1], self.options.shape[-1])
        return options.gather(-1, event.clamp_min(0)).masked_fill(event < 0, -torch.inf).squeeze(-1)

    def _part_scores(self) -> ChoiceParts:
        return ChoiceParts(self.options)

    def to_parts(self, event: Tensor) -> ChoiceParts:
        return ChoiceParts((event == torch.arange(self.options.shape[-1])).to(self._dtype))

    def from_parts(self, parts: Any) -> Tensor:
        chosen = parts[0].argmax(-1, keepdim=True)
        return chosen.masked_fill((parts[0] == 0).all(-1, keepdim=True), -1)

    def condition(self, **evidence: Tensor) -> Choice:
        return Choice(torch.where(evidence["allowed"], self.options, -torch.inf))

    @property
    def support(self) -> AmongOptions:
        return AmongOptions(self.options.shape[-1])

    @property
    def _dtype(self) -> torch.dtype:
        return self.options.dtype

    def _event_dims(self, name: str) -> int:
        return 1

    def _rebuild(self, **parameters: Any) -> Choice:
        return Choice(**parameters, validate_args=False)


def choice_structures(d: Choice) -> Tensor:
    return torch.arange(d.options.shape[-1]).unsqueeze(-1)


def choice_scores(d: Choice, events: Tensor) -> Tensor:
    return d.options[events.squeeze(-1)].double()
