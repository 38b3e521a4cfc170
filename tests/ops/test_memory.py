"""Large results lie in memory that is kept for the next ones (csrc/ops/memory.h)."""

from __future__ import annotations

import copy
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from structlv import _native
from structlv.ops import chain

STEPS, STATES = 128, 64
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not _native.available(), reason="needs the kernels, on Linux"
)
# before it, a tensor in memory that is not torch's own does not tell when it is dropped
recycles = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="memory is kept from torch 2.11 on"
)


def problem(seed: int, items: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(items, STEPS, STATES, generator=generator),
        torch.randn(STATES, STATES, generator=generator),
    )


def marginals(seed: int, items: int = 64) -> Tensor:
    """2 MiB of 64 items."""
    return chain.state_marginals(*problem(seed, items))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def item_by_item(seed: int) -> Tensor:
    """The same from small results."""
    unary, transition = problem(seed)
    return torch.stack([chain.state_marginals(one, transition) for one in unary])


def test_results_that_live_together_do_not_share_memory() -> None:
    found = [marginals(seed) for seed in range(4)]
    for seed, one in enumerate(found):
        assert torch.equal(one, item_by_item(seed))


@recycles
def test_memory_of_a_dropped_result_serves_the_next() -> None:
    use_up_what_is_kept()
    first = marginals(0)
    kept, view = first.data_ptr(), first[1]
    del first
    second = marginals(1)
    assert second.data_ptr() != kept  # a view keeps it alive
    assert torch.equal(view, item_by_item(0)[1])
    del view
    assert marginals(2).data_ptr() == kept


def use_up_what_is_kept() -> None:
    """Blocks of other sizes, that nothing has asked for in 256 drops, make room for one of 2 MiB."""
    inputs = problem(0)
    for _ in range(2 * 256 + 2):
        chain.state_marginals(*inputs)


@recycles
def test_sizes_that_are_no_longer_used_make_room() -> None:
    held = [marginals(0, 128) for _ in range(64)]  # 4 MiB each, of which sixteen are kept: no room is left
    held.clear()
    use_up_what_is_kept()
    for _ in range(2):  # the first time, what others had goes
        held = [marginals(0) for _ in range(8)]
        before = resident()
        held.clear()
    assert before - resident() < 8 << 20


def test_training_steps_do_not_disturb_each_other() -> None:
    unary, transition = (x.requires_grad_() for x in problem(0))
    (expected,) = torch.autograd.grad(chain.log_partition(unary, transition).sum(), unary)
    for seed in range(1, 4):
        log_z = chain.log_partition(unary, transition).sum()  # its chart lives on
        other, matrix = (x.requires_grad_() for x in problem(seed))
        torch.autograd.grad(chain.log_partition(other, matrix).sum(), other)
        (found,) = torch.autograd.grad(log_z, unary)
        assert torch.equal(found, expected)


@recycles
def test_what_is_kept_is_bounded() -> None:
    held = [marginals(0, 512) for _ in range(12)]  # 16 MiB each
    before = resident()
    held.clear()
    assert before - resident() > (12 * 16 - 64 - 8) << 20


def test_threads() -> None:
    expected = [item_by_item(seed) for seed in range(4)]

    def work(seed: int) -> bool:
        return all(torch.equal(marginals(seed), expected[seed]) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_result_is_an_ordinary_tensor() -> None:
    x = marginals(0)
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    assert torch.equal(torch.load(file), x)
    assert torch.equal(copy.deepcopy(x), x)
    doubled = 2 * x
    assert torch.equal(x.mul_(2), doubled)
    assert torch.equal(x.share_memory_(), doubled)
