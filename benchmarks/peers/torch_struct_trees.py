"""torch-struct's SentCFG, which gives parts and no trees."""

from __future__ import annotations

import torch
from torch_struct import SentCFG


def prepare(query, inputs):
    root, rules, unary = (
        torch.from_numpy(inputs[name]).requires_grad_() for name in ("root", "rules", "unary")
    )

    def distribution():
        own = rules if rules.dim() == 4 else rules.expand(len(root), *rules.shape)
        return SentCFG((unary, own, root))

    def logz():
        return (distribution().partition.detach(),)

    def grad():
        log_z = distribution().partition
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), (root, rules, unary))

    def viterbi():
        terms, rules, roots = distribution().argmax[:3]
        return roots, rules, terms

    if query == "tree_sample":
        raise NotImplementedError("SentCFG.sample raises")
    return {"tree_logz": logz, "tree_viterbi": viterbi}.get(query, grad)
