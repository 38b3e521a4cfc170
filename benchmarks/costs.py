"""What some queries cost beside the passes that they are made of: ``python -m benchmarks.costs`` (seconds).

* Trees: 100 exact samples of each sentence beside the inside pass; 20 words, 30 nonterminals, 60
  preterminals, sentences with rules of their own. The samples' lengths are checked.
* A sweep of structured mean field beside a forward-backward pass of each chain, additive Gaussian emissions.
  That the bound rises is checked.

One thread; medians; results in ``benchmarks/results/costs.json``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from structlv import FactorialHMM, LinearChain, TreePosterior
from structlv.distributions import AdditiveGaussian, StructuredMeanField

SAMPLES, ROUNDS = 100, 40
SWEEPS = (4, 14)


def milliseconds(call: Callable[[], Any]) -> float:
    for _ in range(5):
        call()
    spent = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        spent.append(1e3 * (time.perf_counter() - start))
    return statistics.median(spent)


def trees(sentences: int, words: int = 20, nonterminals: int = 30, preterminals: int = 60) -> dict[str, Any]:
    size = nonterminals + preterminals
    rules = torch.randn(sentences, nonterminals, size**2).log_softmax(-1)
    d = TreePosterior(
        torch.randn(sentences, nonterminals).log_softmax(-1),
        rules.unflatten(-1, (size, size)),
        torch.randn(sentences, words, preterminals),
    )
    rows = (d.sample((SAMPLES,))[..., 0] >= 0).sum(-1)
    if not bool((rows == 2 * words - 1).all()):
        raise AssertionError("a sample is no tree over the whole sentence")
    inside, samples = milliseconds(d.log_partition), milliseconds(lambda: d.sample((SAMPLES,)))
    name = f"{SAMPLES} trees each of {sentences} sentences of {words} words"
    return {"what": name, "ms": samples, "beside": "inside pass", "its_ms": inside, "ratio": samples / inside}


def sweep(chains: int, states: int, steps: int, items: int) -> dict[str, Any]:
    initial = [torch.randn(states).log_softmax(-1) for _ in range(chains)]
    transition = [torch.randn(states, states).log_softmax(-1) for _ in range(chains)]
    emission = AdditiveGaussian([torch.randn(states, 4) for _ in range(chains)], torch.eye(4))
    hmm, x = FactorialHMM(initial, transition, emission), torch.randn(items, steps, 4)
    few, many = (StructuredMeanField(max_sweeps=s, tolerance=0.0) for s in SWEEPS)
    if not bool((hmm.elbo(x, method=many) >= hmm.elbo(x, method=few) - 1e-3).all()):
        raise AssertionError("the bound fell")
    short, long = (milliseconds(lambda m=m: hmm.posterior(x, method=m)) for m in (few, many))
    each = (long - short) / (SWEEPS[1] - SWEEPS[0])
    chain = LinearChain(torch.randn(items, steps, states), transition[0], validate_args=False)
    passes = chains * milliseconds(chain.marginals)
    name = f"a sweep, {chains} chains of {states} states, {steps} steps, {items} items"
    return {"what": name, "ms": each, "beside": "forward-backwards", "its_ms": passes, "ratio": each / passes}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [trees(1), trees(4), sweep(3, 8, 200, 16), sweep(2, 16, 200, 16), sweep(3, 32, 100, 32)]
    for row in rows:
        print(f"{row['what']}: {row['ms']:.3f} ms, {row['ratio']:.2f} x {row['beside']}")
    document = {"machine": machine.describe(), "torch": torch.__version__, "rows": rows}
    (Path(__file__).parent / "results" / "costs.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
