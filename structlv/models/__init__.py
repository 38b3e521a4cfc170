"""Models: modules that compute the parameters of a structured distribution."""

from structlv.models.base import Elbo, Model
from structlv.models.neural_hmm import NeuralHMM
from structlv.models.ngram import WittenBell

__all__ = ["Elbo", "Model", "NeuralHMM", "WittenBell"]
