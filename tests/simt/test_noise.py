"""The emulated kernel of noise beside the CPU's: the same words, so the same noise but for rounding.

The ordinary tests of noise run on the emulated kernel too: ``make test-cuda``.
"""

import pytest
import torch

from structlv.reference import philox
from tests.simt import emulated
from tests.tolerance import assert_nats

pytestmark = pytest.mark.skipif(
    not emulated.LIBRARY.exists(), reason="make test-cuda builds the emulated kernels"
)
SHAPES = {
    "rows": ((3, 2, 7, 5), 2, False),
    "long": ((2, 700), 1, False),
    "one number": ((), 0, False),
    "spans": ((4, 6, 6, 3), 3, True),
    "one word": ((2, 1, 1, 1), 3, True),
    "no steps": ((2, 0, 3), 2, False),
    "no items": ((0, 4), 1, False),
}


@pytest.mark.parametrize("schedule", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("shape", "event_dims", "spans"), SHAPES.values(), ids=SHAPES)
def test_the_same_words_as_on_the_cpu(shape, event_dims, spans, dtype, schedule):
    """A word that differs in its last bit moves the noise by 2e-10 at least: float64 would show it."""
    emulated.configure(schedule)
    like = torch.empty(shape, dtype=dtype)
    args = (event_dims, 3, 2**62 + 11)
    mine = torch.ops.structlv_emulated.gumbel(like, *args, spans)
    theirs = torch.ops.structlv.gumbel(like, *args, spans)
    assert mine.shape == theirs.shape
    assert mine.dtype == dtype
    assert_nats(mine, theirs)
    assert_nats(mine, philox.gumbel(like.double(), *args, spans=spans))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_the_largest_and_the_smallest_draws_keep_their_digits(dtype):
    """Of 10^6: near u = 1 float32 counts from the other end."""
    emulated.configure(0)
    like = torch.empty(10**6, dtype=dtype)
    mine = torch.ops.structlv_emulated.gumbel(like, 1, 1, 5, False)
    expected = philox.gumbel(like.double(), 1, 1, 5)
    assert float(expected.max()) > 12
    assert float(expected.min()) < -2.5
    assert_nats(mine, expected)


def test_wrong_arguments_are_refused():
    emulated.load()
    for args, message in (((3, 1, 0, False), "event_dims"), ((2, 1, 0, True), "event_dims")):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.structlv_emulated.gumbel(torch.zeros(2, 3), *args)
    with pytest.raises(RuntimeError, match="n, n, labels"):
        torch.ops.structlv_emulated.gumbel(torch.zeros(2, 3, 4), 3, 1, 0, True)
    with pytest.raises(RuntimeError, match="like: expected dtype"):
        torch.ops.structlv_emulated.gumbel(torch.zeros(2, dtype=torch.half), 1, 1, 0, False)
