"""structlv one level lower: the functions of structlv.ops.pcfg, without a distribution around them."""

from __future__ import annotations

import itertools

import torch

from structlv.ops import pcfg


def prepare(query, inputs):
    potentials = [torch.from_numpy(inputs[name]) for name in ("root", "rules", "unary")]
    seeds = itertools.count()

    def grad():
        log_z = pcfg.log_partition(*potentials)
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), potentials)

    if "grad" in query:
        for x in potentials:
            x.requires_grad_()
        return grad
    queries = {
        "tree_logz": lambda: (pcfg.log_partition(*potentials),),
        "tree_viterbi": lambda: (pcfg.argmax(*potentials),),
        "tree_sample": lambda: (pcfg.sample(*potentials, num_samples=1, seed=next(seeds))[0],),
    }
    return queries[query]
