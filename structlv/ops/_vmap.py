"""Structures under vmap: the mapped dimension becomes one more batch dimension, in front; nothing is copied.

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


def _dims(x: Tensor | None, dim: int | None) -> int:
    """How many dimensions there are beside the mapped one."""
    return 0 if x is None else x.dim() - (dim is not None)


class Rules:
    """The rules of a family's operators, whose potentials are ``(*scores, *shared, lengths)``: what is shared
    by all items, such as a list of rules, cannot be mapped.

    ``cores``: for each of the scores, how many trailing dimensions are not of the batch; of two numbers, the
    second holds for a score that then has all batch dimensions. ``carrier``: the place of the score with the
    full batch shape. ``event``: how many trailing dimensions of an event are not of the batch.
    """

    def __init__(self, cores: tuple[tuple[int, ...], ...], carrier: int, event: int) -> None:
        self.cores, self.carrier, self.event = cores, carrier, event

    def fold(self, info: Any, in_dims: tuple, args: tuple, expand: bool = False) -> _Folded:
        return _Folded(self, info, in_dims, args, expand)

    def query(self, count: int, outputs: int = 1, at: int = 0) -> Callable[..., Any]:
        """The rule of an operator on ``(*potentials, *flags)``; ``count`` potentials, with the lengths."""

        def rule(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
            folded = self.fold(info, in_dims[:count], args[:count])
            found = apply(*folded.args, *args[count:])
            if outputs == 1 or at:
                return found, at if outputs == 1 else (at,) * outputs
            # what was not asked for has size 0, for each mapped index too
            size = info.batch_size
            return tuple(x if x.shape[0] == size else x.new_empty((size, 0)) for x in found), (0,) * outputs

        return rule

    def inside(self, apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
        """log Z and its chart, cut into equal rows: opaque to the caller, and not used by :meth:`vjp`."""
        log_z, chart = apply(*self.fold(info, in_dims[:-1], args[:-1]).args, args[-1])
        return (log_z, chart.reshape(info.batch_size, chart.numel() // info.batch_size)), (0, 0)

    def vjp(self, recompute: Callable) -> Callable[..., Any]:
        """The rule of ``(grad, chart, *potentials)``. A chart belongs to one exact set of arguments, and
        folding changes them: it is computed again by ``recompute(*potentials)``."""

        def rule(apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
            folded = self.fold(info, in_dims[2:], args[2:], expand=True)
            grad = _batched(args[0], in_dims[0], info.batch_size)
            return folded.unfold(apply(grad, recompute(*folded.args), *folded.args))

        return rule

    def hvp(self, apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
        """The rule of ``(grad, *directions, *potentials)``; there is a direction for each of the scores."""
        count = len(self.cores)
        folded = self.fold(info, in_dims[1 + count :], args[1 + count :], expand=True)
        grad = None if args[0] is None else _batched(args[0], in_dims[0], info.batch_size)
        directions = folded.scores(args[1 : 1 + count], in_dims[1 : 1 + count])
        d_grad, *gradients = apply(grad, *directions, *folded.args)
        gradients, places = folded.unfold(tuple(gradients))
        return (d_grad, *gradients), (0, *places)

    def score(self, apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
        """The rule of ``(event, *potentials)``; sample dimensions stay in front of the mapped one."""
        folded = self.fold(info, in_dims[1:], args[1:])
        at = _dims(args[0], in_dims[0]) - self.event - folded.batch_dims
        return apply(_batched(args[0], in_dims[0], info.batch_size, at), *folded.args), at

    def score_vjp(self, apply: Callable, info: Any, in_dims: tuple, *args: Any) -> Any:
        """The rule of ``(grad, event, *potentials)``."""
        folded = self.fold(info, in_dims[2:], args[2:], expand=True)
        at = _dims(args[1], in_dims[1]) - self.event - folded.batch_dims
        grad = _batched(args[0], in_dims[0], info.batch_size, at)
        event = _batched(args[1], in_dims[1], info.batch_size, at)
        return folded.unfold(apply(grad, event, *folded.args))


class _Folded:
    """``(*scores, *shared, lengths)`` with the mapped dimension folded into the batch."""

    def __init__(self, rules: Rules, info: Any, in_dims: tuple, args: tuple, expand: bool) -> None:
        self.rules, self.size, self.expand = rules, info.batch_size, expand
        count = len(rules.cores)
        self.originals, self.dims = args[:count], in_dims[:count]
        if any(dim is not None for dim in in_dims[count:-1]):
            raise NotImplementedError(
                "what all items share, a list of rules or the sizes of chains, cannot be mapped by vmap"
            )
        self.batch_dims = _dims(args[rules.carrier], in_dims[rules.carrier]) - rules.cores[rules.carrier][0]
        lengths = None if args[-1] is None else _batched(args[-1], in_dims[-1], self.size)
        self.args = (*self.scores(self.originals, self.dims), *args[count:-1], lengths)

    def scores(self, args: tuple, in_dims: tuple) -> list[Any]:
        """Potentials without the lengths, or directions."""
        return [self._score(i, x, dim) for i, (x, dim) in enumerate(zip(args, in_dims, strict=True))]

    def _score(self, place: int, x: Tensor | None, dim: int | None) -> Any:
        narrow, wide = self.rules.cores[place][0], self.rules.cores[place][-1]
        core = wide if _dims(x, dim) == self.batch_dims + wide else narrow
        return _operand(x, dim, self.size, core, self.batch_dims, self.expand or place == self.rules.carrier)

    def unfold(self, gradients: tuple) -> tuple[tuple, tuple]:
        """Gradients in the shapes that the caller's potentials have, plus the mapped dimension in front."""
        out = []
        for gradient, x, dim in zip(gradients, self.originals, self.dims, strict=True):
            if x is None:
                out.append(gradient.new_empty((self.size, 0)))
            else:
                shape = list(x.shape)
                if dim is not None:
                    del shape[dim]
                out.append(gradient.reshape(self.size, *shape))
        return tuple(out), (0,) * len(out)
