"""What a strong PyTorch user writes by hand: one product a chain and step, in the scaled linear domain.

One exp per joint score, one log a step; the gradient is autograd's.
"""

from __future__ import annotations

import torch

from benchmarks.factorials import transitions


def log_partition(unary, matrices):
    """unary (B,T,S), matrices of (k,k), natural-log potentials -> log Z (B)."""
    sizes = [len(x) for x in matrices]
    top = unary.amax(-1, keepdim=True)
    likelihood = (unary - top).exp().unbind(1)
    weights = [x.exp() for x in matrices]
    alpha, scales = likelihood[0], []
    for t in range(unary.shape[1]):
        if t:
            alpha = alpha.unflatten(-1, sizes)
            for weight in weights:  # the first chain's axis becomes the last, m times
                alpha = torch.tensordot(alpha, weight, dims=([1], [0]))
            alpha = alpha.flatten(1) * likelihood[t]
        scales.append(alpha.sum(-1, keepdim=True))
        alpha = alpha / scales[-1]
    return torch.cat(scales, -1).log().sum(-1) + top.sum((1, 2))


def prepare(query, inputs):
    unary, matrices = torch.from_numpy(inputs["unary"]), [torch.from_numpy(x) for x in transitions(inputs)]

    def logz():
        with torch.no_grad():
            return (log_partition(unary, matrices),)

    def grad():
        log_z = log_partition(unary, matrices)
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), (unary, *matrices))

    if query == "factorial_logz":
        return logz
    if query != "factorial_grad":
        raise NotImplementedError("only log-partition and gradient")
    for x in (unary, *matrices):
        x.requires_grad_()
    return grad
