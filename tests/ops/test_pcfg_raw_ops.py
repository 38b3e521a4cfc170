"""The tree operators as ``torch.ops`` has them, against every tree of small grammars."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlv.ops import chain as _registers_the_operators  # noqa: F401
from tests.ops.trees import (
    INF,
    NT,
    Grammar,
    S,
    T,
    best,
    build,
    expected_parts,
    grammar,
    in_shape,
    items,
    mean,
    parts,
    probabilities,
    scores,
    split,
    trees,
    vector,
)
from tests.tolerance import assert_nats, assert_probabilities, assert_second_order

pytestmark = pytest.mark.usefixtures("native")
raw = torch.ops.structlv
CASES = {
    "two words": {"n": 2},
    "three words": {"n": 3, "spans": None},
    "four words": {"shared": False},
    "float32": {"dtype": torch.float32, "shared": False},
    "one score a span": {"spans": "one"},
    "one score a span, own": {"spans": "one", "shared": False},
    "forbidden": {"holes": 0.25},
    "hardly anything": {"holes": 0.6, "shared": False},
    "ragged": {"batch": (5,), "lengths": torch.tensor([4, 3, 2, 1, 0])},
    "ragged, own": {"batch": (5,), "lengths": torch.tensor([-3, 9, 2, 3, 1]), "shared": False, "holes": 0.2},
    "two batch dimensions": {"batch": (2, 2), "n": 3},
    "ties": {"whole": True, "n": 4, "batch": (6,)},
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@cases
def test_log_partition(case):
    g = build(case)
    z = torch.full(g.unary.shape[:-2], -INF, dtype=torch.float64)
    for index, one in items(g):
        z[index] = z[index] if one is None else scores(one).logsumexp(0)
    assert_nats(raw.pcfg_log_partition(*g, True), z, g.unary.dtype)
    log_z, _ = raw.pcfg_inside(*g, False)
    assert log_z.dtype == g.unary.dtype
    assert_nats(log_z, z)


@cases
def test_marginals(case):
    g = build(case)
    expected = expected_parts(g, torch.ones(g.unary.shape[:-2]), mean)
    found = raw.pcfg_marginals(*g, True, True)
    for x, y in zip(found, expected, strict=True):
        assert_probabilities(x, y)
    for x, y, size in zip(raw.pcfg_marginals(*g, False, False), found, (1, 0, 1, 0), strict=True):
        assert torch.equal(x, y) if size else x.shape == (0,)


@cases
def test_vjp(case):
    g = build(case)
    weight = torch.randn(g.unary.shape[:-2], dtype=g.unary.dtype)
    found = raw.pcfg_vjp(weight, raw.pcfg_inside(*g, False)[1], *g)
    for x, y in zip(found, in_shape(expected_parts(g, weight, mean), g), strict=False):
        assert x.shape == y.shape
        assert_probabilities(x, y)
    assert g.spans is not None or found[3].shape == (0,)


@cases
@pytest.mark.parametrize("shared", [True, False])
def test_hvp_is_the_covariance_with_the_direction(case, shared):
    g = build(case)
    v = build({**case, "holes": 0.0, "shared": shared, "lengths": None})
    weight = torch.randn(g.unary.shape[:-2], dtype=g.unary.dtype)

    def covariance(one: Grammar, index: tuple[int, ...]) -> Tensor:
        n = one.unary.shape[0]
        direction = vector(v._replace(lengths=torch.full(g.unary.shape[:-2], n)).item(*index))
        counts, p = trees(n)[1], probabilities(one)
        f = counts @ direction
        means[index] = p @ f
        return (p * (f - p @ f)) @ counts

    means = torch.zeros(g.unary.shape[:-2], dtype=torch.float64)
    expected = in_shape(expected_parts(g, weight, covariance), g)
    f, *found = raw.pcfg_hvp(weight, *v[:4], *g)
    assert_second_order(f, means)
    for x, y in zip(found, expected, strict=False):
        assert x.shape == y.shape
        assert_second_order(x, y)


def test_hvp_of_minus_infinity_is_zero():
    """The derivative of the entropy has the potentials themselves as its direction."""
    g = grammar(holes=0.3)
    finite = Grammar(*[x.masked_fill(x == -INF, 0.0) for x in g.potentials])
    for x, y in zip(raw.pcfg_hvp(None, *g[:4], *g), raw.pcfg_hvp(None, *finite[:4], *g), strict=True):
        assert torch.equal(x, y)


@cases
def test_argmax_and_k_best(case):
    g, k = build(case), 40
    found, n = raw.pcfg_topk(*g, k), g.unary.shape[-2]
    for index, one in items(g):
        mine = found[(slice(None), *index)]
        expected = torch.full((k, 2 * n - 1, 3), -1)
        if one is not None:
            expected[:, : 2 * one.unary.shape[0] - 1] = best(one, k)
        assert torch.equal(mine, expected)
    assert torch.equal(raw.pcfg_argmax(*g), found[0])


def test_k_best_ends_with_the_last_tree():
    g = grammar(n=3, batch=(1,), spans=None, holes=0.2)
    events = raw.pcfg_topk(*g, 1000)[:, 0]
    number = int((events[:, 0, 0] >= 0).sum())
    assert number == int((scores(g.item(0)) > -INF).sum())
    assert len(events[:number].unique(dim=0)) == number
    assert bool((events[number:] == -1).all())


@cases
def test_max_marginals(case):
    g = build(case)
    n = g.unary.shape[-2]
    found = raw.pcfg_max_marginals(*g)
    for index, one in items(g):
        expected = split(torch.full((NT + NT * S * S + n * T + n * n * NT,), -INF, dtype=torch.float64), n)
        if one is not None:
            cut = one.unary.shape[0]
            has = trees(cut)[1].T > 0
            top = torch.where(has, scores(one), -INF).amax(-1)
            expected[0][:], expected[1][:], expected[2][:cut], expected[3][:cut, :cut] = split(top, cut)
        for x, y in zip(found, expected, strict=True):
            assert_nats(x[index], y, g.unary.dtype)


@cases
def test_scores_of_trees_and_their_gradient(case):
    g = build(case)
    events = raw.pcfg_topk(*g, 5)
    found = raw.pcfg_score(events, *g)
    assert found.shape == events.shape[:-2]
    weight = torch.randn(found.shape, dtype=torch.float64)
    none = torch.zeros(g.unary.shape[:-2])
    counts = expected_parts(g, none, lambda one, index: torch.zeros_like(vector(one)))
    for index, one in items(g):
        for r in range(5):
            event = events[(r, *index)]
            if one is None or event[0, 0] < 0:
                assert found[(r, *index)] == -INF
                continue
            cut = one.unary.shape[0]
            used = parts(event[: 2 * cut - 1].tolist(), cut)
            score = torch.where(used > 0, used * vector(one), 0).sum()
            assert_nats(found[(r, *index)], score, torch.float64)
            pieces = split(used * weight[(r, *index)], cut)
            counts[0][index] += pieces[0]
            counts[1][index] += pieces[1]
            counts[2][index][:cut] += pieces[2]
            counts[3][index][:cut, :cut] += pieces[3]
    for x, y in zip(raw.pcfg_score_vjp(weight, events, *g), in_shape(counts, g), strict=False):
        assert_probabilities(x, y)
