"""Dynamic range: trees agree with float64 log space however large, small or forbidden their parts are."""

import pytest
import torch

from structlv import reference
from structlv.ops import pcfg as ops
from tests.cases import PCFG, pcfg
from tests.tolerance import assert_nats, assert_probabilities

INF = torch.inf
B, N, NT, T = 3, 12, 5, 4
S = NT + T


def base(seed=0, **options):
    return pcfg(
        batch=(B,),
        n=N,
        symbols=(NT, T),
        ragged=False,
        seed=seed,
        dtype=torch.float32,
        **{"grammar": "item", **options},
    )


def words_first():
    """Every left child is a word, every right one but the last a symbol of higher or equal rank."""
    case = base()
    banned = torch.ones(NT, S, S, dtype=torch.bool)
    for a in range(NT):
        banned[a, NT:, a : a + 2] = False
    banned[-1, NT:, NT:] = False
    return case._replace(rules=case.rules.masked_fill(banned, -INF), unary=case.unary * 5)


def masked(share, seed=1):
    case = base(seed)
    keep = torch.rand(case.rules.shape, generator=torch.Generator().manual_seed(seed)) < share
    return case._replace(rules=case.rules.masked_fill(~keep, -INF))


def sharp(nats):
    """Words whose preterminals differ by this much."""
    case = base(2)
    return case._replace(unary=case.unary * nats)


def hopeless(nats, forbidden=False):
    """The first symbol is nowhere worth its price, except that the whole sentence must be one."""
    case = base(3)
    rules, root = case.rules.clone(), case.root.clone()
    rules[:, 0] -= nats
    root[:, 1:] -= 3 * nats
    if forbidden:
        rules[:, 1, :, NT:] = -INF
    return case._replace(rules=rules, root=root)


def slow_decline(nats, up):
    """A symbol that leads only to itself loses a little with every word, and catches up at the end.

    ``up``: through the root alone, or with every word of the second half.
    """
    case = base(4)
    rules, unary, root = case.rules.clone(), case.unary.clone(), case.root.clone()
    rules[:, 1:, 0] = rules[:, 1:, :, 0] = -INF
    rules[:, 0] = -INF
    rules[:, 0, 0, NT] = rules[:, 0, NT, NT] = 0.0
    rules[:, 1:, NT] = rules[:, 1:, :, NT] = -INF
    unary[..., 0] = -nats
    if up == "words":
        unary[:, N // 2 :, 0] += 2 * nats
    else:
        root[:, 0] += nats * N
    return case._replace(rules=rules, unary=unary, root=root)


def scored_spans(nats, labels="label", holes=0.0):
    case = base(5, spans=labels, holes=holes)
    return case._replace(spans=case.spans * nats)


def one_tree():
    """Spans that leave a single bracketing, the worst one by 200 nats a span."""
    case = base(6, spans="one")
    spans = torch.full_like(case.spans, -INF)
    for i in range(N - 1):
        spans[:, i, N - 1] = -200.0
    return case._replace(spans=spans)


def shifted(nats):
    case = base(7)
    return case._replace(unary=case.unary + nats, rules=case.rules - nats / 3)


def scaled(factor, seed=8, **options):
    return base(seed, **options).map(lambda x: x * factor)


def silent_word():
    """Items of which one has a word that no preterminal emits, and one no tree for want of rules."""
    case = base(9)
    unary, rules = case.unary.clone(), case.rules.clone()
    unary[0, N // 2] = -INF
    rules[1, :, NT:, NT:] = -INF
    return case._replace(unary=unary, rules=rules)


def one_rule_far_below(nats):
    """Rules of which one symbol's are far below the others', and the only ones for two words."""
    case = base(10)
    rules = case.rules.clone()
    rules[:, :, NT:, NT:] -= nats
    rules[:, 2] -= nats
    return case._replace(rules=rules)


def unlike_splits():
    """Long spans are wildly better than short ones: the weights of splits differ by hundreds of nats."""
    case = base(11, spans="one")
    i, j = torch.arange(N)[:, None], torch.arange(N)
    return case._replace(spans=case.spans + (30.0 * (j - i) * ((i + j) % 3 - 1))[..., None])


CASES = {
    "words first": words_first,
    "masked": lambda: masked(0.3),
    "hardly anything": lambda: masked(0.06),
    "sharp 1e1": lambda: sharp(10),
    "sharp 1e2": lambda: sharp(1e2),
    "sharp 1e3": lambda: sharp(1e3),
    "sharp 1e4": lambda: sharp(1e4),
    "hopeless 50": lambda: hopeless(50),
    "hopeless 90": lambda: hopeless(90),
    "hopeless 1000": lambda: hopeless(1000),
    "hopeless 60, forbidden": lambda: hopeless(60, True),
    "hopeless 800, forbidden": lambda: hopeless(800, True),
    "slow decline 4, words": lambda: slow_decline(4.0, "words"),
    "slow decline 15, words": lambda: slow_decline(15.0, "words"),
    "slow decline 5, root": lambda: slow_decline(5.0, "root"),
    "slow decline 200, root": lambda: slow_decline(200.0, "root"),
    "spans 30": lambda: scored_spans(30),
    "spans 300": lambda: scored_spans(300, holes=0.1),
    "one score a span 1000": lambda: scored_spans(1000, "one"),
    "one tree": one_tree,
    "shifted +1e5": lambda: shifted(1e5),
    "shifted -1e5": lambda: shifted(-1e5),
    "scaled 10": lambda: scaled(10.0),
    "scaled 100, holes": lambda: scaled(100.0, holes=0.2),
    "scaled 1e4": lambda: scaled(1e4, spans="label"),
    "scaled 1e30": lambda: scaled(1e30),
    "silent word": silent_word,
    "one rule 80 below": lambda: one_rule_far_below(80.0),
    "one rule 700 below": lambda: one_rule_far_below(700.0),
    "unlike splits": unlike_splits,
    "shared": lambda: scaled(5.0, grammar="shared", spans="shared"),
    "shared, holes": lambda: scaled(15.0, grammar="shared", holes=0.2),
}
hard = pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture(params=["f32", "f64"])
def case(request, build):
    return build() if request.param == "f32" else build().to(torch.float64)


def wide(case):
    return case.to(torch.float64)


@hard
def test_sums(build, case):
    leafy, leaves = case.leaves()
    wide_leafy, wide_leaves = wide(case).leaves()
    z = ops.log_partition(*leafy, as_double=True)
    expected = reference.pcfg.log_partition(*wide_leafy, as_double=True)
    assert_nats(z, expected, case.unary.dtype)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = torch.autograd.grad(z, leaves, weight)
    for mine, theirs in zip(found, torch.autograd.grad(expected, wide_leaves, weight), strict=True):
        assert_probabilities(mine, theirs, case.unary.dtype)
    for mine, theirs in zip(ops.marginals(*case), reference.pcfg.marginals(*wide(case)), strict=True):
        assert_probabilities(mine, theirs, case.unary.dtype)


@hard
def test_choices(build, case):
    scores = ops.score(ops.topk(*wide(case), k=1), *wide(case))[0]
    assert_nats(ops.score(ops.argmax(*case), *wide(case)), scores, case.unary.dtype)
    drawn, possible = ops.sample(*case, num_samples=4, seed=11), scores.isfinite()
    assert ops.score(drawn, *wide(case))[:, possible].isfinite().all()
    assert drawn[:, ~possible].eq(-1).all()


def test_a_silent_word_leaves_its_neighbours_alone():
    case, n = scaled(1.0, grammar="shared"), N // 2
    unary = case.unary.clone()
    unary[1, n] = -INF
    silent = case._replace(unary=unary)
    others = PCFG(case.root, case.rules, case.unary[::2], None, None)
    for found, alone in zip(gradients(silent), gradients(others), strict=True):
        assert found.isfinite().all()
        assert_probabilities(found, alone) if found.shape == alone.shape else None
    assert ops.log_partition(*silent)[1] == -INF
    assert torch.equal(ops.log_partition(*silent)[::2], ops.log_partition(*others))
    assert gradients(silent)[2][1].eq(0).all()


def gradients(case):
    leafy, leaves = case.leaves()
    z = ops.log_partition(*leafy)
    return torch.autograd.grad(z[z.isfinite()].sum(), leaves)


@pytest.mark.parametrize("small", [1e-3, 1e-9, 1e-30, 0.0])
def test_weights_that_differ_widely(small):
    """Sums over a shared grammar; the unary gradient of the light item must not drown in the heavy ones'."""
    case = scaled(2.0, grammar="shared")
    leafy, leaves = case.leaves()
    wide_leafy, wide_leaves = wide(case).leaves()
    weight = torch.tensor([1.0, small, -3.0])
    found = torch.autograd.grad(ops.log_partition(*leafy), leaves, weight)
    z = reference.pcfg.log_partition(*wide_leafy)
    expected = torch.autograd.grad(z, wide_leaves, weight.double())
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs)
    if small:
        assert_probabilities(found[2][1] / small, (expected[2][1] / small).float())


@pytest.mark.parametrize("n", [10, 40, 80])
@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0])
def test_float32_log_z(n, scale):
    case = pcfg(batch=(2,), n=n, symbols=(7, 9), scale=scale, ragged=False, dtype=torch.float32, seed=n)
    found = ops.log_partition(*case, as_double=True)
    assert_nats(found, ops.log_partition(*wide(case)), torch.float32)
    normalised = case._replace(rules=case.rules.flatten(-2).log_softmax(-1).view_as(case.rules))
    found = ops.log_partition(*normalised, as_double=True)
    assert_nats(found, ops.log_partition(*wide(normalised)), torch.float32)
