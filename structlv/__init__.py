"""Fast, exact, differentiable structured distributions for PyTorch, and the models built on them."""

from __future__ import annotations

__version__ = "0.1.0"

import torch  # noqa: F401  # first: it loads libtorch_cpu, which structlv._C is linked against

from structlv import _native  # noqa: F401  # loads the operators, on which all that follows is built
from structlv.distributions import (
    HMM,
    PCFG,
    BinaryTree,
    BinaryTreeParts,
    ChainParts,
    ConstituencyTree,
    FactorialChain,
    FactorialParts,
    LinearChain,
    LowRankParts,
    LowRankPCFG,
    LowRankRules,
    SimpleParts,
    SimplePCFG,
    SparseRules,
    StateSequence,
    StateSequences,
    StructuredDistribution,
    TaggingConstraints,
    TreeParts,
    TreePosterior,
    from_brackets,
    from_nltk,
    tagging_constraints,
    to_brackets,
    to_nltk,
)

__all__ = [
    "HMM",
    "PCFG",
    "BinaryTree",
    "BinaryTreeParts",
    "ChainParts",
    "ConstituencyTree",
    "FactorialChain",
    "FactorialParts",
    "LinearChain",
    "LowRankPCFG",
    "LowRankParts",
    "LowRankRules",
    "SimplePCFG",
    "SimpleParts",
    "SparseRules",
    "StateSequence",
    "StateSequences",
    "StructuredDistribution",
    "TaggingConstraints",
    "TreeParts",
    "TreePosterior",
    "from_brackets",
    "from_nltk",
    "tagging_constraints",
    "to_brackets",
    "to_nltk",
]
