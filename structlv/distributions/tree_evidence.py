"""What known constituents do to a distribution over trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from structlv.distributions.validation import (
    is_eager,
    require_bool,
    require_integer,
    require_labels,
    require_same_device,
)

if TYPE_CHECKING:
    from structlv.distributions.binary_tree import BinaryTree
    from structlv.distributions.trees import TreePosterior

Trees = TypeVar("Trees", bound="TreePosterior")


def conditioned(trees: Trees, spans: Tensor | None, allowed: Tensor | None) -> Trees:
    """``TreePosterior.condition``."""
    inner, about = trees.num_nonterminals, Sentences.of(trees, "unary", trees.unary.shape[-2])
    new = {name: getattr(trees, name) for name in trees._parameters}
    if spans is not None:
        chart = agreeing(about, spans, inner + trees.num_preterminals)
        if chart.shape[-1] == 1:
            new["spans"] = masked(new["spans"], chart, trees.unary)
        else:
            new["spans"] = masked(new["spans"], chart[..., :inner], trees.unary)
            leaves = chart[..., inner:].diagonal(dim1=-3, dim2=-2).movedim(-1, -2)
            new["unary"] = masked(new["unary"], leaves, trees.unary)
    if allowed is not None:
        new["spans"] = masked(new["spans"], permitted(about, allowed, inner), trees.unary)
    result = trees._rebuild(**new)
    result._validate_args = trees._validate_args
    return result


class Sentences(NamedTuple):
    """What evidence is about."""

    name: str  # of the parameter that gives device and batch shape
    like: Tensor
    batch_dims: int
    n: int
    lengths: Tensor | None
    values: bool  # whether values are checked

    @classmethod
    def of(cls, trees: TreePosterior | BinaryTree, name: str, n: int) -> Sentences:
        like = getattr(trees, name)
        return cls(name, like, len(trees.batch_shape), n, trees.lengths, trees._validate_args)


def agreeing(about: Sentences, spans: Tensor, symbols: int) -> Tensor:
    """(*b, n, n, K) bool: the constituents that agree with all of ``spans`` (*b, m, 2 or 3).

    K = 1 where ``spans`` says nothing of symbols. A binary tree without a constituent that crosses i..j has
    i..j as a constituent: the smallest one that covers it could only be split within i..j, and a child would
    cross it. So excluding what crosses is all there is to do.
    """
    _check_spans(about, spans, symbols)
    n, lengths = about.n, about.lengths
    word = torch.arange(n, device=spans.device)
    start, end = word.unsqueeze(-1), word
    labelled = spans.shape[-1] == 3
    chart = torch.ones(
        *spans.shape[:-2], n, n, symbols if labelled else 1, dtype=torch.bool, device=spans.device
    )
    for row in spans.unbind(-2):
        i, j = row[..., 0, None, None], row[..., 1, None, None]
        crosses = ((start < i) & (i <= end) & (end < j)) | ((i < start) & (start <= j) & (j < end))
        length = n if lengths is None else lengths[..., None, None]
        excluded = (crosses | (i > j) | (j >= length)) & (i != -1)
        chart = chart & ~excluded.unsqueeze(-1)
        if labelled:
            symbol = row[..., 2, None, None, None]
            here = ((start == i) & (end == j)).unsqueeze(-1) & (symbol >= 0)
            chart = chart & (~here | (symbol == torch.arange(symbols, device=spans.device)))
    return chart


def permitted(about: Sentences, allowed: Tensor, symbols: int) -> Tensor:
    """``allowed`` as (*b, n, n, 1 or symbols), checked."""
    n, dims = about.n, about.batch_dims + 2
    require_bool("allowed", allowed)
    require_same_device("allowed", allowed, about.name, about.like)
    expected = (n, n, symbols) if allowed.dim() > dims else (n, n)
    if tuple(allowed.shape[allowed.dim() - len(expected) :]) != expected:
        raise ValueError(
            f"allowed must have shape (*b, {n}, {n}), or (*b, {n}, {n}, {symbols}) with all batch dimensions "
            f"of the distribution; found {tuple(allowed.shape)}"
        )
    return allowed if allowed.dim() > dims else allowed.unsqueeze(-1)


def _check_spans(about: Sentences, spans: Tensor, symbols: int) -> None:
    require_integer("spans", spans)
    require_same_device("spans", spans, about.name, about.like)
    if spans.dim() < 2 or spans.shape[-1] not in (2, 3):
        raise ValueError(f"spans must have shape (*b, m, 2) or (*b, m, 3), found {tuple(spans.shape)}")
    if not (about.values and is_eager(spans)):
        return
    known = spans[..., 0] != -1
    length = about.n if about.lengths is None else about.lengths.unsqueeze(-1)
    i, j = spans[..., 0], spans[..., 1]
    if bool((known & ((i < 0) | (i > j) | (j >= length))).any()):
        raise ValueError("spans must be rows 0 <= i <= j < length, or begin with -1 where there is none")
    if spans.shape[-1] == 3:
        require_labels("the symbols of spans", spans[..., 2].masked_fill(~known, -1), -1, symbols - 1)


def masked(value: Tensor | None, allowed: Tensor, like: Tensor) -> Tensor:
    """``value`` (None: 0) where allowed, else -inf with gradient 0."""
    return torch.where(allowed, like.new_zeros(()) if value is None else value, -torch.inf)
