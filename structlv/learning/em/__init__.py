"""Expectation maximisation: one engine (`run`), and for each model what it must know of it (`problem`)."""

from structlv.learning.em.fit import EMResult, fit_em, fit_stepwise_em
from structlv.learning.em.hmm import MonteCarlo
from structlv.learning.em.m_step import Prior, Tied
from structlv.learning.em.naive_bayes import NaiveBayesTables
from structlv.learning.em.start import (
    hmm_of_counts,
    hmm_of_symbols,
    hmm_of_vectors,
    random_bernoulli,
    random_categorical,
    random_gaussian,
)

__all__ = [
    "EMResult",
    "MonteCarlo",
    "NaiveBayesTables",
    "Prior",
    "Tied",
    "fit_em",
    "fit_stepwise_em",
    "hmm_of_counts",
    "hmm_of_symbols",
    "hmm_of_vectors",
    "random_bernoulli",
    "random_categorical",
    "random_gaussian",
]
