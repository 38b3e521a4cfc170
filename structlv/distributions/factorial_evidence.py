"""What partial labels and constraints do to factorial chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from structlv.distributions.factorial_checks import require_count, tensors
from structlv.distributions.factorial_parts import along
from structlv.distributions.validation import (
    is_eager,
    require_bool,
    require_events,
    require_integer,
    require_same_device,
)

if TYPE_CHECKING:
    from structlv.distributions.factorial_chain import FactorialChain

Chains = TypeVar("Chains", bound="FactorialChain")


def conditioned(chains: Chains, states: Tensor | None, allowed: Sequence[Tensor] | None) -> Chains:
    """``FactorialChain.condition``."""
    masks = [] if states is None else [_one_state(chains, states)]
    if allowed is not None:
        masks.append(_allowed(chains, tensors("allowed", allowed)))
    new = {name: getattr(chains, name) for name in chains._parameters}
    for mask in masks:
        new["unary"] = _masked(new["unary"], mask)
    result = chains._rebuild(**new)
    result._validate_args = chains._validate_args
    return result


def _allowed(chains: FactorialChain, masks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    require_count(len(chains.sizes), allowed=masks)
    for i, (mask, k) in enumerate(zip(masks, chains.sizes, strict=True)):
        require_bool(f"allowed[{i}]", mask)
        require_same_device(f"allowed[{i}]", mask, "unary", chains._any_unary)
        require_events(f"allowed[{i}]", mask, "(*b, n, k)", chains.event_shape[-1], k)
    return masks


def _one_state(chains: FactorialChain, states: Tensor) -> tuple[Tensor, ...]:
    """For each chain (*b, n, k) bool: the states that partial labels leave open."""
    require_integer("states", states)
    require_same_device("states", states, "unary", chains._any_unary)
    require_events("states", states, "(*b, m, n)", *chains.event_shape)
    if chains._validate_args and is_eager(states):
        shape = torch.broadcast_shapes(states.shape, chains.batch_shape + chains.event_shape)
        chains._check_labels(states.expand(shape))
    labels = states.unsqueeze(-1)
    return tuple(
        (labels[..., i, :, :] == -1) | (labels[..., i, :, :] == torch.arange(k, device=states.device))
        for i, k in enumerate(chains.sizes)
    )


def _masked(unary: Tensor | tuple[Tensor, ...], allowed: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """``unary`` where allowed, else -inf with gradient 0."""
    if isinstance(unary, tuple):
        return tuple(torch.where(mask, x, -torch.inf) for mask, x in zip(allowed, unary, strict=True))
    for i, mask in enumerate(allowed):
        unary = torch.where(along(mask, i, len(allowed)), unary, -torch.inf)
    return unary
