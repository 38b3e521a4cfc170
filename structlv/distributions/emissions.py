"""How the states of an HMM emit observations: a table of symbol probabilities, or any torch
distribution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Size, Tensor
from torch.distributions import Distribution
from torch.nn.functional import embedding

from structlv.distributions.seeding import default_generator
from structlv.distributions.stand_in import legal_value
from structlv.distributions.validation import is_eager, require_integer, require_labels, require_tensor
from structlv.reference.semiring import log_normalize, softmax

__all__ = ["CategoricalEmission", "DistributionEmission", "Emission", "normalized_table"]


class Emission(ABC):
    """p(x_t | z_t) for k states. Observations are (*b, n, *event_shape)."""

    batch_shape: Size
    event_shape: Size
    num_states: int

    @abstractmethod
    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        """``TypeError`` or ``ValueError`` where x cannot be observed; its values only if ``values``."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """log p(x_t | z_t = i), (*b, n, k); 0 where ``observed`` (*b, n) is False, whatever x holds."""

    @abstractmethod
    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        """One observation for each state of ``states`` (*s, *batch_shape, n)."""


def normalized_table(logits: Tensor) -> Tensor:
    """Log-probabilities (*b, k, v) of symbols in each state, with the k of a symbol contiguous."""
    return log_normalize(logits).transpose(-1, -2).contiguous().transpose(-1, -2)


class CategoricalEmission(Emission):
    """Symbols 0..v-1, from normalised log-probabilities (*b, k, v). A gather: O(b n k)."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs
        self.batch_shape, self.event_shape = log_probs.shape[:-2], torch.Size()
        self.num_states, self.num_symbols = log_probs.shape[-2:]

    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        require_integer("x", x)
        if values and is_eager(x):
            legal = x if observed is None else torch.where(observed, x, 0)
            require_labels("x", legal, 0, self.num_symbols - 1)

    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        rows = self.log_probs.transpose(-1, -2).contiguous().flatten(0, -2)
        scores = embedding(x.long().clamp(0, self.num_symbols - 1) + self._offsets(x.device), rows)
        return scores if observed is None else torch.where(observed.unsqueeze(-1), scores, 0.0)

    def _offsets(self, device: torch.device) -> Tensor | int:
        """(*b, 1): where the table of each item starts among all rows."""
        if not self.batch_shape:
            return 0
        start = torch.arange(self.batch_shape.numel(), device=device) * self.num_symbols
        return start.reshape(*self.batch_shape, 1)

    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        """Inverse-transform sampling, O(log v) a draw; -1 where the state is -1."""
        k, v = self.num_states, self.num_symbols
        cumulative = softmax(self.log_probs.detach().double().flatten(0, -2), -1).cumsum(-1)
        total = cumulative[:, -1:]
        row = torch.arange(total.numel(), device=states.device).reshape(*self.batch_shape, k)
        row = row.expand(*batch_shape, k).unsqueeze(-2).expand(*states.shape, k)
        row = row.gather(-1, states.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        # Each row raised by its own number: all rows are one increasing sequence, and one search serves all.
        steps = (cumulative / total + torch.arange(len(total), device=states.device).unsqueeze(-1)).flatten()
        symbol = torch.searchsorted(steps, row + _uniform(states, seed), right=True) - row * v
        return torch.where(states < 0, -1, symbol.clamp(0, v - 1))


def _uniform(like: Tensor, seed: int) -> Tensor:
    """Float64 multiples of 2^-32 in [0, 1), few enough digits to be added exactly to a row number."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randint(0, 2**32, like.shape, generator=generator, device=like.device).double() / 2**32


class DistributionEmission(Emission):
    """Observations from a distribution with batch shape (*b, k). O(b n k) evaluations of its log_prob."""

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self.batch_shape, self.event_shape = distribution.batch_shape[:-1], distribution.event_shape
        self.num_states = distribution.batch_shape[-1]

    def check(self, x: Tensor, observed: Tensor | None, values: bool) -> None:
        require_tensor("x", x)
        if values and x.is_floating_point() and is_eager(x):
            missing = (
                x.isnan().flatten(x.dim() - len(self.event_shape)).any(-1) if self.event_shape else x.isnan()
            )
            if bool((missing if observed is None else missing & observed).any()):
                raise ValueError("x must not be NaN where it is observed; mark missing observations in mask")

    def log_likelihood(self, x: Tensor, observed: Tensor | None) -> Tensor:
        events = len(self.event_shape)
        x = x.movedim(-1 - events, 0).unsqueeze(-1 - events)
        if observed is None:
            return self.distribution.log_prob(x).movedim(0, -2)
        # Before log_prob: a NaN would pass through a where() after it, into the gradient.
        seen = observed.movedim(-1, 0).unsqueeze(-1)
        x = torch.where(seen.reshape(seen.shape + (1,) * events), x, legal_value(self.distribution, x))
        return torch.where(seen, self.distribution.log_prob(x), 0.0).movedim(0, -2)

    def sample(self, states: Tensor, batch_shape: Size, seed: int) -> Tensor:
        events, batch = len(self.event_shape), len(batch_shape)
        *samples, n = states.shape[: states.dim() - batch - 1] + states.shape[-1:]
        with default_generator(states.device, seed):
            draws = self.distribution.expand((*batch_shape, self.num_states)).sample((*samples, n))
        draws = draws.movedim(len(samples), len(samples) + batch)
        index = states.clamp_min(0).reshape(states.shape + (1,) * (1 + events))
        index = index.expand(*states.shape, 1, *self.event_shape)
        return draws.take_along_dim(index, -1 - events).squeeze(-1 - events)
