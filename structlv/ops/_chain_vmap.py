"""The chain under vmap: the mapped dimension becomes one more batch dimension, in front; nothing is copied.

A rule takes the callable to apply, then ``(info, in_dims, *args)`` as torch gives them. An operand without
the mapped dimension stays as it is where the operator broadcasts it, and is expanded (a view) where the
operator returns a gradient in its shape, because that gradient is one per mapped index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def _batched(x: Tensor, dim: int | None, size: int, at: int = 0) -> Tensor:
    """``x`` with its mapped dimension at ``at``, expanded where it has none."""
    if dim is not None:
        return x.movedim(dim, at)
    x = x.unsqueeze(at)
    return x.expand(*x.shape[:at], size, *x.shape[at + 1 :])


def _operand(x: Tensor | None, dim: int | None, size: int, core: int, batch_dims: int, expand: bool) -> Any:
    """A potential with ``core`` trailing dimensions, so that its leading ones line up with ``(size, *b)``."""
    if x is None or (dim is None and not expand and core < 3):
        return x
    if dim is not None:
        x = x.movedim(dim, 0)
    elif x is not None:
        x = x.unsqueeze(0)
    missing = batch_dims + 1 + core - x.dim()
    x = x.reshape(x.shape[0], *[1] * missing, *x.shape[1:])
    return x.expand(size, *x.shape[1:]) if expand else x


class _Folded:
    """``(unary, transition, initial, final, lengths)`` with the mapped dimension folded into the batch."""

    def __init__(self, info: Any, in_dims: tuple, args: tuple, expand: bool = False) -> None:
        self.size, unary, dim = info.batch_size, args[0], in_dims[0]
        self.batch_dims = unary.dim() - 2 - (dim is not None)
        self.expand, self.originals, self.dims = expand, args, in_dims
        ends = [self.potential(x, d, 1) for x, d in zip(args[2:4], in_dims[2:4], strict=True)]
        lengths = None if args[4] is None else _batched(args[4], in_dims[4], self.size)
        self.args = (_batched(unary, dim, self.size), self.transition(args[1], in_dims[1]), *ends, lengths)

    def potential(self, x: Tensor | None, dim: int | None, core: int) -> Any:
        return _operand(x, dim, self.size, core, self.batch_dims, self.expand)

    def transition(self, x: Tensor, dim: int | None) -> Any:
        per_step = x.dim() - (dim is not None) == self.batch_dims + 3
        return self.potential(x, dim, 3 if per_step else 2)

    def unfold(self, gradients: tuple) -> tuple:
        """Gradients in the shapes that the caller's potentials have, plus the mapped dimension in front."""
        out = []
        for gradient, x, dim in zip(gradients, self.originals[:4], self.dims[:4], strict=True):
            if x is None:
                out.append(gradient.new_empty((self.size, 0)))
            else:
                shape = list(x.shape)
                if dim is not None:
                    del shape[dim]
                out.append(gradient.reshape(self.size, *shape))
        return tuple(out)


def query(outputs: int = 1, at: int = 0) -> Callable[..., Any]:
    """The rule of an operator on ``(unary, transition, initial, final, lengths, *flags)``."""

    def rule(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
        folded = _Folded(info, in_dims[:5], args[:5])
        return apply(*folded.args, *args[5:]), at if outputs == 1 else (at,) * outputs

    return rule


def inside(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
    """log Z and its chart, cut into equal rows: opaque to the caller, and not used by :func:`vjp`."""
    log_z, chart = apply(*_Folded(info, in_dims[:5], args[:5]).args, args[5])
    return (log_z, chart.reshape(info.batch_size, chart.numel() // info.batch_size)), (0, 0)


def vjp(recompute: Callable) -> Callable[..., Any]:
    """The rule of ``(grad, chart, *potentials)``. A chart belongs to one exact set of arguments, and folding
    changes them: it is computed again by ``recompute(*potentials)``."""

    def rule(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
        folded = _Folded(info, in_dims[2:7], args[2:7], expand=True)
        grad = _batched(args[0], in_dims[0], info.batch_size)
        return folded.unfold(apply(grad, recompute(*folded.args), *folded.args)), (0, 0, 0, 0)

    return rule


def hvp(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
    """The rule of ``(grad, v_unary, v_transition, v_initial, v_final, *potentials)``."""
    folded = _Folded(info, in_dims[5:10], args[5:10], expand=True)
    grad = None if args[0] is None else _batched(args[0], in_dims[0], info.batch_size)
    v_unary = _batched(args[1], in_dims[1], info.batch_size)
    v_transition = folded.transition(args[2], in_dims[2])
    v_ends = [folded.potential(x, d, 1) for x, d in zip(args[3:5], in_dims[3:5], strict=True)]
    d_grad, *gradients = apply(grad, v_unary, v_transition, *v_ends, *folded.args)
    return (d_grad, *folded.unfold(tuple(gradients))), (0, 0, 0, 0, 0)


def filter_vjp(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
    """The rule of ``(grad, *potentials)``."""
    folded = _Folded(info, in_dims[1:6], args[1:6], expand=True)
    grad = _batched(args[0], in_dims[0], info.batch_size)
    return folded.unfold(apply(grad, *folded.args)), (0, 0, 0, 0)


def _sample_dims(states: Tensor, dim: int | None, unary: Tensor, unary_dim: int | None) -> int:
    return (states.dim() - (dim is not None)) - (unary.dim() - (unary_dim is not None)) + 1


def score(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
    """The rule of ``(states, *potentials)``; sample dimensions stay in front of the mapped one."""
    folded = _Folded(info, in_dims[1:6], args[1:6])
    at = _sample_dims(args[0], in_dims[0], args[1], in_dims[1])
    return apply(_batched(args[0], in_dims[0], info.batch_size, at), *folded.args), at


def score_vjp(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
    """The rule of ``(grad, states, *potentials)``."""
    folded = _Folded(info, in_dims[2:7], args[2:7], expand=True)
    at = _sample_dims(args[1], in_dims[1], args[2], in_dims[2])
    grad, states = (_batched(x, d, info.batch_size, at) for x, d in zip(args[:2], in_dims[:2], strict=True))
    return folded.unfold(apply(grad, states, *folded.args)), (0, 0, 0, 0)
