"""CRF beside pytorch-crf's: the same numbers on every prefix mask; holes in masks are refused."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from structlv import LinearChain
from structlv.models import CRF, Model
from tests.tolerance import assert_nats, assert_probabilities

REDUCTIONS = ["none", "sum", "mean", "token_mean"]


def pair(k: int, batch_first: bool, dtype: torch.dtype = torch.float64) -> tuple[CRF, torch.nn.Module]:
    """Ours and theirs, with the weights of theirs."""
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    ours, theirs = CRF(k, batch_first), torchcrf.CRF(k, batch_first)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def problem(b: int, n: int, k: int, batch_first: bool = True) -> tuple[Tensor, Tensor]:
    emissions, tags = 2 * torch.randn(b, n, k, dtype=torch.float64), torch.randint(k, (b, n))
    return (emissions, tags) if batch_first else (emissions.transpose(0, 1), tags.T)


def prefix_masks(b: int, n: int) -> list[Tensor]:
    """Every mask of b sequences of 1 to n steps, (b, n)."""
    return [
        torch.arange(n) < torch.tensor(lengths)[:, None]
        for lengths in itertools.product(range(1, n + 1), repeat=b)
    ]


def test_the_initialisation_is_the_same() -> None:
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    torch.manual_seed(3)
    theirs = torchcrf.CRF(5).state_dict()
    torch.manual_seed(3)
    ours = CRF(5).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("batch_first", [True, False])
def test_all_prefix_masks_give_the_same_likelihoods_gradients_and_tags(batch_first: bool) -> None:
    b, n, k = 3, 4, 3
    ours, theirs = pair(k, batch_first)
    emissions, tags = problem(b, n, k, batch_first)
    masks = [None, *prefix_masks(b, n)]
    assert len(masks) == 1 + n**b
    for i, mask in enumerate(masks):
        laid_out = mask if mask is None or batch_first else mask.T
        theirs_mask = torch.ones_like(tags, dtype=torch.bool) if laid_out is None else laid_out
        found = []
        for crf, m in ((ours, laid_out), (theirs, theirs_mask)):
            leaf = emissions.clone().requires_grad_()
            value = crf(leaf, tags, m, reduction=REDUCTIONS[i % 4])
            gradients = torch.autograd.grad(value.sum(), [leaf, *crf.parameters()])
            found.append((value, gradients, crf.decode(leaf, m)))
        (a, da, best), (e, de, expected) = found
        assert_nats(a, e)
        for x, y in zip(da, de, strict=True):
            assert_probabilities(x, y)
        assert best == expected


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_byte_masks_and_float32(reduction: str) -> None:
    ours, theirs = pair(7, False, torch.float32)
    emissions, tags = problem(5, 9, 7, False)
    mask = (torch.arange(9)[:, None] < torch.tensor([9, 1, 4, 8, 2])).byte()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(emissions.float(), tags, mask, reduction)
        best = theirs.decode(emissions.float(), mask)
    assert_nats(ours(emissions.float(), tags, mask, reduction), expected, torch.float32)
    assert ours.decode(emissions.float(), mask) == best


def test_padding_may_hold_anything() -> None:
    crf = CRF(4, batch_first=True).double()
    emissions, tags = problem(2, 5, 4)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    expected = crf(emissions, tags, mask, reduction="none")
    emissions[1, 2:], tags[1, 2:] = math.nan, -100
    assert_nats(crf(emissions, tags, mask, reduction="none"), expected)


def test_marginals_and_k_best_agree_with_enumeration() -> None:
    k, n = 3, 3
    crf = CRF(k).double()
    emissions, _ = problem(2, n, k, batch_first=False)
    mask = torch.tensor([[1, 1], [1, 1], [1, 0]])
    nats, best = crf.topk(emissions, 30, mask)
    marginals = crf.marginals(emissions, mask)
    assert marginals.shape == emissions.shape
    for item, length in enumerate((3, 2)):
        paths = list(itertools.product(range(k), repeat=length))
        one = emissions[:length, item : item + 1]
        scores = torch.stack([crf(one, torch.tensor(path)[:, None]) for path in paths])
        assert_nats(scores.logsumexp(0), torch.zeros((), dtype=torch.float64))
        order = scores.argsort(descending=True).tolist()
        assert best[item] == [list(paths[i]) for i in order][:30]
        assert_nats(nats[: len(paths), item], scores[order])
        assert bool((nats[len(paths) :, item] == -math.inf).all())
        for t in range(length):
            share = [scores[[p[t] == tag for p in paths]].exp().sum() for tag in range(k)]
            assert_probabilities(marginals[t, item], torch.stack(share))
    assert bool((marginals[2, 1] == 0).all())
    assert [x[0] for x in best] == crf.decode(emissions, mask)


def test_the_distribution_is_a_chain_that_can_be_conditioned() -> None:
    crf = CRF(3).double()
    emissions, tags = problem(2, 4, 3, batch_first=False)
    chain = crf.distribution(emissions)
    assert isinstance(chain, LinearChain)
    assert_nats(chain.log_prob(tags.T), crf(emissions, tags, reduction="none"))
    with torch.no_grad():
        crf.transitions[0, 1] = -math.inf
    best = crf.decode(emissions)
    assert all((0, 1) not in itertools.pairwise(row) for row in best)


def test_where_nothing_is_possible_no_sequence_is_found() -> None:
    crf = CRF(2, batch_first=True)
    emissions = torch.full((1, 3, 2), -math.inf)
    nats, best = crf.topk(emissions, 2)
    assert best == [[]]
    assert bool((nats == -math.inf).all())
    assert crf(emissions, torch.zeros(1, 3, dtype=torch.int64)) == -math.inf


@pytest.mark.parametrize("batch_first", [True, False])
def test_packed_emissions(batch_first: bool) -> None:
    crf = CRF(4, batch_first).double()
    emissions, tags = problem(3, 5, 4)
    lengths = torch.tensor([2, 5, 3])
    mask = torch.arange(5) < lengths[:, None]
    packed = pack_padded_sequence(emissions, lengths, batch_first=True, enforce_sorted=False)
    packed_tags = pack_padded_sequence(tags, lengths, batch_first=True, enforce_sorted=False)
    padded = (emissions, tags, mask) if batch_first else (emissions.transpose(0, 1), tags.T, mask.T)
    expected = crf(*padded, reduction="none")
    assert_nats(crf(packed, packed_tags, reduction="none"), expected)
    assert_nats(crf(packed, padded[1], reduction="none"), expected)
    assert crf.decode(packed) == crf.decode(padded[0], padded[2])
    assert_probabilities(crf.marginals(packed), crf.marginals(padded[0], padded[2]))


def test_mixed_precision_is_computed_in_the_wider() -> None:
    crf = CRF(3)
    emissions, tags = problem(2, 4, 3, batch_first=False)
    assert crf(emissions.bfloat16(), tags).dtype == torch.float32
    assert crf(emissions, tags).dtype == torch.float64
    half = CRF(3).bfloat16()
    assert bool(half(emissions.bfloat16(), tags).isfinite())


def test_it_compiles_and_is_saved(tmp_path) -> None:
    crf = CRF(3, batch_first=True)
    crf.save(tmp_path / "crf")
    loaded = Model.load(tmp_path / "crf")
    assert isinstance(loaded, CRF)
    assert loaded.batch_first
    assert torch.equal(loaded.transitions, crf.transitions)
    emissions, tags = problem(2, 4, 3)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    exported = torch.compile(crf, backend="eager", fullgraph=True)
    assert_nats(exported(emissions.float(), tags, mask), crf(emissions.float(), tags, mask))


E, T = torch.zeros(4, 2, 3), torch.zeros(4, 2, dtype=torch.int64)
HOLE = torch.tensor([[1, 1], [0, 1], [1, 1], [0, 0]]).bool()
REFUSED = {
    "a hole": ((E, T, HOLE), "found a 1 after a 0"),
    "no first step": ((E, T, HOLE.flip(0)), "at the first step"),
    "mask of another shape": ((E, T, HOLE.T), "mask must have"),
    "tags of another shape": ((E, T.T), r"tags must have .* \(4, 2\), found \(2, 4\)"),
    "tag out of range": ((E, T + 3), "0..2|-1..2"),
    "NaN": ((E * math.nan, T), "NaN in unary"),
    "other tags": ((torch.zeros(4, 2, 5), T), r"\(n, b, k\) with k = 3, found .*\(4, 2, 5\)"),
    "two dimensions": ((E[0], T), r"\(n, b, k\)"),
    "reduction": ((E, T, None, "max"), "reduction must be one of none, sum, mean, token_mean, found 'max'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_name_what_was_expected_and_found(name: str) -> None:
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        CRF(3)(*arguments)


def test_holes_are_refused_by_decode_too() -> None:
    with pytest.raises(ValueError, match="found a 1 after a 0"):
        CRF(3).decode(E, HOLE)
    with pytest.raises(TypeError, match="mask must be a tensor of integers"):
        CRF(3).decode(E, HOLE.float())
    with pytest.raises(ValueError, match="num_tags"):
        CRF(0)
