"""pomegranate's DenseHMM, given precomputed emission log-probabilities."""

from __future__ import annotations

import torch
from pomegranate.distributions import Categorical
from pomegranate.hmm import DenseHMM

PACKAGES = ("pomegranate", "torch", "numpy")


def model_of(matrix):
    """The model with transition probabilities `matrix` and initial and final scores of zero."""
    states = len(matrix)
    uniform = [1 / states] * states
    emissions = [Categorical([[0.5, 0.5]]) for _ in range(states)]
    model = DenseHMM(emissions, edges=matrix, starts=uniform, ends=uniform)
    model.starts.zero_()
    model.ends.zero_()
    return model.to(matrix.dtype)


def prepare(query, inputs):
    if query == "sample":
        raise NotImplementedError("no posterior sampling")
    if query == "dense_grad":
        raise NotImplementedError("no transitions that change with the step")
    unary = torch.from_numpy(inputs["unary"])
    model = model_of(torch.from_numpy(inputs["transition"]).exp())

    def logz():
        return (torch.logsumexp(model.forward(emissions=unary)[:, -1] + model.ends, -1),)

    def logz_grad():
        edges, states, _, _, log_z = model.forward_backward(emissions=unary)
        return log_z, states.exp(), edges.sum(0)

    def marginals():
        return ((model.forward(emissions=unary) + model.backward(emissions=unary)).softmax(-1),)

    def viterbi():
        return (model.viterbi(emissions=unary),)

    queries = {"logz": logz, "logz_grad": logz_grad, "marginals": marginals, "viterbi": viterbi}
    return torch.no_grad()(queries[query])
