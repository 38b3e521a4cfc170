"""torch-struct has the same log Z and marginals; the recipes of docs/migrating.md are right."""

from __future__ import annotations

import warnings

import pytest
import torch

from structlv import BinaryTree, LinearChain, TreePosterior
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


@pytest.mark.filterwarnings("ignore")
def test_edges_are_the_recipe_for_chains() -> None:
    edges, lengths = torch.randn(3, 5, 4, 4, dtype=torch.float64), torch.tensor([6, 2, 4])
    theirs = torch_struct.LinearChainCRF(edges.clone(), lengths=lengths)
    found = LinearChain(torch.zeros(3, 6, 4, dtype=torch.float64), edges.mT, lengths=lengths)
    assert_nats(found.log_partition(), theirs.partition.detach())
    assert_probabilities(found.edge_marginals().mT, theirs.marginals.detach())
    assert_nats(found.entropy(), theirs.entropy.detach())
    best = theirs.from_event(theirs.argmax)[0]
    assert all(torch.equal(a[:n], b[:n]) for a, b, n in zip(found.argmax(), best, lengths, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_trees_of_other_lengths() -> None:
    lengths = torch.tensor([6, 3])
    terms, rules, root = (torch.randn(2, *s, dtype=torch.float64) for s in ((6, 3), (2, 5, 5), (2,)))
    theirs = torch_struct.SentCFG((terms, rules, root), lengths=lengths)
    assert_nats(TreePosterior(root, rules, terms, lengths=lengths).log_partition(), theirs.partition.detach())
    spans = torch.randn(2, 6, 6, 3, dtype=torch.float64)
    expected = torch_struct.TreeCRF(spans, lengths=lengths).partition.detach()
    assert_nats(BinaryTree(spans, lengths=lengths).log_partition(), expected)
