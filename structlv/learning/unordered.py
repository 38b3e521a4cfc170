"""Sets drawn without replacement, whatever their order: how much each structure of a set counts."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 16  # structures in a set: all of its subsets are visited


def leave_one_out(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """How much each structure s of a set S counts that was drawn without replacement from all structures D.

    p(s) R(S, s), (k, *b), and what the others count given that s was drawn first, p(s') R^{D - s}(S, s'),
    (k, k, *b) with s in front; p(s) for s' = s. R(S, s) = P(S | s drawn first) / P(S) is the leave-one-out
    ratio, R^{D - s} the same of S without s among D without s. Kool, van Hoof and Welling (2020), "Estimating
    gradients for discrete random variables by sampling without replacement", sections 3 and 4. Exact: with
    U(A) the probability that the rest of S is drawn next once A has been, P(S) = U({}), P(S | s first) =
    U({s}), and

        U(A) = sum over i in S - A of p_i U(A + i) / (1 - p(A)),    U(S) = 1.

    O(2^k k) time and memory 2^k for each item, in float64 and logarithms, whose p_i cancel in what is wanted.

    Args:
        log_prob: (k, *b), -inf where the set has no more structures: then it is all of D.
    """
    p = log_prob.detach().double()
    absent = p == -torch.inf
    total = p.logsumexp(0).clamp(max=0.0)
    rest = torch.where(absent.any(0), -torch.inf, (-total.expm1()).log())
    table = _orders(p, rest)
    bit = 1 << torch.arange(len(p), device=p.device).reshape(-1, *[1] * (p.dim() - 1))
    start = (absent * bit).sum(0, keepdim=True)  # those that are not there count as drawn
    pair = (start | bit).unsqueeze(1) | bit
    none, one = table.gather(0, start), table.gather(0, start | bit)
    two = table.gather(0, pair.flatten(0, 1)).reshape(pair.shape)
    weights = (one - none).exp().masked_fill(absent, 0.0)
    others = (two - one.unsqueeze(1)).exp()
    own = torch.eye(len(p), dtype=torch.bool, device=p.device).reshape(pair.shape[:2] + (1,) * (p.dim() - 1))
    others = torch.where(own, p.exp().unsqueeze(1), others)
    return weights, others.masked_fill(absent.unsqueeze(0) | absent.unsqueeze(1), 0.0)


def _orders(log_p: Tensor, rest: Tensor) -> Tensor:
    """log U(A) less the sum of log p_i over S - A, for every A, (2^k, *b): bit i of A's number says whether i
    is in it. ``rest`` (*b) is the log-probability of what is not in S.
    """
    left = rest.unsqueeze(0)  # log(1 - p(A)), as a sum of what is not in A: it does not cancel
    for p in log_p:
        left = torch.cat([torch.logaddexp(left, p), left])
    bits = torch.arange(len(log_p), device=rest.device)
    has = (torch.arange(len(left), device=rest.device).unsqueeze(-1) >> bits) & 1
    table = torch.zeros_like(left)
    for size in range(len(log_p) - 1, -1, -1):
        (subsets,) = (has.sum(-1) == size).nonzero(as_tuple=True)
        missing = (has[subsets] == 0).nonzero()[:, 1].reshape(len(subsets), -1)
        table[subsets] = table[subsets.unsqueeze(-1) + (1 << missing)].logsumexp(1) - left[subsets]
    return table
