"""Minimum-risk decoding of distributions over trees."""

from __future__ import annotations

import torch
from torch import Tensor

from structlv.ops import pcfg


def minimum_risk(
    leaves: Tensor, spans: Tensor, lengths: Tensor | None, first_leaf: int, labelled: bool
) -> Tensor:
    """The tree with the most expected constituents, an event (*b, 2n - 1, 3); -1 where none is possible.

    Args:
        leaves: (*b, n, T), the probability of each symbol of a word, all 0 where no tree is possible.
        spans: (*b, n, n, NT), the probability of each constituent i < j.
        lengths: (*b), or None.
        first_leaf: what the symbols of words are counted from.
        labelled: whether symbols count; where not, they are 0.
    """
    event = pcfg.decode(spans.amax(-1) if labelled else spans.sum(-1), lengths)
    event = event.masked_fill((leaves == 0).flatten(-2).all(-1)[..., None, None], -1)
    if not labelled:
        return event
    i, j = event.clamp_min(0)[..., :2].unbind(-1)
    inner = spans.argmax(-1).flatten(-2).gather(-1, i * leaves.shape[-2] + j)
    leaf = leaves.argmax(-1).gather(-1, i) + first_leaf
    symbol = torch.where(i == j, leaf, inner).masked_fill(event[..., 0] < 0, -1)
    return torch.stack([*event[..., :2].unbind(-1), symbol], -1)
