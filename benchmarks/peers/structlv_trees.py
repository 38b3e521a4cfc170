"""structlv through its public class: the distribution is built anew in every call, as in a training step."""

from __future__ import annotations

import torch

from benchmarks.peers.structlv import VALIDATE
from structlv import TreePosterior


def prepare(query, inputs):
    potentials = [torch.from_numpy(inputs[name]) for name in ("root", "rules", "unary")]

    def trees():
        return TreePosterior(*potentials, validate_args=VALIDATE)

    def grad():
        log_z = trees().log_partition()
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), potentials)

    if "grad" in query:
        for x in potentials:
            x.requires_grad_()
        return grad
    queries = {
        "tree_logz": lambda: (trees().log_partition(),),
        "tree_viterbi": lambda: (trees().argmax(),),
        "tree_sample": lambda: (trees().sample((1,))[0],),
    }
    return queries[query]
