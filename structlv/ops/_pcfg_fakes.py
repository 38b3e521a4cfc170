"""What the operators of trees return, as shapes and dtypes alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def log_partition(root: Tensor, rules: Tensor, unary: Tensor, *rest: Any) -> Tensor:
    return unary.new_empty(unary.shape[:-2], dtype=torch.float64 if rest[-1] else unary.dtype)


def inside(root: Tensor, rules: Tensor, unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    size = chart_size(unary.shape[-2], root.shape[-1], unary.shape[-1], unary.element_size())
    items = unary.shape[:-2].numel()
    return log_partition(root, rules, unary, *rest), unary.new_empty([items * size])


def chart_size(n: Any, nonterminals: Any, preterminals: Any, itemsize: int) -> Any:
    """Elements of a chart for each sentence: ``pcfg_chart_size`` in ``csrc/kernels/pcfg.h``."""
    line = 64 // itemsize  # rows are padded to 64 bytes on every machine

    def padded(k: Any) -> Any:
        return (k + line - 1) // line * line

    width, leaves, spans = padded(nonterminals), padded(preterminals), n * (n - 1) // 2
    exponents = padded(n + spans + 1 + nonterminals)
    return n * (leaves + nonterminals * (2 * width + leaves)) + spans * width + exponents


def gradients(root: Tensor, rules: Tensor, unary: Tensor, spans: Tensor | None, *_: Any) -> tuple:
    between = [0] if spans is None else spans.shape
    return tuple(unary.new_empty(x) for x in (root.shape, rules.shape, unary.shape, between))


def hvp(
    grad: Any, vt: Any, vr: Any, vu: Any, vs: Any, root: Tensor, rules: Tensor, unary: Tensor, *rest: Any
) -> tuple:
    return unary.new_empty(unary.shape[:-2]), *gradients(root, rules, unary, *rest)


def parts(root: Tensor, rules: Tensor, unary: Tensor, spans: Any, lengths: Any, *wanted: bool) -> tuple:
    """A number for each part of each item; rules and spans of size 0 where they are not ``wanted``."""
    (*batch, n, _), nonterminals = unary.shape, root.shape[-1]
    with_rules, with_spans = wanted or (True, True)
    shapes = [
        [*batch, nonterminals],
        [*batch, *rules.shape[-3:]] if with_rules else [0],
        unary.shape,
        [*batch, n, n, nonterminals] if with_spans else [0],
    ]
    return tuple(unary.new_empty(x) for x in shapes)


def event(like: Tensor, n: Any, count: tuple = ()) -> Tensor:
    """``(*count, *b, m, 3)`` for sentences ``like (*b, n, _)``."""
    return like.new_empty([*count, *like.shape[:-2], max(2 * n - 1, 0), 3], dtype=torch.int64)


def events(root: Tensor, rules: Tensor, unary: Tensor, spans: Any, lengths: Any, *flags: Any) -> Tensor:
    return event(unary, unary.shape[-2], flags[:1])


def score(event: Tensor, root: Tensor, rules: Tensor, unary: Tensor, *_: Any) -> Tensor:
    return unary.new_empty(event.shape[:-2], dtype=torch.float64)


def decode(spans: Tensor, lengths: Any) -> Tensor:
    return event(spans, spans.shape[-1])
