"""`structlv sample`: sentences drawn from a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from structlv.cli.saved import load
from structlv.distributions import HMM
from structlv.models import NeuralHMM


def run(folder: Path, number: int, max_length: int, seed: int | None) -> None:
    """Print sentences of at most `max_length` words. Raises as `load`, and ValueError for models without law
    of sentences (a compound grammar, an HMM without end).
    """
    model = load(folder)
    generator = Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    for row in drawn(model, number, max_length, generator):
        print(" ".join(model.vocabulary.decode(row)))


@torch.no_grad()
def drawn(model: Any, number: int, max_length: int, generator: Generator) -> list[Tensor]:
    """Sentences as word indices, padded with -1 or not."""
    if not hasattr(model, "distribution") or (isinstance(model, NeuralHMM) and not model.stop):
        raise ValueError(f"a {type(model).__name__} says nothing of how long sentences are: cannot sample")
    law = model.distribution()
    if not isinstance(law, HMM):
        return list(law.sample((number,), max_length=max_length, generator=generator))
    share = length_law(law, max_length)
    if float(share.sum()) == 0:
        raise ValueError(f"the model has no sentence of at most {max_length} words")
    lengths = 1 + torch.multinomial(share, number, replacement=True, generator=generator)
    rows: list[Tensor] = [torch.empty(0)] * number
    for n in lengths.unique().tolist():
        items = (lengths == n).nonzero().squeeze(-1).tolist()
        sentences = law.sample((len(items),), length=n, generator=generator)
        for i, row in zip(items, sentences, strict=True):
            rows[i] = row
    return rows


def length_law(hmm: HMM, longest: int) -> Tensor:
    """p(n) for n = 1..longest, float64, of an HMM that stops: O(longest k^2)."""
    assert hmm.final_logits is not None
    state, step, stop = (
        x.double().exp() for x in (hmm.initial_logits, hmm.transition_logits, hmm.final_logits)
    )
    found = []
    for _ in range(longest):
        found.append(state @ stop)
        state = state @ step
    return torch.stack(found)
