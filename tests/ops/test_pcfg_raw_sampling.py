"""Samples of trees: their frequencies, and each choice as the random numbers decide it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlv.ops import chain as _registers_the_operators  # noqa: F401
from structlv.reference.philox import philox
from tests.ops.trees import INF, NT, Grammar, grammar, probabilities, ranked, trees

pytestmark = pytest.mark.usefixtures("native")
raw = torch.ops.structlv
SEED = 0x1234_5678_9ABC


@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_frequencies(holes):
    g, samples = grammar(n=4, batch=(4,), shared=False, holes=holes), 4000
    found = raw.pcfg_sample(*g, samples, SEED)
    events = trees(4)[0]
    for b in range(4):
        p = probabilities(g.item(b))
        where = (found[:, b, None] == events).all(-1).all(-1)
        assert bool((where.sum(-1) == int(p.any())).all())
        counts = where.sum(0).double()
        assert bool((counts[p == 0] == 0).all())
        sigma = (samples * p * (1 - p)).sqrt()
        assert bool(((counts - samples * p).abs() <= 5 * sigma + 3).all())


def words(place: int, item: int, sample: int, stream: int, dtype: torch.dtype) -> list[float]:
    counter = tuple(torch.tensor(x) for x in (place, item, sample, stream))
    four = philox(counter, (SEED & 0xFFFFFFFF, SEED >> 32))
    return (four * 2.0**-32 if dtype == torch.float64 else (four >> 8) * 2.0**-24).tolist()


def decides(u: float, weights: Tensor, choice: int) -> bool:
    """Whether `u` falls into the share of the choice, but for rounding."""
    below = weights[:choice].sum() / weights.sum()
    return bool(below - 1e-6 <= u <= below + weights[choice] / weights.sum() + 1e-6)


def weight(g: Grammar, i: int, j: int, symbol: int) -> float:
    """The sum over the trees of a node; 0 for a symbol that cannot stand there."""
    if (i == j) != (symbol >= NT):
        return 0.0
    alternatives = torch.tensor([score for score, _ in ranked(g, i, j, symbol)], dtype=torch.float64)
    return float(alternatives.exp().sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_choices(dtype):
    g = grammar(n=4, batch=(2,), holes=0.1, dtype=dtype)
    for s, per_item in enumerate(raw.pcfg_sample(*g, 6, SEED).tolist()):
        for b, event in enumerate(per_item):
            check(g.item(b), event, b, s, dtype)


def check(g: Grammar, event: list[list[int]], b: int, s: int, dtype: torch.dtype) -> None:
    symbols = g.rules.shape[-1]
    top = torch.tensor([float(g.root[a].double().exp()) * weight(g, 0, 3, a) for a in range(NT)])
    assert decides(words(0, b, s, 2, dtype)[0], top, event[0][2])
    for row, (i, j, a) in enumerate(event):
        if i == j:
            continue
        table = torch.tensor(
            [
                [
                    [
                        weight(g, i, k, y) * float(g.rules[a, y, z].double().exp()) * weight(g, k + 1, j, z)
                        for z in range(symbols)
                    ]
                    for y in range(symbols)
                ]
                for k in range(i, j)
            ]
        )
        k, y = event[row + 1][1], event[row + 1][2]
        z = next(z for left, end, z in event[row + 1 :] if (left, end) == (k + 1, j))
        u = words(j * (j + 1) // 2 + i, b, s, 1, dtype)
        inner, leaf = slice(NT), slice(NT, None)
        left, right = (leaf if symbol >= NT else inner for symbol in (y, z))
        pairs = table.sum(0)
        kinds = [pairs[a, b].sum() for a in (inner, leaf) for b in (inner, leaf)]
        assert decides(u[0], torch.stack(kinds), 2 * (y >= NT) + (z >= NT))
        pairs = pairs[left, right]
        y, z, first = y - (left.start or 0), z - (right.start or 0), (y < NT <= z)
        if first:  # the right child alone is a word: it is drawn after its sibling
            assert decides(u[1], pairs.sum(1), y)
            assert decides(u[2], pairs[y], z)
        else:
            assert decides(u[2], pairs.sum(0), z)
            assert decides(u[1], pairs[:, z], y)
        assert decides(u[3], table[:, left, right][:, y, z], k - i)


def test_a_sample_does_not_depend_on_the_others():
    g = grammar(n=4, batch=(5,), lengths=torch.tensor([4, 0, 3, 1, 2]))
    found = raw.pcfg_sample(*g, 3, SEED)
    assert bool((found[:, [1, 3]] == -1).all())
    alone = raw.pcfg_sample(g.root, g.rules, g.unary[:1], g.spans, None, 2, SEED)
    assert torch.equal(alone[:, 0], found[:2, 0])
    padded = torch.cat([g.unary, g.unary.new_full((5, 2, 2), torch.nan)], 1)
    table = torch.nn.functional.pad(g.spans, (0, 0, 0, 2, 0, 2), value=torch.nan)
    assert torch.equal(raw.pcfg_sample(g.root, g.rules, padded, table, g.lengths, 3, SEED)[:, :, :7], found)


def test_no_tree_gives_no_sample():
    g = grammar(n=3, batch=(2,), spans=None)
    g.unary[0, 1] = -INF
    found = raw.pcfg_sample(*g, 4, SEED)
    assert bool((found[:, 0] == -1).all())
    assert bool((found[:, 1] >= 0).all())
    assert raw.pcfg_sample(*g, 0, SEED).shape == (0, 2, 5, 3)
    with pytest.raises(RuntimeError, match="num_samples: expected a number >= 0, found -1"):
        raw.pcfg_sample(*g, -1, SEED)
