"""What the tests of all grammars on a GPU share. `ops` is the module of a family's operators."""

import torch

from tests.tolerance import assert_nats, assert_probabilities


def on(case, device):
    return type(case)(*[None if x is None else x.to(device) for x in case])


def gradient(ops, case, create_graph=False):
    copy, leaves = case.leaves()
    z = ops.log_partition(*copy)
    return leaves, z, torch.autograd.grad(z[z.isfinite()].sum(), leaves, create_graph=create_graph)


def assert_alike(ops, case, device):
    dtype, there = case.unary.dtype, on(case, device)
    assert_nats(ops.log_partition(*there).cpu(), ops.log_partition(*case), dtype)
    for a, b in zip(ops.marginals(*there), ops.marginals(*case), strict=True):
        assert b is None or assert_probabilities(a.cpu(), b, dtype) is None
    for a, b in zip(gradient(ops, there)[2], gradient(ops, case)[2], strict=True):
        assert_probabilities(a.cpu(), b, dtype)
