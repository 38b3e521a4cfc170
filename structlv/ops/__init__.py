"""One typed function per operator: shape, dtype and device checks, derivatives, and the choice of kernel."""

from structlv.ops import chain, factorial, lowrank, pcfg, sparse_pcfg

__all__ = ["chain", "factorial", "lowrank", "pcfg", "sparse_pcfg"]
