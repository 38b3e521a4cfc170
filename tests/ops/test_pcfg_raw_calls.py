"""The tree operators at the edges: wrong shapes and trees, no words, threads; trees from span scores."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from structlv.ops import chain as _registers_the_operators  # noqa: F401
from tests.ops.trees import INF, Grammar, grammar, trees
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")
raw = torch.ops.structlv
ROOT, RULES, UNARY, SPANS = torch.zeros(2), torch.zeros(2, 4, 4), torch.zeros(3, 5, 2), torch.zeros(5, 5, 2)
LENGTHS = torch.tensor([5, 2, 0])

WRONG = {
    "root: expected (*b, nt), found ()": {"root": torch.tensor(0.0)},
    "root: expected at least one nonterminal": {"root": torch.zeros(0)},
    "unary: expected at least one preterminal": {"unary": torch.zeros(3, 5, 0)},
    "unary: expected (*b, n, t)": {"unary": torch.zeros(5)},
    "unary: expected dtype float32 or float64": {"unary": UNARY.half()},
    "rules: its dtype differs from that of unary": {"rules": RULES.double()},
    "rules: expected a shape ending in (2, 4, 4), found (2, 4, 3)": {"rules": torch.zeros(2, 4, 3)},
    "rules: batch dimensions (2) do not broadcast to (3)": {"rules": torch.zeros(2, 2, 4, 4)},
    "root: batch dimensions (2, 3) do not broadcast to (3)": {"root": torch.zeros(2, 3, 2)},
    "spans: expected (*b, n, n, nt) or (*b, n, n, 1) with nt = 2, found (5, 5)": {"spans": torch.zeros(5, 5)},
    "spans: expected a shape ending in (5, 5, 2), found (5, 4, 2)": {"spans": torch.zeros(5, 4, 2)},
    "lengths: expected dtype int64": {"lengths": LENGTHS.int()},
    "lengths: expected shape (3), found (2)": {"lengths": LENGTHS[:2]},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_potentials_are_refused(message):
    right = {"root": ROOT, "rules": RULES, "unary": UNARY, "spans": SPANS, "lengths": LENGTHS}
    with pytest.raises(RuntimeError) as error:
        raw.pcfg_log_partition(*{**right, **WRONG[message]}.values(), False)
    assert message in str(error.value)


def test_wrong_gradients_directions_and_charts_are_refused():
    g = (ROOT, RULES, UNARY, SPANS, LENGTHS)
    chart = raw.pcfg_inside(*g, False)[1]
    with pytest.raises(RuntimeError, match=r"grad: expected shape \(3\), found \(2\)"):
        raw.pcfg_vjp(torch.ones(2), chart, *g)
    with pytest.raises(RuntimeError, match="chart: expected what pcfg_inside returned"):
        raw.pcfg_vjp(torch.ones(3), torch.cat([chart, chart.new_zeros(1)]), *g)
    with pytest.raises(RuntimeError, match="chart: expected what pcfg_inside returned"):
        raw.pcfg_vjp(torch.ones(3), chart.double(), *g)
    with pytest.raises(RuntimeError, match=r"v_unary: expected shape \(3, 5, 2\), found \(5, 2\)"):
        raw.pcfg_hvp(None, ROOT, RULES, UNARY[0], None, *g)
    with pytest.raises(RuntimeError, match="v_root: expected 2 nonterminals, found 1"):
        raw.pcfg_hvp(None, torch.zeros(1), torch.zeros(1, 3, 3), UNARY, None, *g)
    with pytest.raises(RuntimeError, match="k: expected a number of trees >= 0, found -1"):
        raw.pcfg_topk(*g, -1)
    with pytest.raises(RuntimeError, match=r"event: expected a shape ending in \(3, 9, 3\)"):
        raw.pcfg_score(torch.zeros(9, 3, dtype=torch.long), *g)
    with pytest.raises(RuntimeError, match="event: expected dtype int64"):
        raw.pcfg_score(torch.zeros(3, 9, 3), *g)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("batch", [(2,), (0,), ()])
def test_fewer_than_two_words_have_no_tree(n, batch):
    g = grammar(n=n, batch=batch, spans="labelled")
    assert bool((raw.pcfg_log_partition(*g, True) == -INF).all())
    for x in raw.pcfg_marginals(*g, True, True):
        assert not x.any()
    for x, y in zip(raw.pcfg_vjp(torch.ones(batch), raw.pcfg_inside(*g, False)[1], *g), g[:4], strict=True):
        assert x.shape == y.shape
        assert not x.any()
    for x in raw.pcfg_hvp(None, *g[:4], *g):
        assert not x.any()
    for x in raw.pcfg_max_marginals(*g):
        assert bool((x == -INF).all())
    for x in (raw.pcfg_argmax(*g), raw.pcfg_topk(*g, 2), raw.pcfg_sample(*g, 2, 1)):
        assert x.shape[-2:] == (max(2 * n - 1, 0), 3)
        assert bool((x == -1).all())
    assert bool((raw.pcfg_score(raw.pcfg_topk(*g, 2), *g) == -INF).all())
    assert not raw.pcfg_has_nan(*g)


def test_what_is_no_tree_scores_minus_infinity():
    g = grammar(n=4, batch=(), spans="labelled")
    event = raw.pcfg_argmax(*g)
    wrong = [event.flip(0), event.roll(1, 0), event[[0, 2, 1, 3, 4, 5, 6]]]
    for row in range(7):
        for column in range(3):
            for value in (-1, 4, 1 << 40, -(1 << 62)):
                other = event.clone()
                other[row, column] = value
                wrong.append(other)
    for other in wrong:
        assert float(raw.pcfg_score(other, *g)) == -INF
        assert not any(x.any() for x in raw.pcfg_score_vjp(torch.tensor(1.0), other, *g))
    swapped = event.clone()
    swapped[0, 2] = 1 - swapped[0, 2]
    assert_nats(raw.pcfg_score(swapped, *g), raw.pcfg_score(swapped[None], *g)[0])


@pytest.mark.parametrize("place", ["root", "rules", "unary", "spans", "padding", "diagonal", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_has_nan(place, dtype):
    g = grammar(n=4, batch=(3,), dtype=dtype, lengths=torch.tensor([3, 0, 2]))
    if place == "padding":
        g.unary[0, 3], g.unary[1], g.spans[:, 3] = torch.nan, torch.nan, torch.nan
    elif place == "diagonal":
        g.spans[2, 2], g.spans[2, 0] = torch.nan, torch.nan
    elif place == "unary":
        g.unary[2, 1, 1] = torch.nan
    elif place == "spans":
        g.spans[1, 2, 1] = torch.nan
    elif place != "none":
        getattr(g, place).view(-1)[-1] = torch.nan
    assert raw.pcfg_has_nan(*g) == (place in ("root", "rules", "unary", "spans"))


def test_bits_depend_neither_on_threads_nor_on_the_batch():
    g = grammar(n=9, batch=(7,), lengths=torch.tensor([9, 4, 2, 7, 9, 1, 5]))
    weight = torch.randn(7, dtype=torch.float64)

    def results() -> list:
        return [
            raw.pcfg_log_partition(*g, True),
            *raw.pcfg_marginals(*g, True, True),
            *raw.pcfg_vjp(weight, raw.pcfg_inside(*g, False)[1], *g),
            *raw.pcfg_hvp(None, *g[:4], *g),
        ]

    torch.set_num_threads(1)
    one = results()
    torch.set_num_threads(2)
    for x, y in zip(results(), one, strict=True):
        assert torch.equal(x, y)
    alone = raw.pcfg_marginals(g.root, g.rules, g.unary[3:4, :7], g.spans[:7, :7], None, True, True)
    assert all(torch.equal(x[0], y) for x, y in zip(alone[:2], (one[1][3], one[2][3]), strict=True))


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_potentials(size, dtype):
    """One rule after the other decides, the sums agree with those of float64 over all trees."""
    g = Grammar(*[x * size for x in grammar(n=4, batch=(2,), dtype=dtype).potentials])
    counts = trees(4)[1]
    for b in range(2):
        one = g.item(b)
        potentials = torch.cat([x.double().flatten() for x in (one.root, one.rules, one.unary, one.spans)])
        s = counts @ potentials
        p = torch.softmax(s, 0)
        assert_nats(raw.pcfg_log_partition(*g, True)[b], s.logsumexp(0), dtype)
        found = torch.cat([x[b].double().flatten() for x in raw.pcfg_marginals(*g, True, True)])
        assert_probabilities(found, p @ counts, dtype)


# ---- the binary tree of the best span scores ----


def bracketings(i: int, j: int) -> list[list[tuple[int, int]]]:
    if i == j:
        return [[(i, j)]]
    return [
        [(i, j), *left, *right]
        for k in range(i, j)
        for left in bracketings(i, k)
        for right in bracketings(k + 1, j)
    ]


@pytest.mark.parametrize("n", range(7))
@pytest.mark.parametrize("kind", ["distinct", "ties", "forbidden"])
def test_decode_is_the_best_of_all_bracketings(n, kind):
    spans = torch.randn(4, n, n)
    if kind == "ties":
        spans = spans.round()
    if kind == "forbidden":
        spans[torch.rand(4, n, n) < 0.4] = -INF
    spans.masked_fill_(torch.ones(n, n).tril().bool(), torch.nan)  # never looked at
    found = raw.tree_decode(spans, None)
    assert found.shape == (4, max(2 * n - 1, 0), 3)
    for scores, event in zip(spans, found, strict=True):
        bracketed = bracketings(0, n - 1) if n else []
        candidates = [(sum(float(scores[i, j]) for i, j in tree if i < j), tree) for tree in bracketed]
        top = max((score for score, _ in candidates), default=-INF)
        expected = [[-1, -1, -1]] * len(event)
        if top > -INF:  # the first of the best: splits from the left
            close = [t for score, t in candidates if score > top - 1e-5]
            expected = [[i, j, 0] for i, j in close[0]]
            assert kind == "ties" or len(close) == 1
        assert event.tolist() == expected


def test_decode_of_ragged_sentences():
    spans = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    lengths = torch.tensor([[6, 0, 1], [2, 4, 99]])
    found = raw.tree_decode(spans, lengths)
    for a in range(2):
        for b in range(3):
            n = min(int(lengths[a, b]), 6)
            alone = raw.tree_decode(spans[a, b, :n, :n], None)
            assert torch.equal(found[a, b, : len(alone)], alone)
            assert bool((found[a, b, len(alone) :] == -1).all())
    with pytest.raises(RuntimeError, match=r"spans: expected a shape ending in \(5, 5\), found \(5, 6\)"):
        raw.tree_decode(torch.zeros(5, 6), None)
    with pytest.raises(RuntimeError, match="spans: expected dtype float32 or float64"):
        raw.tree_decode(torch.zeros(5, 5, dtype=torch.long), None)


@pytest.mark.parametrize("side", ["left", "right"])
def test_decode_a_thousand_words_as_one_spine(side):
    n = 1000
    spans = torch.zeros(n, n)
    spans[0 if side == "left" else slice(None), slice(None) if side == "left" else n - 1] = 1.0
    event = raw.tree_decode(spans, None)
    inner = event[event[:, 0] < event[:, 1]].tolist()
    for (i, j, _), (k, m, _) in pairwise(inner):
        assert (k, m) == ((i, j - 1) if side == "left" else (i + 1, j))
