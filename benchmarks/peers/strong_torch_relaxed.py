"""Relaxed samples over torch's operations: a scaled forward pass, everything else by autograd."""

from __future__ import annotations

import torch

from benchmarks.relaxed import TEMPERATURE

PACKAGES = ("torch", "numpy")


def gumbel(like):
    return torch.empty_like(like).exponential_().log_().neg_()


def forward(unary, transition):
    """-> normalised alphas, T of (B,K), and log Z of each sequence."""
    shift = unary.detach().amax(-1, keepdim=True)
    steps, matrix = (unary - shift).exp().unbind(1), transition.exp()
    alphas, scales = [], []
    for t, e in enumerate(steps):
        alpha = (alphas[-1] @ matrix) * e if t else e
        scales.append(alpha.sum(-1, keepdim=True))
        alphas.append(alpha / scales[-1])
    return alphas, torch.cat(scales, -1).log().sum(-1) + shift.sum((1, 2))


def softmax(unary, transition, noise):
    perturbed = (unary + noise) / TEMPERATURE
    _, log_z = forward(perturbed, transition / TEMPERATURE)
    return torch.autograd.grad(log_z.sum(), perturbed, create_graph=True)[0]


def gumbel_crf(unary, transition, noise):
    alphas, _ = forward(unary, transition)
    relaxed, follows, into = [], 0, transition.t()
    for t in range(len(alphas) - 1, -1, -1):
        scores = alphas[t].log() + follows + noise[:, t]
        relaxed.append(torch.softmax(scores / TEMPERATURE, -1))
        follows = into[scores.detach().argmax(-1)]
    return torch.stack(relaxed[::-1], 1)


def prepare(query, inputs):
    unary, transition, weight = (torch.from_numpy(inputs[x]) for x in ("unary", "transition", "weight"))
    unary.requires_grad_(), transition.requires_grad_()
    torch.manual_seed(0)
    relax = {"softmax_grad": softmax, "gumbel_crf_grad": gumbel_crf}[query]

    def call():
        noise = gumbel(unary.detach())
        relaxed = relax(unary, transition, noise)
        return relaxed, *torch.autograd.grad(relaxed, (unary, transition), weight), noise

    return call
