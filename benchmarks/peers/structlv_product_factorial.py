"""A factorial chain as the chain on the product space: the joint transition is formed in every call."""

from __future__ import annotations

import torch

from benchmarks.factorials import transitions
from structlv import LinearChain


def prepare(query, inputs):
    unary, matrices = torch.from_numpy(inputs["unary"]), [torch.from_numpy(x) for x in transitions(inputs)]
    if "grad" in query:
        for x in (unary, *matrices):
            x.requires_grad_()

    def chain():
        joint = matrices[0]
        for x in matrices[1:]:
            size = len(joint) * len(x)
            joint = (joint[:, None, :, None] + x[None, :, None, :]).reshape(size, size)
        return LinearChain(unary, joint, validate_args=False)

    def grad():
        log_z = chain().log_partition()
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), (unary, *matrices))

    queries = {
        "factorial_logz": lambda: (chain().log_partition(),),
        "factorial_grad": grad,
        "factorial_viterbi": lambda: (chain().argmax(),),
        "factorial_sample": lambda: (chain().sample((1,))[0],),
    }
    return queries[query]
