"""What a strong PyTorch user writes by hand: the scaled linear domain, one exp per score, one product per
step.

Nothing here goes through autograd: the backward recursion is written out.
"""

from __future__ import annotations

import torch

PACKAGES = ("torch", "numpy")


class Chain:
    """Queries of one shared transition matrix (K,K) and unary (B,T,K), both natural-log potentials."""

    def __init__(self, unary, transition):
        self.unary = torch.from_numpy(unary)
        self.transition = torch.from_numpy(transition)

    def likelihoods(self):
        """-> (T,B,K) shifted by their maxima, and the sum of those maxima (B)."""
        shift = self.unary.amax(-1, keepdim=True)
        return (self.unary - shift).exp_().transpose(0, 1).contiguous(), shift.sum((1, 2))

    def forward(self, likelihoods, matrix):
        """-> normalised alphas (T,B,K) and their scales (T,B,1)."""
        alphas, scales = torch.empty_like(likelihoods), likelihoods.new_empty(*likelihoods.shape[:2], 1)
        alpha = likelihoods[0]
        for t in range(len(likelihoods)):
            if t:
                alpha = torch.mm(alphas[t - 1], matrix).mul_(likelihoods[t])
            torch.sum(alpha, -1, keepdim=True, out=scales[t])
            torch.div(alpha, scales[t], out=alphas[t])
        return alphas, scales

    def backward(self, alphas, likelihoods, scales, matrix):
        """-> marginals (T,B,K) and e_{t+1} * beta_{t+1} / scale (T-1,B,K)."""
        scaled, transposed = likelihoods / scales, matrix.t().contiguous()
        marginals, messages = torch.empty_like(alphas), torch.empty_like(alphas[1:])
        beta = torch.ones_like(alphas[0])
        marginals[-1] = alphas[-1]
        for t in range(len(alphas) - 2, -1, -1):
            torch.mul(scaled[t + 1], beta, out=messages[t])
            beta = torch.mm(messages[t], transposed)
            torch.mul(alphas[t], beta, out=marginals[t])
        return marginals, messages

    def logz(self):
        likelihoods, shift = self.likelihoods()
        _, scales = self.forward(likelihoods, self.transition.exp())
        return (scales.log().sum((0, 2)) + shift,)

    def logz_grad(self):
        likelihoods, shift = self.likelihoods()
        matrix = self.transition.exp()
        alphas, scales = self.forward(likelihoods, matrix)
        marginals, messages = self.backward(alphas, likelihoods, scales, matrix)
        edges = alphas[:-1].flatten(0, 1).t().mm(messages.flatten(0, 1)).mul_(matrix)
        return scales.log().sum((0, 2)) + shift, marginals.transpose(0, 1), edges

    def marginals(self):
        likelihoods, _ = self.likelihoods()
        matrix = self.transition.exp()
        alphas, scales = self.forward(likelihoods, matrix)
        return (self.backward(alphas, likelihoods, scales, matrix)[0].transpose(0, 1),)

    def viterbi(self):
        best, pointers, by_target = self.unary[:, 0], [], self.transition.t().contiguous()
        for scores in self.unary.unbind(1)[1:]:
            best, pointer = (best[:, None, :] + by_target).max(-1)
            best = best + scores
            pointers.append(pointer)
        states = [best.argmax(-1)]
        for pointer in reversed(pointers):
            states.append(pointer.gather(1, states[-1][:, None])[:, 0])
        return (torch.stack(states[::-1], 1),)

    def sample(self):
        likelihoods, _ = self.likelihoods()
        matrix = self.transition.exp()
        alphas, _ = self.forward(likelihoods, matrix)
        uniform, into = torch.rand(*alphas.shape[:2], 1, dtype=alphas.dtype), matrix.t().contiguous()
        states, weights = [], alphas[-1]
        for t in range(len(alphas) - 1, -1, -1):
            cumulative = weights.cumsum(-1)
            drawn = torch.searchsorted(cumulative, uniform[t] * cumulative[:, -1:], right=True)
            states.append(drawn[:, 0].clamp_(max=alphas.shape[-1] - 1))
            weights = alphas[t - 1] * into[states[-1]]
        return (torch.stack(states[::-1], 1),)


def dense_grad(transition):
    """transition (B,T-1,K,K) -> log Z (B) and the edge marginals, which are its gradient."""
    shift = transition.amax((2, 3), keepdim=True)
    matrices = (transition - shift).exp_()
    steps = matrices.unbind(1)
    alphas, scales, messages = (
        [torch.ones_like(matrices[:, 0, :1])],
        [],
        [torch.ones_like(matrices[:, 0, :, :1])],
    )
    for matrix in steps:
        alpha = torch.bmm(alphas[-1], matrix)
        scales.append(alpha.sum(-1, keepdim=True))
        alphas.append(alpha.div_(scales[-1]))
    for matrix, scale in zip(reversed(steps), reversed(scales), strict=True):
        messages.append(torch.bmm(matrix, messages[-1].div_(scale)))
    left, right = torch.stack(alphas[:-1], 1), torch.stack(messages[-2::-1], 1)
    marginals = matrices.mul_(left.transpose(-1, -2)).mul_(right.transpose(-1, -2))
    return torch.cat(scales, -1).log().sum((1, 2)) + shift.sum((1, 2, 3)), marginals


def prepare(query, inputs):
    if query == "dense_grad":
        transition = torch.from_numpy(inputs["transition"])
        return lambda: dense_grad(transition)
    return torch.no_grad()(getattr(Chain(**inputs), query))
