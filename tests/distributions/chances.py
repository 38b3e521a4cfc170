"""Tests of what is drawn against the law that enumeration gives."""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import chi2, kstest
from torch import Tensor

from tests.tolerance import CHI_SQUARE


def chi_square(counts: Tensor, expected: Tensor) -> None:
    """Cells of small expectation are pooled, impossible ones must be empty."""
    assert bool((counts[expected == 0] == 0).all())
    large = expected >= 5
    if bool(expected[~large].sum() > 0):
        counts = torch.cat([counts[large], counts[~large].sum().reshape(1)])
        expected = torch.cat([expected[large], expected[~large].sum().reshape(1)])
    else:
        counts, expected = counts[large], expected[large]
    if len(counts) > 1:
        statistic = float(((counts - expected) ** 2 / expected.clamp_min(1e-9)).sum())
        assert chi2.sf(statistic, len(counts) - 1) > CHI_SQUARE


def assert_without_replacement(draws: Any, events: Tensor, probabilities: Tensor) -> None:
    """``draws`` (k, s) for s identical items, of structures ``events`` (m, *event).

    Different structures; the first one's law, the joint laws of the first two and three, in order; and the
    arrival times exp(-perturbed): each gap is exponential, its rate the mass that was not yet drawn.
    """
    number = {str(event): i for i, event in enumerate(events.tolist())}
    place = torch.tensor([[number.get(str(event), -1) for event in rank] for rank in draws.events.tolist()])
    found = draws.perturbed > -torch.inf
    count = min(len(found), int((probabilities > 0).sum()))
    assert bool(found[:count].all())
    assert not bool(found[count:].any())
    place = place[:count]
    assert bool((place >= 0).all())
    assert len({tuple(x) for x in place.t().tolist() if len(set(x)) < count}) == 0, "a structure twice"
    before = probabilities[place].cumsum(0) - probabilities[place]
    time = (-draws.perturbed[:count]).exp()
    gaps = torch.diff(time, dim=0, prepend=torch.zeros_like(time[:1])) * (1 - before)
    for rank in range(count):
        assert kstest(gaps[rank], "expon").pvalue > CHI_SQUARE
        law = _ordered(probabilities, rank + 1)
        if law is not None:
            cell = sum(place[q] * len(events) ** (rank - q) for q in range(rank + 1))
            chi_square(torch.bincount(cell, minlength=law.numel()).double(), law.flatten() * found.shape[1])


def _ordered(p: Tensor, k: int) -> Tensor | None:
    """The probability of each sequence of k structures, (m,) * k; None where that is too much to list."""
    m = len(p)
    if m**k > 10_000:
        return None
    places = torch.cartesian_prod(*[torch.arange(m)] * k).reshape(-1, k)
    mass = p[places]
    left = 1 - (mass.cumsum(-1) - mass)
    again = (places.unsqueeze(-1) == places.unsqueeze(-2)).sum((-2, -1)) > k
    return torch.where(again | (mass == 0).any(-1), 0.0, (mass / left.clamp_min(1e-300)).prod(-1))
