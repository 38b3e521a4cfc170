"""structlv one level lower: the functions of structlv.ops.chain, without a distribution around them."""

from __future__ import annotations

import itertools

import torch

from structlv.ops import chain

PACKAGES = ("structlv", "torch", "numpy")


def prepare(query, inputs):
    unary, transition = (torch.from_numpy(inputs[name]) for name in ("unary", "transition"))
    seeds = itertools.count()

    def gradients(*sources):
        log_z = chain.log_partition(unary, transition)
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), sources)

    if query in ("logz_grad", "dense_grad"):
        transition.requires_grad_()
        unary.requires_grad_(query == "logz_grad")
    queries = {
        "logz": lambda: (chain.log_partition(unary, transition),),
        "logz_grad": lambda: gradients(unary, transition),
        "dense_grad": lambda: gradients(transition),
        "marginals": lambda: (chain.state_marginals(unary, transition),),
        "viterbi": lambda: (chain.argmax(unary, transition),),
        "sample": lambda: (chain.sample(unary, transition, num_samples=1, seed=next(seeds))[0],),
    }
    return queries[query]
