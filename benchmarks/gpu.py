"""Chains on a GPU: ``python -m benchmarks.gpu [--device cpu] [--out FILE]``.

An HMM over tokens with a vocabulary of 33,279, batches of 512 sequences of 32 tokens: the sizes for which
PyJuice's authors gave milliseconds on an RTX 4090 (forward; backward). Those figures are printed beside ours
for orientation: they belong to another machine unless this one is an RTX 4090, and to their parameterisation
(a circuit's flows, not gradients of scores). Every answer is checked against float64 on the CPU before it is
timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import structlv
from benchmarks import check
from structlv import LinearChain

PUBLISHED = {64: (0.230, 0.929), 512: (0.956, 3.503), 2048: (9.136, 21.262)}  # ms, by the number of states
BATCH, LENGTH, VOCABULARY = 512, 32, 33279


class Size(NamedTuple):
    batch: int
    length: int
    states: int
    vocabulary: int


def scores(size: Size, device: str) -> dict[str, torch.Tensor]:
    """Log-probabilities of an HMM, and tokens."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).log_softmax(-1).to(device).requires_grad_()

    words = torch.randint(size.vocabulary, (size.batch, size.length), generator=generator).to(device)
    k = size.states
    return {
        "initial": normal(k),
        "transition": normal(k, k),
        "emission": normal(k, size.vocabulary),
        "words": words,
    }


def forward(given: dict[str, torch.Tensor]) -> torch.Tensor:
    unary = given["emission"].T[given["words"]]
    return LinearChain(
        unary, given["transition"], initial=given["initial"], validate_args=False
    ).log_partition()


def gradient(given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    log_z = forward(given)
    sources = [given[name] for name in ("initial", "transition", "emission")]
    return [log_z.detach(), *torch.autograd.grad(log_z.sum(), sources)]


def checked(given: dict[str, torch.Tensor]) -> dict[str, float]:
    """Errors against float64 on the CPU. Raises ``check.Wrong`` where one is too large."""
    double = {
        name: x.detach().double().cpu().requires_grad_() if x.is_floating_point() else x.cpu()
        for name, x in given.items()
    }
    pairs = zip(gradient(given), gradient(double), strict=True)
    found = [check.relative(mine.double().cpu().numpy(), wanted.numpy()) for mine, wanted in pairs]
    errors = dict(zip(("log_z", "root", "transition", "unary"), found, strict=True))
    check.require(errors)
    return errors


def milliseconds(call: Callable[[], Any], device: str, rounds: int) -> float:
    """The median of ``rounds`` calls after three."""
    for _ in range(3):
        call()
    found = []
    for _ in range(rounds):
        if device == "cpu":
            start = time.perf_counter()
            call()
            found.append(1e3 * (time.perf_counter() - start))
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--states", type=int, nargs="*", default=list(PUBLISHED))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error("no GPU that this torch can use; --device cpu tries the script")
    name = "CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    document: dict[str, Any] = {"device": name, "torch": torch.__version__, "structlv": structlv.__version__}
    document["cases"] = []
    print(f"{name}, torch {torch.__version__}; milliseconds, medians")
    for states in options.states:
        size = Size(options.batch, LENGTH, states, options.vocabulary)
        given = scores(size, options.device)
        one = {"size": size._asdict(), "errors": checked(given)}
        with torch.no_grad():
            one["forward"] = milliseconds(lambda g=given: forward(g), options.device, options.rounds)
        one["both"] = milliseconds(lambda g=given: gradient(g), options.device, options.rounds)
        document["cases"].append(one)
        published = (
            PUBLISHED.get(states) if (options.batch, options.vocabulary) == (BATCH, VOCABULARY) else None
        )
        beside = f"   PyJuice on an RTX 4090: {published[0]}, {published[1]} more" if published else ""
        print(f"K={states}: log Z {one['forward']:.3f}, with gradient {one['both']:.3f}{beside}")
    if options.out:
        options.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
