"""What a strong PyTorch user writes by hand: products of spans shifted by their maxima, one log a span.

Preterminal and nonterminal children are kept apart, so that no product runs over impossible pairs; the
gradient is autograd's.
"""

from __future__ import annotations

import torch


def log_partition(root, rules, unary):
    """root (B,NT), rules (B,NT,S,S), unary (B,n,T) natural-log potentials, n >= 3 -> log Z (B)."""
    words, nonterminals = unary.shape[1], root.shape[1]
    wide, narrow = slice(0, nonterminals), slice(nonterminals, rules.shape[-1])
    weights = rules.exp()

    def matrix(left, right):
        """(B, left*right, NT): the rules with children of these kinds."""
        return weights[:, :, left, right].flatten(2).transpose(1, 2).contiguous()

    both, first, second, neither = (
        matrix(*kinds) for kinds in ((wide, wide), (narrow, wide), (wide, narrow), (narrow, narrow))
    )

    def combine(left, right, products):
        """Parents (B,m,NT) of m pairs of children at one split each."""
        a, b = left.amax(-1, keepdim=True), right.amax(-1, keepdim=True)
        pairs = (left - a).exp().unsqueeze(-1) * (right - b).exp().unsqueeze(-2)
        return pairs.flatten(2).bmm(products).log() + a + b

    spans = {2: combine(unary[:, :-1], unary[:, 1:], neither)}
    for width in range(3, words + 1):
        count = words - width + 1
        parents = [
            combine(spans[width - 1][:, :count], unary[:, width - 1 :], second),
            combine(unary[:, :count], spans[width - 1][:, 1 : 1 + count], first),
        ]
        if width > 3:
            splits = range(2, width - 1)
            left = torch.stack([spans[k][:, :count] for k in splits], 2)
            right = torch.stack([spans[width - k][:, k : k + count] for k in splits], 2)
            parents.append(_inner(left, right, both))
        spans[width] = torch.logsumexp(torch.stack(parents), 0)
    return torch.logsumexp(spans[words][:, 0] + root, -1)


def _inner(left, right, products):
    """Children (B,m,splits,NT) of more than one word each: one product over splits, one over the rules."""
    a, b = left.amax(-1, keepdim=True), right.amax(-1, keepdim=True)
    top = (a + b).amax(2, keepdim=True)
    pairs = ((left - a).exp() * (a + b - top).exp()).transpose(2, 3) @ (right - b).exp()
    return pairs.flatten(2).bmm(products).log() + top[:, :, 0]


def prepare(query, inputs):
    potentials = [torch.from_numpy(inputs[name]) for name in ("root", "rules", "unary")]

    def batched():
        root, rules, unary = potentials
        return root, rules.expand(len(root), *rules.shape[-3:]), unary

    def logz():
        with torch.no_grad():
            return (log_partition(*batched()),)

    def grad():
        log_z = log_partition(*batched())
        return log_z.detach(), *torch.autograd.grad(log_z.sum(), potentials)

    if query == "tree_logz":
        return logz
    if "grad" not in query:
        raise NotImplementedError("only log-partition and gradient")
    for x in potentials:
        x.requires_grad_()
    return grad
