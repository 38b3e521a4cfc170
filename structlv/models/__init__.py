"""Models: modules that compute the parameters of a structured distribution."""

from structlv.models.base import Elbo, Model
from structlv.models.families import GaussianFamily, MixturePrior, VampPrior, sampled_kl
from structlv.models.flows import CouplingFlow, InverseAutoregressiveFlow, PlanarFlow
from structlv.models.lowrank_pcfg import LowRankNeuralPCFG, SimpleNeuralPCFG
from structlv.models.neural_factorial_hmm import NeuralFactorialHMM
from structlv.models.neural_hmm import NeuralHMM
from structlv.models.neural_pcfg import CompoundPCFG, NeuralPCFG
from structlv.models.ngram import AdditiveBigram, WittenBell
from structlv.models.structured_gaussian_vae import StructuredGaussianVAE
from structlv.models.structured_vae import ChainVAE, GrammarVAE, StructuredVAE, TreeVAE

__all__ = [
    "AdditiveBigram",
    "ChainVAE",
    "CompoundPCFG",
    "CouplingFlow",
    "Elbo",
    "GaussianFamily",
    "GrammarVAE",
    "InverseAutoregressiveFlow",
    "LowRankNeuralPCFG",
    "MixturePrior",
    "Model",
    "NeuralFactorialHMM",
    "NeuralHMM",
    "NeuralPCFG",
    "PlanarFlow",
    "SimpleNeuralPCFG",
    "StructuredGaussianVAE",
    "StructuredVAE",
    "TreeVAE",
    "VampPrior",
    "WittenBell",
    "sampled_kl",
]
