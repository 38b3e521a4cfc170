"""Gibbs sampling of the states of factorial hidden Markov models, chain by chain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch
from torch import Size, Tensor

from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.inference import Problem
from structlv.distributions.seeding import nth_seed
from structlv.ops import chain


def prior(
    initial: tuple[Tensor, ...],
    moves: tuple[Tensor, ...],
    batch: Size,
    n: int,
    lengths: Tensor | None = None,
) -> FactorialChain:
    """p(z), of n steps."""
    unary = [x.new_zeros(()).expand(*batch, n, x.shape[-1]) for x in initial]
    return FactorialChain(unary, moves, initial=initial, lengths=lengths, validate_args=False)


def gibbs_samples(
    problem: Problem, num_samples: int, burn_in: int, thin: int, initial: Tensor | None, seed: int
) -> Tensor:
    """``FactorialHMM.gibbs``."""
    for name, value, low in (("num_samples", num_samples, 0), ("burn_in", burn_in, 0), ("thin", thin, 1)):
        if not isinstance(value, int) or value < low:
            raise ValueError(f"{name} must be an integer >= {low}, found {value!r}")
    with torch.no_grad():
        sweeps = _sweeps(problem, _start(problem, initial, seed), seed)
        for _ in range(burn_in):
            next(sweeps)
        kept = [[next(sweeps) for _ in range(thin)][-1] for _ in range(num_samples)]
        shape = (*problem.batch, len(problem.sizes), problem.n)
        return (
            torch.stack(kept) if kept else torch.empty(0, *shape, dtype=torch.long, device=problem.x.device)
        )


def _sweeps(problem: Problem, states: Tensor, seed: int) -> Iterator[Tensor]:
    """``states`` (*b, m, n) after one sweep, after two, .."""
    likelihood = problem.emission.likelihood(problem.x, problem.observed, problem.batch)
    m = len(problem.sizes)
    for sweep in count(1):
        for i in range(m):
            new = _drawn(problem, likelihood.conditional(i, states), i, nth_seed(seed, sweep * m + i))
            # where nothing is possible given the others, what was stays
            new = torch.where(new < 0, states[..., i, :], new)
            states = torch.cat([states[..., :i, :], new.unsqueeze(-2), states[..., i + 1 :, :]], -2)
        yield states


def _drawn(problem: Problem, scores: Tensor, i: int, seed: int) -> Tensor:
    """Chain i's states (*b, n), a draw given the scores of its steps."""
    moves, first = problem.transition[i], problem.initial[i]
    scores = scores.to(moves.dtype)
    return chain.sample(scores, moves, first, None, problem.lengths, num_samples=1, seed=seed)[0]


def _start(problem: Problem, initial: Tensor | None, seed: int) -> Tensor:
    """The states (*b, m, n) to begin with."""
    chains = prior(problem.initial, problem.transition, problem.batch, problem.n, problem.lengths)
    if initial is None:
        return chains._sample(1, seed)[0]
    chains._validate_args = True  # what it has been given is used as an index
    return chains._without_padding(chains._checked_event(initial))
