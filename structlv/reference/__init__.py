"""The recursions in plain torch: the tests' oracle, documentation, and fallback without kernels."""

from structlv.reference import chain, enumerate, factorial, lowrank, pcfg, philox, semiring, sparse_pcfg

__all__ = ["chain", "enumerate", "factorial", "lowrank", "pcfg", "philox", "semiring", "sparse_pcfg"]
