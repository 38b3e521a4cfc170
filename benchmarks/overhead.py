"""What the Python around an operator costs without gradients.

``python -m benchmarks.overhead`` alternates `structlv.ops.chain.log_partition` and the C++ operator that it
calls, on small chains, and prints both and the difference: medians over many turns.
"""

from __future__ import annotations

import statistics
import time

import torch

from structlv.ops import chain

CALLS, TURNS = 500, 101


def per_call(function) -> float:
    """Processor microseconds per call of `function`."""
    start = time.thread_time()
    for _ in range(CALLS):
        function()
    return (time.thread_time() - start) / CALLS * 1e6


def measure(batch: int, length: int, states: int) -> tuple[float, float]:
    """-> microseconds of the raw operator and of the function around it, without gradients."""
    unary, transition = torch.randn(batch, length, states), torch.randn(states, states)
    raw = torch.ops.structlv.chain_log_partition.default

    def kernel():
        return raw(unary, transition, None, None, None, False)

    def function():
        return chain.log_partition(unary, transition)

    def alone():
        with torch._C._AutoDispatchBelowAutograd():  # straight to the kernel, past the registered derivative
            return per_call(kernel)

    with torch.no_grad():
        turns = [(alone(), per_call(function)) for _ in range(TURNS)]
    return tuple(statistics.median(turn[i] for turn in turns) for i in (0, 1))


def main() -> None:
    torch.set_num_threads(1)
    for size in ((1, 2, 2), (4, 10, 8), (32, 100, 32)):
        kernel, function = measure(*size)
        times = (
            f"kernel {kernel:8.2f} us   function {function:8.2f} us   overhead {function - kernel:5.2f} us"
        )
        print(f"{size!s:15} {times}")


if __name__ == "__main__":
    main()
