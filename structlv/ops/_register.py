"""The only caller of ``torch.library``: an operator cannot be registered without all of its answers.

Every operator has a fake, a backward and a forward mode (either may be a refusal, which is loud), a vmap rule
and an autocast rule. The same formulas serve two paths, because ``torch.func.grad`` cannot pass through
``torch.library.register_autograd``: the registered operator, for autograd, compile and export, and an
``autograd.Function``, where functorch transforms or forward-mode tangents are about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from structlv import _native

is_compiling = torch.compiler.is_compiling
is_grad_enabled = torch.is_grad_enabled
_interpreter = torch._C._functorch.peek_interpreter_stack
_below_autograd = torch._C._AutoDispatchBelowAutograd
_has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key


def transformed() -> bool:
    """Whether a functorch transform or a forward-mode level is active."""
    return _interpreter() is not None or forward_ad._current_level >= 0


def eager() -> bool:
    """Whether nothing is traced or transformed: then a kernel may be called without autograd's knowledge."""
    return not is_compiling() and _interpreter() is None and forward_ad._current_level < 0


def refuse(sentence: str) -> Callable[..., NoReturn]:
    """A derivative that raises ``NotImplementedError(sentence)``."""

    def refusal(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(sentence)

    return refusal


def keep_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    """The ``setup`` of an operator whose derivatives need no tensors; integer outputs carry none."""
    outputs = output if isinstance(output, tuple) else (output,)
    ctx.mark_non_differentiable(*[x for x in outputs if not x.is_floating_point()])


def no_tangent(ctx: Any, *tangents: Any) -> None:
    """The forward mode of integer results: like torch.argmax, they have no tangent at all."""


class Operator:
    """``torch.ops.structlv.<name>`` and everything that torch may ask about it.

    ``fake(*args)`` gives empty outputs; ``setup(ctx, inputs, output)``, ``backward(ctx, *grads)`` and
    ``jvp(ctx, *tangents)`` are those of ``torch.autograd.Function``; ``vmap(apply, info, in_dims, *args)``
    too, but for what it applies to the folded arguments. ``eager(ctx, inputs, output)`` is a shorter
    ``setup`` for eager mode, which has no forward mode to prepare for; it returns what is to be seen of the
    output. ``schema`` and ``kernel`` define an operator that is not C++ on the CPU.
    """

    def __init__(
        self,
        name: str,
        *,
        fake: Callable[..., Any],
        setup: Callable[..., None],
        backward: Callable[..., Any],
        jvp: Callable[..., Any],
        vmap: Callable[..., Any],
        eager: Callable[..., Any] | None = None,
        schema: str | None = None,
        kernel: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self.op: Any = None
        if _native.available():
            if kernel is not None:
                torch.library.define(f"structlv::{name}", schema)
                torch.library.impl(f"structlv::{name}", "cpu", kernel)
            self.op = getattr(torch.ops.structlv, name).default
            self._register(fake, setup, backward, vmap)
            self.function = self._make_function(setup, backward, jvp, vmap)
            self.record = self._make_recorder(setup, backward, eager).apply

    def _register(self, fake: Callable, setup: Callable, backward: Callable, vmap: Callable) -> None:
        op, library = self.op, torch.library
        library.register_fake(op, fake)
        library.register_autograd(op, backward, setup_context=setup)
        library.register_vmap(op, lambda info, in_dims, *args: vmap(op, info, in_dims, *args))
        for device in ("cpu", "cuda"):
            library.register_autocast(op, device, torch.float32)

    def _make_function(self, setup: Callable, backward: Callable, jvp: Callable, vmap: Callable) -> Any:
        methods = {
            "forward": staticmethod(self.raw),
            "setup_context": staticmethod(setup),
            "backward": staticmethod(backward),
            "jvp": staticmethod(jvp),
        }
        function: Any = type(f"Functorch_{self.name}", (torch.autograd.Function,), methods)
        rule = lambda info, in_dims, *args: vmap(function.apply, info, in_dims, *args)  # noqa: E731
        function.vmap = staticmethod(rule)
        return function

    def _make_recorder(self, setup: Callable, backward: Callable, eager: Callable | None) -> Any:
        """Autograd for eager mode: 14 µs less a call than the registered one, which does the same."""

        def forward(ctx: Any, *args: Any) -> Any:
            output = self.raw(*args)
            if eager is not None:
                return eager(ctx, args, output)
            setup(ctx, args, output)
            return output

        methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        return type(f"Eager_{self.name}", (torch.autograd.Function,), methods)

    def runs_on(self, x: Tensor) -> bool:
        """Whether it has a kernel, or a fake, for the device of ``x``."""
        if _native._C is None or not (x.is_cpu or x.is_cuda or x.is_meta):
            return False
        return not x.is_cuda or _has_kernel(f"structlv::{self.name}", "CUDA")

    def raw(self, *args: Any) -> Any:
        """The kernel alone: no graph is recorded, whatever requires grad."""
        with _below_autograd():
            return self.op(*args)

    def __call__(self, *args: Any) -> Any:
        if is_compiling():
            return self.op(*args)
        if transformed():
            return self.function.apply(*args)
        return self.op(*args) if is_grad_enabled() else self.raw(*args)
