"""The recursions in plain torch: the tests' oracle, documentation, and fallback without kernels."""

from structlv.reference import chain, enumerate, pcfg, philox, semiring

__all__ = ["chain", "enumerate", "pcfg", "philox", "semiring"]
