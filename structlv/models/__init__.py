"""Models: modules that compute the parameters of a structured distribution."""

from structlv.models.base import Elbo, Model
from structlv.models.continuous_naive_bayes import ContinuousNaiveBayes
from structlv.models.language_model import RNNLM
from structlv.models.latent import LatentModel, LatentVariableModel, elbo_under
from structlv.models.lowrank_pcfg import LowRankNeuralPCFG, SimpleNeuralPCFG
from structlv.models.mixture import Mixture, MixtureOfRNNLM, NaiveBayes
from structlv.models.neural_factorial_hmm import NeuralFactorialHMM
from structlv.models.neural_hmm import NeuralHMM
from structlv.models.neural_pcfg import CompoundPCFG, NeuralPCFG
from structlv.models.ngram import AdditiveBigram, WittenBell
from structlv.models.text_vae import TextVAE
from structlv.models.topic_model import NeuralTopicModel

__all__ = [
    "RNNLM",
    "AdditiveBigram",
    "CompoundPCFG",
    "ContinuousNaiveBayes",
    "Elbo",
    "LatentModel",
    "LatentVariableModel",
    "LowRankNeuralPCFG",
    "Mixture",
    "MixtureOfRNNLM",
    "Model",
    "NaiveBayes",
    "NeuralFactorialHMM",
    "NeuralHMM",
    "NeuralPCFG",
    "NeuralTopicModel",
    "SimpleNeuralPCFG",
    "TextVAE",
    "WittenBell",
    "elbo_under",
]
