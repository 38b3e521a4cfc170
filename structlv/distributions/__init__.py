"""Structured distributions in the grammar of ``torch.distributions``."""

from structlv.distributions import kl as _kl  # registers the divergences
from structlv.distributions.base import StructuredDistribution
from structlv.distributions.binary_tree import BinaryTree
from structlv.distributions.brackets import from_brackets, from_nltk, to_brackets, to_nltk
from structlv.distributions.constraints import ConstituencyTree, StateSequence, StateSequences
from structlv.distributions.dense_trees import DenseTreePosterior
from structlv.distributions.distinct import DistinctSamples
from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_emissions import (
    AdditiveGaussian,
    FactorialEmission,
    TableEmission,
)
from structlv.distributions.factorial_hmm import FactorialHMM
from structlv.distributions.factorial_joint import JointChains
from structlv.distributions.factorial_parts import FactorialParts
from structlv.distributions.factorial_separate import SeparateChains
from structlv.distributions.filtering import FilterState, filter_step
from structlv.distributions.hmm import HMM
from structlv.distributions.inference import Exact, Inference
from structlv.distributions.linear_chain import ChainParts, LinearChain
from structlv.distributions.loglinear_emissions import IndependentBernoulli, LogLinearCategorical
from structlv.distributions.lowrank_pcfg import LowRankPCFG, SimplePCFG
from structlv.distributions.lowrank_trees import (
    LowRankParts,
    LowRankRules,
    LowRankTreePosterior,
    SimpleParts,
)
from structlv.distributions.mean_field import MeanField, StructuredMeanField, Variational
from structlv.distributions.pcfg import PCFG
from structlv.distributions.relaxations import (
    IMLE,
    GumbelCRF,
    PerturbAndMAP,
    Relaxation,
    StochasticSoftmax,
    StraightThroughMarginals,
)
from structlv.distributions.sparse_trees import SparseTreePosterior
from structlv.distributions.tagging import TaggingConstraints, tagging_constraints
from structlv.distributions.tree_parts import BinaryTreeParts, TreeParts
from structlv.distributions.trees import TreePosterior
from structlv.ops.sparse_pcfg import SparseRules

__all__ = [
    "HMM",
    "IMLE",
    "PCFG",
    "AdditiveGaussian",
    "BinaryTree",
    "BinaryTreeParts",
    "ChainParts",
    "ConstituencyTree",
    "DenseTreePosterior",
    "DistinctSamples",
    "Exact",
    "FactorialChain",
    "FactorialEmission",
    "FactorialHMM",
    "FactorialParts",
    "FilterState",
    "GumbelCRF",
    "IndependentBernoulli",
    "Inference",
    "JointChains",
    "LinearChain",
    "LogLinearCategorical",
    "LowRankPCFG",
    "LowRankParts",
    "LowRankRules",
    "LowRankTreePosterior",
    "MeanField",
    "PerturbAndMAP",
    "Relaxation",
    "SeparateChains",
    "SimplePCFG",
    "SimpleParts",
    "SparseRules",
    "SparseTreePosterior",
    "StateSequence",
    "StateSequences",
    "StochasticSoftmax",
    "StraightThroughMarginals",
    "StructuredDistribution",
    "StructuredMeanField",
    "TableEmission",
    "TaggingConstraints",
    "TreeParts",
    "TreePosterior",
    "Variational",
    "filter_step",
    "from_brackets",
    "from_nltk",
    "tagging_constraints",
    "to_brackets",
    "to_nltk",
]
del _kl
