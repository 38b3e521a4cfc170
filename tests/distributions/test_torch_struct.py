"""torch-struct's SentCFG has the same log Z and marginals where all is finite and equally long."""

from __future__ import annotations

import warnings

import pytest
import torch

from structlv import TreePosterior
from tests.tolerance import assert_nats, assert_probabilities

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch_struct = pytest.importorskip("torch_struct")


@pytest.mark.parametrize("size", [(2, 3, 2, 2), (3, 6, 3, 4), (2, 9, 5, 3)])
def test_log_partition_and_marginals_agree(size: tuple[int, int, int, int]) -> None:
    b, n, nonterminals, preterminals = size
    s = nonterminals + preterminals
    shapes = ((b, nonterminals), (b, nonterminals, s, s), (b, n, preterminals))
    root, rules, unary = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    found = TreePosterior(root, rules, unary)
    copies = [x.clone().requires_grad_() for x in (unary, rules, root)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log_z = torch_struct.SentCFG(tuple(copies)).partition
        gradients = torch.autograd.grad(log_z.sum(), copies)
    assert_nats(found.log_partition(), log_z.detach())
    marginals = found.marginals()
    for mine, theirs in zip((marginals.unary, marginals.rules, marginals.root), gradients, strict=True):
        assert_probabilities(mine, theirs)
