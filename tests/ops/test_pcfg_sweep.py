"""A seeded sweep over shapes, sharing, forbidden parts and dynamic range, against float64 log space.

For a long search raise ``GRAMMARS``.
"""

import random

import pytest
import torch

from structlv import reference
from structlv.ops import pcfg as ops
from tests.cases import SPANS, pcfg
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")
GRAMMARS = 12  # for each of twelve seeds


def draw(rng):
    """A grammar, and what it was made of; float64 is not shifted, where the oracle would lose digits."""
    options = {
        "batch": rng.choice([(1,), (2,), (5,), (2, 2), (11,)]),
        "n": rng.choice([2, 3, 4, 5, 8, 13, 20]),
        "symbols": (rng.choice([1, 2, 3, 8, 15, 16, 17, 20]), rng.choice([1, 2, 7, 16, 17, 33])),
        "grammar": rng.choice(["shared", "item"]),
        "spans": rng.choice(SPANS),
        "ragged": rng.random() < 0.5,
        "holes": rng.choice([0, 0, 0.05, 0.3, 0.8]),
        "scale": rng.choice([0.01, 0.1, 1, 2, 3, 6, 10, 30, 100, 1000]),
        "seed": rng.randrange(2**31),
        "dtype": rng.choice([torch.float32, torch.float64]),
    }
    (batch, *more), s = options["batch"], sum(options["symbols"])
    if batch * (more or [1])[0] * options["n"] ** 2 * options["symbols"][0] * s**2 > 5_000_000:
        return draw(rng)
    case = pcfg(**options)
    if options["dtype"] == torch.float32 and rng.random() < 0.3:
        options["shift"] = rng.choice([-1e4, 1e4, 50.0, -2000.0])
        case = case._replace(unary=case.unary + options["shift"])
    return case, options


def check_sums(case, wide, dtype):
    leafy, leaves = case.leaves()
    wide_leafy, wide_leaves = wide.leaves()
    z = ops.log_partition(*leafy, as_double=True)
    expected = reference.pcfg.log_partition(*wide_leafy, as_double=True)
    assert_nats(z, expected, dtype)
    assert torch.equal(z, ops.log_partition(*case, as_double=True))  # with a chart and without
    weight = torch.randn(z.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(z, leaves, weight), torch.autograd.grad(expected, wide_leaves, weight)
    for pairs in (gradients, (ops.marginals(*case), reference.pcfg.marginals(*wide))):
        for found, right in zip(*pairs, strict=True):
            assert_probabilities(found, right, dtype)


def check_choices(case, wide, dtype):
    best = ops.topk(*wide, k=1)
    scores = ops.score(best, *wide)
    assert_nats(ops.score(ops.argmax(*case)[None], *wide), scores, dtype)
    drawn, possible = ops.sample(*case, num_samples=3, seed=17), scores[0].isfinite()
    assert ops.score(drawn, *wide)[:, possible].isfinite().all()
    assert drawn[:, ~possible].eq(-1).all()


@pytest.mark.parametrize("seed", range(12))
def test_sweep(seed):
    rng = random.Random(seed)
    for _ in range(GRAMMARS):
        case, options = draw(rng)
        wide = case.to(torch.float64)
        try:
            check_sums(case, wide, options["dtype"])
            check_choices(case, wide, options["dtype"])
        except AssertionError as error:
            raise AssertionError(f"{options}: {error}") from error
