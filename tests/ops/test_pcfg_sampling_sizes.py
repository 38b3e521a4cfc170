"""Samples of trees with many symbols, many at once, and of long sentences: those of the reference."""

from __future__ import annotations

import pytest
import torch

from structlv import reference
from structlv.ops import chain as _registers_the_operators  # noqa: F401
from tests.cases import pcfg

pytestmark = pytest.mark.usefixtures("native")
raw = torch.ops.structlv
SEED = 0x1234_5678_9ABC


@pytest.mark.parametrize("holes", [0.0, 0.2])
@pytest.mark.parametrize("symbols", [(70, 3), (3, 70), (33, 129), (17, 20)])
def test_many_symbols(symbols, holes):
    """More alternatives than a vector has, and than a word of bits."""
    g = pcfg(batch=(2,), n=5, symbols=symbols, holes=holes, seed=3)
    assert torch.equal(raw.pcfg_sample(*g, 20, SEED), reference.pcfg.sample(*g, num_samples=20, seed=SEED))


def test_many_samples_of_a_long_sentence():
    """More samples than grow together; too many spans to keep their sums over splits."""
    g = pcfg(batch=(1,), n=30, symbols=(80, 2), ragged=False, seed=4)
    found = raw.pcfg_sample(*g, 300, SEED)
    assert torch.equal(found[:2], reference.pcfg.sample(*g, num_samples=2, seed=SEED))
    assert torch.equal(found[:270], raw.pcfg_sample(*g, 270, SEED))
    assert bool((found >= 0).all())
