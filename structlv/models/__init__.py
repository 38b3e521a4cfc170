"""Models: modules that compute the parameters of a structured distribution."""

from structlv.models.base import Elbo, Model
from structlv.models.crf import CRF
from structlv.models.lowrank_pcfg import LowRankNeuralPCFG, SimpleNeuralPCFG
from structlv.models.neural_factorial_hmm import NeuralFactorialHMM
from structlv.models.neural_hmm import NeuralHMM
from structlv.models.neural_pcfg import CompoundPCFG, NeuralPCFG
from structlv.models.ngram import AdditiveBigram, WittenBell

__all__ = [
    "CRF",
    "AdditiveBigram",
    "CompoundPCFG",
    "Elbo",
    "LowRankNeuralPCFG",
    "Model",
    "NeuralFactorialHMM",
    "NeuralHMM",
    "NeuralPCFG",
    "SimpleNeuralPCFG",
    "WittenBell",
]
