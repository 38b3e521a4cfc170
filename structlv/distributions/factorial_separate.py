"""Factorial chains whose states are scored chain by chain: independent chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_joint import JointChains, first_steps, pair
from structlv.distributions.factorial_parts import FactorialParts, along
from structlv.distributions.linear_chain import LinearChain
from structlv.distributions.seeding import nth_seed
from structlv.ops import chain
from structlv.ops.noise import gumbel


class SeparateChains(FactorialChain, joint=False):
    """``FactorialChain`` of a tensor of scores for each chain."""

    unary: tuple[Tensor, ...]

    @property
    def chains(self) -> tuple[LinearChain, ...]:
        """The chains, each a distribution of its own."""
        initial = self.initial or (None,) * len(self.sizes)
        return tuple(
            LinearChain(unary, moves, initial=first, lengths=self.lengths, validate_args=False)
            for unary, moves, first in zip(self.unary, self.transition, initial, strict=True)
        )

    def marginals(self) -> FactorialParts:
        unary, moves = zip(*(chain.marginals() for chain in self.chains), strict=True)
        unary, moves = _among_possible(unary, moves)
        return FactorialParts(unary, moves, None)

    def edge_marginals(self) -> tuple[Tensor, ...]:
        found = (chain.marginals(*x._args, edges=True) for x in self.chains)
        return _among_possible(*zip(*found, strict=True))[1]

    def pair_marginals(self, i: int, j: int) -> Tensor:
        i, j = pair(i, j, len(self.sizes))
        unary = self.marginals().unary
        assert unary is not None
        return unary[i].unsqueeze(-1) * unary[j].unsqueeze(-2)

    def joint(self) -> JointChains:
        count = len(self.sizes)
        unary = along(self.unary[0], 0, count)
        for i, x in enumerate(self.unary[1:], 1):
            unary = unary + along(x, i, count)
        return JointChains(
            unary, self.transition, initial=self.initial, lengths=self.lengths, validate_args=False
        )

    def max_marginals(self) -> FactorialParts:
        """The best score of any structure that uses a part; -inf where there is none, and in padding.

        Not differentiable.
        """
        chains = self.detach().chains
        best = [x._score(x.argmax()) for x in chains]
        unary, moves = [], []
        for i, x in enumerate(chains):
            mine = x.max_marginals()
            others = sum((score for j, score in enumerate(best) if j != i), torch.zeros_like(best[0]))
            unary.append((mine.unary + others[..., None, None]).to(self._dtype))
            moves.append((mine.transition + others[..., None, None]).to(self._dtype))
        return FactorialParts(tuple(unary), tuple(moves), None)

    # ---- hooks -----------------------------------------------------------------------------------------

    def _log_partition(self, *, as_double: bool) -> Tensor:
        parts = torch.stack([x._log_partition(as_double=True) for x in self.chains])
        # masked, so that chains beside an impossible one get no gradient
        total = parts.sum(0).masked_fill((parts == -torch.inf).any(0), -torch.inf)
        return total if as_double else self._rounded(total)

    def _argmax(self) -> Tensor:
        found = torch.stack([x.argmax() for x in self.chains], -2)
        return found.masked_fill(_without(found), -1)

    def _best(self, k: int) -> Tensor:
        """The k best of all are among the sums of the k best of each: chains are added one at a time."""
        best = [(events, _scores_of_best(x, events)) for x in self.detach().chains for events in [x._best(k)]]
        events, scores = best[0][0].unsqueeze(-2), best[0][1]
        for mine, gains in best[1:]:
            events, scores = _merged(events, scores, mine.unsqueeze(-2), gains)
        return events.masked_fill((scores == -torch.inf)[..., None, None], -1)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        found = [x._sample(num_samples, nth_seed(seed, i)) for i, x in enumerate(self.chains)]
        states = torch.stack(found, -2)
        return states.masked_fill(_without(states), -1)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        """Through one chain of all steps of all chains, one chain after the other."""
        states, perturbed = _end_to_end(self.detach().chains)._sample_distinct(k, seed)
        states = states.unflatten(-1, self._event_shape)
        found = self._without_padding(states.masked_fill((perturbed == -torch.inf)[..., None, None], -1))
        return found, perturbed

    def _perturbed(self, num_samples: int, seed: int) -> SeparateChains:
        noise = [
            gumbel(x, event_dims=2, num_samples=num_samples, seed=nth_seed(seed, i))
            for i, x in enumerate(self.unary)
        ]
        return self.expand((num_samples, *self._batch_shape))._plus(unary=tuple(noise))

    def _score(self, event: Tensor) -> Tensor:
        scores = [x._score(event[..., i, :]) for i, x in enumerate(self.chains)]
        return sum(scores[1:], scores[0])

    def _part_scores(self) -> FactorialParts:
        first = first_steps(self)
        unary = self.unary if first is None else tuple(a + b for a, b in zip(self.unary, first, strict=True))
        return FactorialParts(unary, self.transition, None)

    def _unary_moves(self, parts: Any) -> tuple[Tensor | None, ...]:
        return tuple(parts[0])

    def _joint_counts(self, event: Tensor) -> None:
        return None

    def _check_values(self) -> None:
        for i, (unary, moves) in enumerate(zip(self.unary, self.transition, strict=True)):
            first = None if self.initial is None else self.initial[i]
            try:
                LinearChain(unary, moves, initial=first, lengths=self.lengths, validate_args=True)
            except ValueError as error:
                raise ValueError(f"chain {i}: {error}") from None


def _among_possible(unary: Sequence[Tensor], moves: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
    """Both, 0 where one of the chains has no structure: its marginals of the first step are all 0."""
    possible = unary[0].new_ones(unary[0].shape[:-2], dtype=torch.bool)
    for x in unary:
        possible = possible & (x[..., :1, :] > 0).flatten(-2).any(-1)
    return tuple(
        tuple(
            torch.where(possible.reshape(possible.shape + (1,) * (x.dim() - possible.dim())), x, 0.0)
            for x in xs
        )
        for xs in (unary, moves)
    )


def _without(states: Tensor) -> Tensor:
    """(*b, 1, 1) bool, of states (*b, m, n): where one of the chains has no structure (or no steps)."""
    return (states == -1).all(-1, keepdim=True).any(-2, keepdim=True)


def _scores_of_best(chain: LinearChain, events: Tensor) -> Tensor:
    """Scores (k, *b) of a chain's k best, -inf where there are fewer."""
    absent = (events == -1).all(-1)
    absent[0] = False  # of length 0, the one without content is the empty structure
    return chain._score(events).masked_fill(absent, -torch.inf)


def _merged(events: Tensor, scores: Tensor, mine: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """The k best sums of two lists of k scores (k, *b), and the states (k, *b, i + 1, n) that have them."""
    k = len(scores)
    sums = (scores.unsqueeze(1) + gains.unsqueeze(0)).flatten(0, 1)
    scores, order = (x[:k] for x in sums.sort(dim=0, descending=True, stable=True))
    left, right = ((x[..., None, None]) for x in (order // k, order % k))
    chosen = [events.take_along_dim(left, 0), mine.take_along_dim(right, 0)]
    return torch.cat(chosen, -2), scores


def _end_to_end(chains: Sequence[LinearChain]) -> LinearChain:
    """Independent chains as one of m n steps; a step that is none, past an end, has state 0 alone."""
    size = max(x.unary.shape[-1] for x in chains)
    unary, moves = [], []
    for x in chains:
        padding, k = x._padding(), x.unary.shape[-1]
        scores = x._part_scores().unary
        steps = x._stepwise().transition.expand(*x._batch_shape, -1, -1, -1)
        if padding is not None:
            scores = torch.where(
                padding.unsqueeze(-1),
                torch.where(torch.arange(k, device=scores.device) == 0, 0.0, -torch.inf),
                scores,
            )
            steps = steps.masked_fill(padding[..., 1:, None, None], 0.0)
        unary.append(pad(scores, (0, size - k), value=-torch.inf))
        # zeros from the last state of a chain to the first of the next
        moves.append(pad(steps, (0, size - k, 0, size - k, 1 if x.unary.shape[-2] else 0, 0)))
    return LinearChain(torch.cat(unary, -2), torch.cat(moves, -3)[..., 1:, :, :], validate_args=False)
