"""The chain's operators; the arguments are those of :mod:`structlv.reference.chain`."""

from structlv.reference.chain import (
    argmax,
    filter,
    has_nan,
    log_partition,
    marginals,
    max_marginals,
    sample,
    score,
    topk,
)

__all__ = [
    "argmax",
    "filter",
    "has_nan",
    "log_partition",
    "marginals",
    "max_marginals",
    "sample",
    "score",
    "topk",
]
