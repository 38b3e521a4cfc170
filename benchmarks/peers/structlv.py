"""structlv through its public class: the distribution is built anew in every call, as in a training step."""

from __future__ import annotations

import os

import torch

from structlv import LinearChain

PACKAGES = ("structlv", "torch", "numpy")
VALIDATE = os.environ.get("BENCHMARK_VALIDATE") == "1"


def prepare(query, inputs):
    unary, transition = (torch.from_numpy(inputs[name]) for name in ("unary", "transition"))

    def chain():
        return LinearChain(unary, transition, validate_args=VALIDATE)

    def gradients(*sources):
        log_z = chain().log_partition()
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), sources)

    def logz_grad():
        return gradients(unary, transition)

    def dense_grad():
        return gradients(transition)

    if query in ("logz_grad", "dense_grad"):
        transition.requires_grad_()
        unary.requires_grad_(query == "logz_grad")
    queries = {
        "logz": lambda: (chain().log_partition(),),
        "logz_grad": logz_grad,
        "dense_grad": dense_grad,
        "marginals": lambda: (chain().state_marginals(),),
        "viterbi": lambda: (chain().argmax(),),
        "sample": lambda: (chain().sample((1,))[0],),
    }
    return queries[query]
