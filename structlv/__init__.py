"""Fast, exact, differentiable structured distributions for PyTorch, and the models built on them."""

from __future__ import annotations

import torch  # noqa: F401  # first: it loads libtorch_cpu, which the compiled extension is linked against

from structlv import _native

__version__ = "0.1.0"

_native.load(__version__)
