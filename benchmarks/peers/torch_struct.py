"""torch-struct's LinearChainCRF: one (K,K) table per step, destination first, with all scores folded in."""

from __future__ import annotations

import torch
from torch_struct import LinearChainCRF

PACKAGES = ("torch-struct", "torch", "numpy")


def potentials(unary, transition):
    edges = transition.transpose(-1, -2) + unary[:, 1:, :, None]
    first = torch.nn.functional.pad(unary[:, :1, None, :], (0, 0, 0, 0, 0, unary.shape[1] - 2))
    return edges + first


def path(parts):
    """One-hot parts (B,T-1,K,K), destination first -> states (B,T)."""
    return torch.cat([parts[:, :1].sum(-2).argmax(-1), parts.sum(-1).argmax(-1)], 1)


def prepare(query, inputs):
    unary, transition = (torch.from_numpy(inputs[name]).requires_grad_() for name in ("unary", "transition"))

    def chain():
        return LinearChainCRF(potentials(unary, transition))

    def logz():
        with torch.no_grad():
            scores = potentials(unary, transition)
        return (LinearChainCRF(scores).partition.detach(),)

    def logz_grad():
        log_z = chain().partition
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), (unary, transition))

    def dense_grad():
        log_z = LinearChainCRF(transition.transpose(-1, -2)).partition
        return log_z.detach(), torch.autograd.grad(log_z.sum(), transition)[0]

    def marginals():
        parts = chain().marginals.detach()
        return (torch.cat([parts[:, :1].sum(-2), parts.sum(-1)], 1),)

    def viterbi():
        return (path(chain().argmax.detach()),)

    def sample():
        return (path(chain().sample((1,))[0].detach()),)

    queries = {"logz": logz, "logz_grad": logz_grad, "dense_grad": dense_grad}
    return (queries | {"marginals": marginals, "viterbi": viterbi, "sample": sample})[query]
