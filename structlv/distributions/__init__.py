"""Structured distributions in the grammar of ``torch.distributions``."""

from structlv.distributions import kl as _kl  # registers the divergences
from structlv.distributions.base import StructuredDistribution
from structlv.distributions.constraints import StateSequence
from structlv.distributions.hmm import HMM
from structlv.distributions.linear_chain import ChainParts, LinearChain
from structlv.distributions.tagging import TaggingConstraints, tagging_constraints

__all__ = [
    "HMM",
    "ChainParts",
    "LinearChain",
    "StateSequence",
    "StructuredDistribution",
    "TaggingConstraints",
    "tagging_constraints",
]
del _kl
