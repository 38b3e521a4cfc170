"""Every query of the chain under one name, and helpers to compare what they return."""

import torch

from structlv.ops import chain as ops

QUERIES = {
    "log_partition": ops.log_partition,
    "marginals": ops.marginals,
    "edges": lambda *x: ops.marginals(*x, edges=True),
    "state_marginals": ops.state_marginals,
    "argmax": ops.argmax,
    "max_marginals": ops.max_marginals,
    "topk": lambda *x: ops.topk(*x, k=2),
    "sample": lambda *x: ops.sample(*x, num_samples=2, seed=3),
    "filter": ops.filter,
    "score": lambda u, *x: ops.score(torch.zeros(2, *u.shape[:-1], dtype=torch.long), u, *x),
}


def same(found, expected):
    """The same values up to float64 rounding, infinities included; a NaN fails."""
    found, expected = (x if isinstance(x, tuple) else (x,) for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isinf(), b.isinf())
        finite = a.isfinite()
        assert torch.allclose(a[finite].double(), b[finite].double(), atol=1e-12, rtol=1e-12)
        assert not a.isnan().any()


def flatten(x):
    """The tensors of nested tuples."""
    return [x] if isinstance(x, torch.Tensor) else [z for y in x for z in flatten(y)]


def gradient(case, leaves):
    """The gradient of the summed log-partition."""
    return torch.autograd.grad(ops.log_partition(*case).sum(), leaves)
