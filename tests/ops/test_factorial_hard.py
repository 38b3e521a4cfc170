"""Dynamic range: results agree with float64 log space however large, small, forbidden or late they are."""

import random

import pytest
import torch

from structlv import reference
from structlv.ops import factorial as ops
from tests.cases import Factorial, factorial
from tests.ops.queries import factorial_score, sized
from tests.tolerance import assert_nats, assert_probabilities

INF = torch.inf
B, N, SIZES = 19, 40, (4, 3, 2)
pytestmark = pytest.mark.usefixtures("native")
log_partition, marginals = sized(ops.log_partition), sized(ops.marginals)
exact = reference.factorial


def base(seed=0, **options):
    return factorial((B,), N, SIZES, ragged=False, seed=seed, dtype=torch.float32, **options)


def scaled(case, unary=1.0, transition=1.0):
    return case._replace(unary=case.unary * unary, transition=case.transition * transition)


def left_to_right(sharing):
    return scaled(base(left_to_right=True, sharing=sharing), unary=5.0)


def masked():
    """Hard constraints: most joint states are excluded at most positions, sometimes all but one."""
    case = base(1)
    keep = torch.rand(case.unary.shape, generator=torch.Generator().manual_seed(2)) < 0.15
    keep[..., 0] = True
    return case._replace(unary=case.unary.masked_fill(~keep, -INF))


def apart(seed):
    """Chain 1 never leaves its last state nor enters it: joint states of it live apart from the rest."""
    case = base(seed)
    k = SIZES[0]
    first = case.transition[: k * k].view(k, k)
    first[:, -1] = first[-1, :] = -INF
    first[-1, -1] = 0.0
    return case, torch.arange(24) >= 18


def hopeless_start(nats):
    """The joint states apart are hopeless at the start and must win at the end, in all items but one."""
    case, mine = apart(4)
    case.unary[1:, 0, mine] = -nats
    case.unary[1:, -1] -= 2 * nats
    case.unary[1:, -1, mine] += 3.5 * nats
    return case


def slow_decline(nats):
    """As before, but they fall behind and catch up a little at every step: no single step shows a loss."""
    case, mine = apart(4)
    case.unary[::2, : N // 2, mine] -= nats
    case.unary[::2, N // 2 :, mine] += 2 * nats
    return case


def one_wide_chain():
    """Only one chain's transitions are far apart, in one item of the batch."""
    case = base(5, sharing="item")
    case.transition[3, 16:25] *= 80
    return case


def many_mild_chains():
    """Every chain alone is mild; together their transitions are far apart."""
    case = factorial((B,), N, (2,) * 7, ragged=False, seed=6, dtype=torch.float32)
    return scaled(case, transition=12.0)


def spread(nats):
    case = scaled(base(7), nats, nats)
    return case._replace(lengths=torch.randint(0, N + 1, (B,)))


def empty_rows():
    """Whole rows of -inf: states without a way out, items without any structure."""
    case = base(8)
    case.transition[:4] = -INF
    case.unary[1, N // 2] = -INF
    return case


def cliffs():
    """One step in which all that mattered so far becomes hopeless; to change state costs 90 nats."""
    case = base(10)
    case.unary[:, N // 2, :12] -= 300.0
    case.unary[:, : N // 2, 12:] -= 300.0
    stay = torch.cat([torch.eye(k).flatten() for k in SIZES])
    return case._replace(transition=case.transition - 90 * (1 - stay))


CASES = {
    "left to right": lambda: left_to_right("shared"),
    "left to right, one each": lambda: left_to_right("item"),
    "masked": masked,
    "sharp 1e2": lambda: scaled(base(3), unary=1e2),
    "sharp 1e4": lambda: scaled(base(3), unary=1e4),
    "hopeless start 50": lambda: hopeless_start(50.0),
    "hopeless start 200": lambda: hopeless_start(200.0),
    "hopeless start 1e4": lambda: hopeless_start(1e4),
    "slow decline 5": lambda: slow_decline(5.0),
    "slow decline 15": lambda: slow_decline(15.0),
    "shifted +1e4": lambda: base(5)._replace(unary=base(5).unary + 1e4),
    "shifted -1e4": lambda: base(5)._replace(unary=base(5).unary - 1e4),
    "spread 1e4": lambda: spread(1e4),
    "spread 1e30": lambda: spread(1e30),
    "wide transition": lambda: scaled(base(7), transition=60.0),
    "one wide chain": one_wide_chain,
    "many mild chains": many_mild_chains,
    "empty rows": empty_rows,
    "cliffs": cliffs,
}
hard = pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())


@pytest.fixture(params=["f32", "f64"])
def case(request, build):
    return build() if request.param == "f32" else build().to(torch.float64)


def check_sums(case: Factorial) -> None:
    """log Z, its gradient and the marginals of the kernels, to what float32 is promised."""
    wide = case.to(torch.float64)
    (leafy, leaves), (wide_leafy, wide_leaves) = case.leaves(), wide.leaves()
    z, z_wide = log_partition(*leafy), sized(exact.log_partition)(*wide_leafy)
    assert_nats(z, z_wide, case.unary.dtype)
    weight = torch.linspace(0.5, 2.0, z.numel(), dtype=torch.float64).view(z.shape)
    found = torch.autograd.grad(z, leaves, weight.to(z.dtype))
    expected = torch.autograd.grad(z_wide, wide_leaves, weight)
    pairs = [(found, expected)]
    pairs += [(marginals(*case, edges=x), sized(exact.marginals)(*wide, edges=x)) for x in (False, True)]
    for mine, theirs in pairs:
        for a, b in zip(mine, theirs, strict=True):
            assert_probabilities(a, b, case.unary.dtype)


def check_choices(case: Factorial) -> None:
    wide = case.to(torch.float64)
    best = factorial_score(sized(exact.argmax)(*wide), *wide)
    assert_nats(factorial_score(sized(ops.argmax)(*case), *wide), best, case.unary.dtype)
    drawn, possible = sized(ops.sample)(*case, num_samples=4, seed=11), log_partition(*wide).isfinite()
    assert factorial_score(drawn, *wide)[:, possible].isfinite().all()
    assert drawn[:, ~possible].eq(-1).all()


@hard
def test_sums(build, case):
    check_sums(case)


@hard
def test_choices(build, case):
    check_choices(case)


@hard
def test_second_order_is_finite(build, case):
    leafy, leaves = case.leaves()
    first = torch.autograd.grad(log_partition(*leafy).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves)
    assert not any(x.isnan().any() for x in second)


@pytest.mark.parametrize("step", [-1.0, 1.0])
def test_shift_of_a_position_shifts_log_z(step):
    case = masked()
    moved = case._replace(unary=case.unary + step * 1e5)
    expected = sized(exact.log_partition)(*case.to(torch.float64)) + step * 1e5 * N
    assert_nats(log_partition(*moved, as_double=True), expected, torch.float32)


@pytest.mark.parametrize("weight", [1e-30, 1e-42, 1e-300, 0.0, 1e35])
def test_weights_of_any_size_give_no_nan(weight):
    """A gradient in float64 (``as_double``) may be far from what float32 holds."""
    case, leaves = factorial((B,), 5, dtype=torch.float32).leaves()
    z = log_partition(*case, as_double=True)
    unit = torch.autograd.grad(z.sum(), leaves, retain_graph=True)
    for x, one in zip(torch.autograd.grad(z.sum() * weight, leaves), unit, strict=True):
        assert torch.allclose(x.double(), one.double() * weight, rtol=1e-4, atol=2e-38)


def draw(rng):
    """A factorial chain, and what it was made of."""
    options = {
        "batch": rng.choice([(1,), (2,), (5,), (2, 2), (17,), (33,)]),
        "n": rng.choice([1, 2, 3, 7, 20, 50]),
        "sizes": tuple(rng.choice([1, 2, 3, 4, 5, 8, 9, 16, 17]) for _ in range(rng.choice([1, 2, 2, 3, 4]))),
        "sharing": rng.choice(["shared", "item"]),
        "initial": rng.random() < 0.5,
        "ragged": rng.random() < 0.6,
        "holes": rng.choice([0, 0, 0.1, 0.4]),
        "scale": rng.choice([0.01, 1, 3, 5, 20, 60, 100, 500, 1e4, 1e30]),
        "seed": rng.randrange(2**31),
        "dtype": rng.choice([torch.float32, torch.float64]),
    }
    case = factorial(**{**options, "batch": (1,), "n": 1})
    if case.unary.numel() * options["batch"][0] * options["n"] * sum(options["sizes"]) > 300_000:
        return draw(rng)
    return factorial(**options), options


@pytest.mark.parametrize("seed", range(8))
def test_sweep(seed):
    """A seeded sweep over shapes, sharing, forbidden parts and dynamic range; more of them find more."""
    rng = random.Random(seed)
    for _ in range(15):
        case, options = draw(rng)
        try:
            check_sums(case)
            check_choices(case)
        except AssertionError as error:
            raise AssertionError(f"{options}: {error}") from error
