"""structlv through its public class: the distribution is built anew in every call, as in a training step."""

from __future__ import annotations

import torch

from benchmarks.factorials import transitions
from benchmarks.peers.structlv import VALIDATE
from structlv import FactorialChain


def prepare(query, inputs):
    unary, matrices = torch.from_numpy(inputs["unary"]), [torch.from_numpy(x) for x in transitions(inputs)]
    sizes = [len(x) for x in matrices]
    if "grad" in query:
        for x in (unary, *matrices):
            x.requires_grad_()

    def chains():
        return FactorialChain(unary.unflatten(-1, sizes), matrices, validate_args=VALIDATE)

    def joint(states):
        """(B,m,T) states -> (B,T) joint states."""
        index = states[:, 0]
        for chain, size in enumerate(sizes[1:], 1):
            index = index * size + states[:, chain]
        return index

    def grad():
        log_z = chains().log_partition()
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), (unary, *matrices))

    queries = {
        "factorial_logz": lambda: (chains().log_partition(),),
        "factorial_grad": grad,
        "factorial_viterbi": lambda: (joint(chains().argmax()),),
        "factorial_sample": lambda: (joint(chains().sample((1,))[0]),),
    }
    return queries[query]
