"""What partial labels and constraints do to a linear chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from structlv.distributions.validation import (
    is_eager,
    require_bool,
    require_events,
    require_integer,
    require_same_device,
)

if TYPE_CHECKING:
    from structlv.distributions.linear_chain import LinearChain

Chain = TypeVar("Chain", bound="LinearChain")


def conditioned(
    chain: Chain,
    states: Tensor | None,
    allowed: Tensor | None,
    allowed_transitions: Tensor | None,
    allowed_initial: Tensor | None,
    allowed_final: Tensor | None,
) -> Chain:
    """``LinearChain.condition``."""
    n, k = chain.unary.shape[-2:]
    new = {name: getattr(chain, name) for name in chain._parameters}
    if states is not None:
        new["unary"] = _masked(new["unary"], _one_state(chain, states))
    if allowed is not None:
        _require_mask("allowed", allowed, chain, "(*b, n, k)", n, k)
        new["unary"] = _masked(new["unary"], allowed)
    for name, mask in (("initial", allowed_initial), ("final", allowed_final)):
        if mask is not None:
            _require_mask(f"allowed_{name}", mask, chain, "(*b, k)", k)
            new[name] = _masked(chain.unary.new_zeros(k) if new[name] is None else new[name], mask)
    result = chain._rebuild(**new)
    result._validate_args = chain._validate_args
    return result if allowed_transitions is None else _only_transitions(result, allowed_transitions)


def _only_transitions(chain: Chain, mask: Tensor) -> Chain:
    n, k = chain.unary.shape[-2:]
    if mask.dim() == chain.unary.dim() + 1:
        _require_mask("allowed_transitions", mask, chain, "(*b, n-1, k, k)", max(n - 1, 0), k, k)
        chain = chain._stepwise()
    else:
        _require_mask("allowed_transitions", mask, chain, "(*b, k, k)", k, k)
        mask = mask.unsqueeze(-3) if chain._per_step else mask
    return chain._derived(lambda name, value: _masked(value, mask) if name == "transition" else value)


def _one_state(chain: LinearChain, states: Tensor) -> Tensor:
    """(*b, n, k) bool: the states that partial labels leave open."""
    n, k = chain.unary.shape[-2:]
    require_integer("states", states)
    require_same_device("states", states, "unary", chain.unary)
    require_events("states", states, "(*b, n)", n)
    if chain._validate_args and is_eager(states):
        chain._check_labels(states.expand(torch.broadcast_shapes(states.shape, chain.unary.shape[:-1])))
    label = states.unsqueeze(-1)
    return (label == -1) | (label == torch.arange(k, device=states.device))


def _require_mask(name: str, mask: Tensor, chain: LinearChain, expected: str, *sizes: int) -> None:
    require_bool(name, mask)
    require_same_device(name, mask, "unary", chain.unary)
    require_events(name, mask, expected, *sizes)


def _masked(value: Tensor, allowed: Tensor) -> Tensor:
    """``value`` where allowed, else -inf with gradient 0."""
    return torch.where(allowed, value, -torch.inf)
