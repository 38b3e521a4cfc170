"""What an operator accepts: shapes, dtypes, devices; errors name the argument, the rule and the find."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def require_tensor(name: str, x: Any) -> None:
    """Raise ``TypeError`` unless ``x`` is a tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, found {type(x).__name__}")


def require_int(name: str, x: Any, low: int, high: int | None = None) -> None:
    """Raise unless ``x`` is an integer in ``low..high``, both included."""
    if isinstance(x, bool) or not isinstance(x, int | torch.SymInt):
        raise TypeError(f"{name}: expected an int, found {type(x).__name__}")
    if torch.compiler.is_compiling() or isinstance(x, torch.SymInt):
        return  # it may be drawn inside the graph (and then Dynamo calls it an int): no value to look at
    if x < low or (high is not None and x > high):
        raise ValueError(
            f"{name}: expected {low} or more{'' if high is None else f', up to {high}'}, found {x}"
        )


def require_like(name: str, x: Tensor, unary: Tensor) -> None:
    """Raise unless ``x`` has the dtype and the device of ``unary``."""
    require_tensor(name, x)
    if x.dtype != unary.dtype:
        raise TypeError(f"{name}: expected the dtype of unary, {unary.dtype}, found {x.dtype}")
    require_device(name, x, unary)


def require_device(name: str, x: Tensor, unary: Tensor) -> None:
    """Raise unless ``x`` is on the device of ``unary``."""
    if x.device != unary.device:
        raise ValueError(f"{name}: expected the device of unary, {unary.device}, found {x.device}")


def require_tail(name: str, x: Tensor, tail: tuple[int, ...], batch: tuple[int, ...], rule: str) -> None:
    """Raise unless the shape of ``x`` ends in ``tail`` and the rest broadcasts to ``batch``."""
    lead = tuple(x.shape[: x.dim() - len(tail)])
    if x.dim() < len(tail) or tuple(x.shape[x.dim() - len(tail) :]) != tail:
        raise ValueError(f"{name}: expected {rule}, a shape ending in {tail}, found {tuple(x.shape)}")
    fits = len(lead) <= len(batch) and all(
        mine == 1 or mine == theirs for mine, theirs in zip(reversed(lead), reversed(batch), strict=False)
    )
    if not fits:
        raise ValueError(f"{name}: expected {rule}, batch dimensions that broadcast to {batch}, found {lead}")


def require_int64(name: str, x: Tensor, unary: Tensor) -> None:
    """Raise unless ``x`` is an int64 tensor on the device of ``unary``."""
    require_tensor(name, x)
    if x.dtype != torch.int64:
        raise TypeError(f"{name}: expected dtype torch.int64, found {x.dtype}")
    require_device(name, x, unary)


def check_chain(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None = None,
    final: Tensor | None = None,
    lengths: Tensor | None = None,
) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless these are the potentials of a chain."""
    _check_unary(unary)
    *batch_list, n, k = unary.shape
    batch = tuple(batch_list)
    require_like("transition", transition, unary)
    per_step = transition.dim() == unary.dim() + 1
    tail = (n - 1 if n > 0 else 0, k, k) if per_step else (k, k)
    rule = "(*b, n-1, k, k)" if per_step else "(*b, k, k) or (*b, n-1, k, k)"
    require_tail("transition", transition, tail, batch, rule)
    for name, x in (("initial", initial), ("final", final)):
        if x is not None:
            require_like(name, x, unary)
            require_tail(name, x, (k,), batch, "(*b, k)")
    _check_lengths(lengths, unary)


def check_factorial(
    unary: Tensor,
    transition: Tensor,
    initial: Tensor | None,
    sizes: tuple[int, ...],
    lengths: Tensor | None = None,
) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless these are the potentials of a factorial chain."""
    check_sizes(sizes)
    _require_floats("unary", unary, 2, "(*b, n, S)")
    batch, joint = tuple(unary.shape[:-2]), math.prod(sizes)
    if unary.shape[-1] != joint:
        raise ValueError(
            f"unary: expected (*b, n, S) with S = {joint}, the product of sizes, found {tuple(unary.shape)}"
        )
    require_like("transition", transition, unary)
    edges = sum(k * k for k in sizes)
    require_tail("transition", transition, (edges,), batch, "(*b, P), P the sum of k * k over sizes")
    if initial is not None:
        require_like("initial", initial, unary)
        require_tail("initial", initial, (sum(sizes),), batch, "(*b, Q), Q the sum of sizes")
    _check_lengths(lengths, unary)


def check_sizes(sizes: Any) -> None:
    """Raise unless ``sizes`` is a tuple of numbers of states, one for each chain."""
    if not isinstance(sizes, tuple):
        raise TypeError(f"sizes: expected a tuple of ints, found {type(sizes).__name__}")
    if not sizes:
        raise ValueError("sizes: expected at least one chain, found ()")
    for i, k in enumerate(sizes):
        require_int(f"sizes[{i}]", k, 1)


def _check_unary(unary: Tensor) -> None:
    _require_floats("unary", unary, 2, "(*b, n, k)")
    if unary.shape[-1] == 0:
        raise ValueError(
            f"unary: expected at least one state, k >= 1, found (*b, n, k) = {tuple(unary.shape)}"
        )


def _require_floats(name: str, x: Tensor, dims: int, rule: str) -> None:
    require_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, found {x.dtype}")
    if x.dim() < dims:
        raise ValueError(f"{name}: expected {rule}, found {tuple(x.shape)}")


def _check_lengths(lengths: Tensor | None, like: Tensor) -> None:
    if lengths is not None:
        require_int64("lengths", lengths, like)
        batch = tuple(like.shape[:-2])
        if tuple(lengths.shape) != batch:
            raise ValueError(f"lengths: expected (*b) = {batch}, found {tuple(lengths.shape)}")


def check_states(states: Tensor, unary: Tensor) -> None:
    """Raise unless ``states`` is int64 ``(*s, *b, n)``."""
    require_int64("states", states, unary)
    tail = tuple(unary.shape[:-1])
    if states.dim() < len(tail) or tuple(states.shape[states.dim() - len(tail) :]) != tail:
        raise ValueError(
            f"states: expected (*s, *b, n), a shape ending in {tail}, found {tuple(states.shape)}"
        )


def check_pcfg(
    root: Tensor,
    rules: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless these are the potentials of a PCFG with dense rules."""
    check_words(unary)
    batch, nonterminals = tuple(unary.shape[:-2]), check_root(root, unary)
    symbols = nonterminals + unary.shape[-1]
    require_like("rules", rules, unary)
    require_tail("rules", rules, (nonterminals, symbols, symbols), batch, "(*b, NT, S, S), S = NT + T")
    _check_spans(spans, unary, nonterminals)
    _check_lengths(lengths, unary)


def check_sparse_pcfg(
    root: Tensor,
    scores: Tensor,
    unary: Tensor,
    spans: Tensor | None,
    index: Tensor,
    lengths: Tensor | None = None,
) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless these are the potentials of a PCFG with listed rules."""
    check_words(unary)
    nonterminals = check_root(root, unary)
    check_index(index, unary)
    require_like("scores", scores, unary)
    require_tail("scores", scores, (index.shape[0],), tuple(unary.shape[:-2]), "(*b, r)")
    _check_spans(spans, unary, nonterminals)
    _check_lengths(lengths, unary)


def check_index(index: Tensor, like: Tensor) -> None:
    """Raise unless ``index`` is int64 ``(r, 3)``."""
    require_int64("index", index, like)
    if index.dim() != 2 or index.shape[-1] != 3:
        raise ValueError(f"index: expected (r, 3), found {tuple(index.shape)}")


def _check_spans(spans: Tensor | None, unary: Tensor, nonterminals: int) -> None:
    if spans is not None:
        batch, n = tuple(unary.shape[:-2]), unary.shape[-2]
        require_like("spans", spans, unary)
        labels = 1 if spans.dim() and spans.shape[-1] == 1 else nonterminals
        require_tail("spans", spans, (n, n, labels), batch, "(*b, n, n, NT) or (*b, n, n, 1)")


def check_lowrank(
    root: Tensor,
    head: Tensor | None,
    left: Tensor,
    right: Tensor,
    unary: Tensor,
    spans: Tensor | None = None,
    lengths: Tensor | None = None,
) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless these are the potentials of a low-rank PCFG."""
    check_words(unary)
    batch = tuple(unary.shape[:-2])
    nonterminals = check_root(root, unary)
    symbols = nonterminals + unary.shape[-1]
    require_like("left", left, unary)
    rank = left.shape[-2] if left.dim() > 1 and head is not None else nonterminals
    if rank == 0:
        raise ValueError(f"left: expected a rank r >= 1, found (*b, r, S) = {tuple(left.shape)}")
    if head is not None:
        require_like("head", head, unary)
        require_tail("head", head, (nonterminals, rank), batch, "(*b, NT, r)")
    rule = "(*b, NT, S) where there is no head, S = NT + T" if head is None else "(*b, r, S), S = NT + T"
    require_tail("left", left, (rank, symbols), batch, rule)
    require_like("right", right, unary)
    require_tail("right", right, (rank, symbols), batch, rule)
    _check_spans(spans, unary, nonterminals)
    _check_lengths(lengths, unary)


def check_words(unary: Tensor) -> None:
    """Raise unless ``unary`` is ``(*b, n, T)``: scores of the preterminals of every word."""
    _require_floats("unary", unary, 2, "(*b, n, T)")
    if unary.shape[-1] == 0:
        raise ValueError(
            f"unary: expected at least one preterminal, T >= 1, found (*b, n, T) = {tuple(unary.shape)}"
        )


def check_root(root: Tensor, unary: Tensor) -> int:
    """Raise unless ``root`` is ``(*b, NT)``; returns NT."""
    require_like("root", root, unary)
    nonterminals = root.shape[-1] if root.dim() else 0
    if nonterminals == 0:
        raise ValueError(
            f"root: expected (*b, NT) with at least one nonterminal, NT >= 1, found {tuple(root.shape)}"
        )
    require_tail("root", root, (nonterminals,), tuple(unary.shape[:-2]), "(*b, NT)")
    return nonterminals


def check_event(event: Tensor, unary: Tensor) -> None:
    """Raise unless ``event`` is int64 ``(*s, *b, m, 3)``, m = max(2n - 1, 0)."""
    require_int64("event", event, unary)
    tail = (*unary.shape[:-2], max(2 * unary.shape[-2] - 1, 0), 3)
    if event.dim() < len(tail) or tuple(event.shape[event.dim() - len(tail) :]) != tail:
        raise ValueError(
            f"event: expected (*s, *b, 2n - 1, 3), a shape ending in {tail}, found {tuple(event.shape)}"
        )


def check_rows(event: Tensor, unary: Tensor) -> None:
    """Raise unless ``event`` is int64 ``(*s, *b, m, 3)`` for some number m of rows."""
    require_int64("event", event, unary)
    batch = tuple(unary.shape[:-2])
    lead = tuple(event.shape[:-2])
    if event.dim() < 2 or event.shape[-1] != 3 or lead[len(lead) - len(batch) :] != batch:
        raise ValueError(f"event: expected (*s, *b, m, 3) with (*b) = {batch}, found {tuple(event.shape)}")


def check_span_scores(spans: Tensor, lengths: Tensor | None = None) -> None:
    """Raise unless ``spans`` is ``(*b, n, n)``."""
    _require_floats("spans", spans, 2, "(*b, n, n)")
    if spans.shape[-1] != spans.shape[-2]:
        raise ValueError(f"spans: expected (*b, n, n), found {tuple(spans.shape)}")
    _check_lengths(lengths, spans)
