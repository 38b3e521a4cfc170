"""Gumbel noise on a GPU beside the CPU's: the same words, nothing waits."""

import pytest
import torch

from structlv.ops.noise import gumbel
from tests.tolerance import assert_nats

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
SHAPES = {
    "rows": ((3, 50, 33), 2, False),
    "spans": ((4, 20, 20, 3), 3, True),
    "no steps": ((2, 0, 3), 2, False),
}


@dtypes
@pytest.mark.parametrize(("shape", "event_dims", "spans"), SHAPES.values(), ids=SHAPES)
def test_the_noise_of_the_cpu(shape, event_dims, spans, dtype, gpu):
    options = {"event_dims": event_dims, "num_samples": 3, "seed": 2**62 + 1, "spans": spans}
    like = torch.empty(shape, dtype=dtype)
    assert_nats(gumbel(like.to(gpu), **options).cpu(), gumbel(like, **options))


def test_nothing_waits_for_the_gpu(gpu):
    like = torch.empty(8, 12, 20, device=gpu)
    gumbel(like, event_dims=2, num_samples=2, seed=1)  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        gumbel(like, event_dims=2, num_samples=2, seed=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
