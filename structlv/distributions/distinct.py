"""Structures drawn without replacement."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class DistinctSamples(NamedTuple):
    """k different structures of each item, by descending perturbed log-probability.

    Where there are fewer than k, the rest has events of -1, and -inf for both numbers.
    """

    events: Tensor  # (k, *b, *event) int64
    perturbed: Tensor  # (k, *b): log p + Gumbel noise, the k largest of all structures; detached
    log_prob: Tensor  # (k, *b): log p; differentiable
