"""Models: modules that compute the parameters of a structured distribution."""

from structlv.models.base import Elbo, Model
from structlv.models.continuous_naive_bayes import ContinuousNaiveBayes
from structlv.models.crf import CRF
from structlv.models.families import GaussianFamily, MixturePrior, VampPrior, sampled_kl
from structlv.models.flows import CouplingFlow, InverseAutoregressiveFlow, PlanarFlow
from structlv.models.language_model import RNNLM
from structlv.models.latent import LatentModel, LatentVariableModel, elbo_under
from structlv.models.lowrank_pcfg import LowRankNeuralPCFG, SimpleNeuralPCFG
from structlv.models.mixture import Mixture, MixtureOfRNNLM, NaiveBayes
from structlv.models.neural_factorial_hmm import NeuralFactorialHMM
from structlv.models.neural_hmm import NeuralHMM
from structlv.models.neural_pcfg import CompoundPCFG, NeuralPCFG
from structlv.models.ngram import AdditiveBigram, WittenBell
from structlv.models.structured_gaussian_vae import StructuredGaussianVAE
from structlv.models.structured_vae import ChainVAE, GrammarVAE, StructuredVAE, TreeVAE
from structlv.models.text_vae import TextVAE
from structlv.models.topic_model import NeuralTopicModel

__all__ = [
    "CRF",
    "RNNLM",
    "AdditiveBigram",
    "ChainVAE",
    "CompoundPCFG",
    "ContinuousNaiveBayes",
    "CouplingFlow",
    "Elbo",
    "GaussianFamily",
    "GrammarVAE",
    "InverseAutoregressiveFlow",
    "LatentModel",
    "LatentVariableModel",
    "LowRankNeuralPCFG",
    "Mixture",
    "MixtureOfRNNLM",
    "MixturePrior",
    "Model",
    "NaiveBayes",
    "NeuralFactorialHMM",
    "NeuralHMM",
    "NeuralPCFG",
    "NeuralTopicModel",
    "PlanarFlow",
    "SimpleNeuralPCFG",
    "StructuredGaussianVAE",
    "StructuredVAE",
    "TextVAE",
    "TreeVAE",
    "VampPrior",
    "WittenBell",
    "elbo_under",
    "sampled_kl",
]
