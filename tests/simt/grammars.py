"""What the tests of all grammars on the emulated kernels share."""

import torch

from tests.tolerance import assert_nats, assert_probabilities, assert_second_order


def spaces():
    return torch.ops.structlv, torch.ops.structlv_emulated


def both(operator, *args):
    """What the kernels of the CPU and the emulated ones give."""
    return [getattr(space, operator)(*args) for space in spaces()]


def assert_the_same(family, case):
    """log Z, marginals and the gradient of three items."""
    dtype = case[0].dtype
    z, mine = both(f"{family}_log_partition", *case, True)
    assert_nats(mine, z, dtype)
    for a, b in zip(*both(f"{family}_marginals", *case, True, True), strict=True):
        assert_probabilities(b, a, dtype)
    grad = torch.tensor([1.0, -0.5, 2.0], dtype=dtype)
    charts = [x[1] for x in both(f"{family}_inside", *case, False)]
    gradients = [
        getattr(space, f"{family}_vjp")(grad, chart, *case)
        for space, chart in zip(spaces(), charts, strict=True)
    ]
    for a, b in zip(*gradients, strict=True):
        assert_probabilities(b, a, dtype)


def assert_the_same_second_order(family, case, directions):
    """Weighted and not; an item may have no weight, and what is impossible a direction of -inf."""
    dtype = case[0].dtype
    directions = [None if x is None else torch.randn_like(x) for x in directions]
    for grad in (None, torch.tensor([1.0, -0.5, 0.0], dtype=dtype)):
        for v in (directions, case[: len(directions)]):
            for a, b in zip(*both(f"{family}_hvp", grad, *v, *case), strict=True):
                assert_second_order(b, a, dtype)
