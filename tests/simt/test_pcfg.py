"""The emulated kernels of dense trees beside the CPU's: the same numbers, whatever the schedule.

The ordinary tests of the operators run on the emulated kernels too: ``make test-cuda``.
"""

import pytest
import torch

from structlv import reference
from tests.simt import emulated
from tests.simt.grammars import assert_the_same, assert_the_same_second_order, both
from tests.tolerance import assert_second_order

pytestmark = pytest.mark.skipif(
    not emulated.LIBRARY.exists(), reason="make test-cuda builds the emulated kernels"
)
EDGES_OF_A_WARP = ((1, 1), (2, 31), (31, 2), (1, 32), (33, 1), (3, 64))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def grammar(nt, t, n, batch=(3,), dtype=torch.float64, shared=True, labels=1):
    g = torch.Generator().manual_seed(nt + t)
    lead, s = () if shared else batch, nt + t

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

    rules = normal(*lead, nt, s, s)
    rules[torch.rand(rules.shape, generator=g) < 0.1] = -torch.inf
    lengths = torch.tensor([n, 2, n - 1])[: batch[0]]
    return normal(*lead, nt), rules, normal(*batch, n, t), normal(*lead, n, n, labels), lengths


@pytest.mark.parametrize(("nt", "t"), EDGES_OF_A_WARP)
@pytest.mark.parametrize("shared", [True, False])
@DTYPES
def test_the_same_as_on_the_cpu(nt, t, shared, dtype):
    emulated.configure(nt)
    case = grammar(nt, t, 4, dtype=dtype, shared=shared, labels=nt if t > nt else 1)
    assert_the_same("pcfg", case)


@pytest.mark.parametrize("shared", [True, False])
@DTYPES
def test_the_same_trees(shared, dtype):
    emulated.configure(3)
    case = grammar(5, 37, 7, dtype=dtype, shared=shared)
    best, mine = both("pcfg_argmax", *case)
    assert torch.equal(mine, best)
    _, drawn = both("pcfg_sample", *case, 20, 2**40 + 7)
    assert torch.equal(drawn, reference.pcfg.sample(*case, num_samples=20, seed=2**40 + 7))


def test_the_schedule_changes_no_bit():
    case = grammar(3, 4, 5, dtype=torch.float32, shared=False)
    results = []
    for seed in (0, 1, 2, 3):
        emulated.configure(seed)
        results.append((*both("pcfg_marginals", *case, True, True)[1], both("pcfg_argmax", *case)[1]))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@DTYPES
def test_what_the_scaled_domain_cannot_hold_is_done_again_alone(dtype):
    """Words of the middle item are beyond its range; nothing about the others changes."""
    emulated.configure(1)
    case = list(grammar(3, 4, 6, dtype=dtype))
    alone = both("pcfg_marginals", *case, True, True)[1]
    case[2][1] *= 1e3
    assert_the_same("pcfg", case)
    among = both("pcfg_marginals", *case, True, True)[1]
    assert all(torch.equal(a[::2], b[::2]) for a, b in zip(alone, among, strict=True))


def test_many_nonterminals_go_width_by_width():
    emulated.configure(2)
    assert_the_same("pcfg", grammar(34, 2, 5, dtype=torch.float32, shared=False))


def test_long_sentences_go_width_by_width():
    emulated.configure(3)
    assert_the_same("pcfg", grammar(1, 2, 66, dtype=torch.float32))


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
@DTYPES
def test_second_order(shared, labels, dtype):
    """Directions have sharing and labels of their own."""
    emulated.configure(2)
    case = grammar(3, 4, 6, dtype=dtype, shared=shared, labels=labels)
    directions = grammar(3, 4, 6, shared=not shared, labels=4 - labels, dtype=dtype)
    assert_the_same_second_order("pcfg", case, directions[:4])


def test_second_order_of_more_items_than_fit_at_once():
    """The pairs of children of 180 sentences take more than 256 MiB: some begin where others ended."""
    emulated.configure(1)
    case = grammar(1, 200, 2, batch=(180,), dtype=torch.float32)
    case = (*case[:4], None)
    directions = [torch.randn_like(x) for x in case[:4]]
    for a, b in zip(*both("pcfg_hvp", None, *directions, *case), strict=True):
        assert_second_order(b, a, torch.float32)
