"""hmmlearn's C++ recursions in scaled float64, without its estimator around them, one sequence at a time."""

from __future__ import annotations

import numpy as np
from hmmlearn import _hmmc

PACKAGES = ("hmmlearn", "numpy")


class Chain:
    def __init__(self, unary, transition):
        self.unary = unary.astype(np.float64)
        self.matrix = np.exp(transition.astype(np.float64))
        self.ones = np.ones(unary.shape[-1])

    def forward(self, scores):
        """-> log Z, alpha (T,K), scales (T), and the likelihoods (T,K), shifted by their maxima."""
        shift = scores.max(-1, keepdims=True)
        likelihoods = np.exp(scores - shift)
        log_z, alpha, scales = _hmmc.forward_scaling(self.ones, self.matrix, likelihoods)
        return log_z + shift.sum(), alpha, scales, likelihoods

    def smooth(self, scores):
        """-> log Z, state marginals (T,K), alpha, beta and the likelihoods."""
        log_z, alpha, scales, likelihoods = self.forward(scores)
        beta = _hmmc.backward_scaling(self.ones, self.matrix, likelihoods, scales)
        posterior = alpha * beta
        posterior /= posterior.sum(-1, keepdims=True)
        return log_z, posterior, alpha, beta, likelihoods

    def logz(self):
        return (np.array([self.forward(scores)[0] for scores in self.unary]),)

    def logz_grad(self):
        log_z, states, edges = [], [], 0
        for scores in self.unary:
            value, posterior, alpha, beta, likelihoods = self.smooth(scores)
            edges = edges + _hmmc.compute_scaling_xi_sum(alpha, self.matrix, beta, likelihoods)
            log_z.append(value)
            states.append(posterior)
        return np.array(log_z), np.array(states), edges

    def marginals(self):
        return (np.array([self.smooth(scores)[1] for scores in self.unary]),)

    def viterbi(self):
        return (np.array([_hmmc.viterbi(self.ones, self.matrix, scores)[1] for scores in self.unary]),)


def prepare(query, inputs):
    if query == "sample":
        raise NotImplementedError("no posterior sampling")
    if query == "dense_grad":
        raise NotImplementedError("no transitions that change with the step")
    return getattr(Chain(**inputs), query)
