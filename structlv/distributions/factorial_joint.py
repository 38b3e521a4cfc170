"""Factorial chains whose states are scored jointly."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from structlv.distributions.algebra import added
from structlv.distributions.factorial_chain import FactorialChain
from structlv.distributions.factorial_parts import FactorialParts, along, ravel, unravel
from structlv.distributions.linear_chain import LinearChain
from structlv.distributions.validation import require_lengths
from structlv.ops import factorial
from structlv.ops.noise import gumbel


class JointChains(FactorialChain, joint=True):
    """``FactorialChain`` of a tensor of joint scores."""

    unary: Tensor

    def marginals(self) -> FactorialParts:
        joint, moves = factorial.marginals(*self._args, sizes=self.sizes)
        joint = joint.unflatten(-1, self.sizes)
        return FactorialParts(self._of_chains(joint), self._matrices(moves), joint)

    def edge_marginals(self) -> tuple[Tensor, ...]:
        return self._matrices(factorial.marginals(*self._args, sizes=self.sizes, edges=True)[1])

    def pair_marginals(self, i: int, j: int) -> Tensor:
        i, j = pair(i, j, len(self.sizes))
        joint = factorial.marginals(*self._args, sizes=self.sizes)[0].unflatten(-1, self.sizes)
        found = _kept(joint, len(self.sizes), (i, j))
        return found if i < j else found.transpose(-2, -1)

    def joint(self) -> JointChains:
        return self

    def max_marginals(self) -> FactorialParts:
        """The best score of any structure that uses a part; -inf where there is none, and in padding.

        Not differentiable. O(b n S^2) time.
        """
        joint, moves = self.to_chain().max_marginals()
        joint = joint.unflatten(-1, self.sizes)
        moves = moves.unflatten(-1, self.sizes).unflatten(-len(self.sizes) - 1, self.sizes)
        count = len(self.sizes)
        best = (_kept(moves, 2 * count, (i, count + i), torch.amax) for i in range(count))
        return FactorialParts(self._of_chains(joint, torch.amax), tuple(best), joint)

    def to_chain(self) -> LinearChain:
        unary, moves, initial, lengths = self._args
        transition, first = factorial.to_chain(moves, initial, sizes=self.sizes)
        return LinearChain(unary, transition, initial=first, lengths=lengths, validate_args=False)

    # ---- hooks -----------------------------------------------------------------------------------------

    @property
    def _args(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The potentials as the operators take them."""
        initial = None if self.initial is None else _joined(self.initial, 1)
        return self.unary.flatten(-len(self.sizes)), _joined(self.transition, 2), initial, self.lengths

    def _log_partition(self, *, as_double: bool) -> Tensor:
        return factorial.log_partition(*self._args, sizes=self.sizes, as_double=as_double)

    def _argmax(self) -> Tensor:
        return unravel(factorial.argmax(*self._args, sizes=self.sizes), self.sizes)

    def _best(self, k: int) -> Tensor:
        return unravel(self.to_chain()._best(k), self.sizes)

    def _sample(self, num_samples: int, seed: int) -> Tensor:
        found = factorial.sample(*self._args, sizes=self.sizes, num_samples=num_samples, seed=seed)
        return unravel(found, self.sizes)

    def _sample_distinct(self, k: int, seed: int) -> tuple[Tensor, Tensor]:
        states, perturbed = self.to_chain()._sample_distinct(k, seed)
        return unravel(states, self.sizes), perturbed

    def _perturbed(self, num_samples: int, seed: int) -> JointChains:
        dims = 1 + len(self.sizes)
        noise = gumbel(self.unary, event_dims=dims, num_samples=num_samples, seed=seed)
        return self.expand((num_samples, *self._batch_shape))._plus(unary=noise)

    def _score(self, event: Tensor) -> Tensor:
        return factorial.score(ravel(event, self.sizes), *self._args, sizes=self.sizes)

    def _part_scores(self) -> FactorialParts:
        return FactorialParts(first_steps(self), self.transition, self.unary)

    def _unary_moves(self, parts: Any) -> Tensor | None:
        moves = [None if x is None else along(x, i, len(self.sizes)) for i, x in enumerate(parts[0])]
        return reduce(added, moves, parts[2])

    def _joint_counts(self, event: Tensor) -> Tensor:
        joint = ravel(event, self.sizes).unsqueeze(-1)
        count = self.unary.shape[-len(self.sizes) :].numel()
        found = (joint == torch.arange(count, device=event.device)).to(self._dtype)
        return found.unflatten(-1, self.sizes)

    def _check_values(self) -> None:
        if self.lengths is not None:
            require_lengths(self.lengths, self._event_shape[-1])
        if factorial.has_nan(*self._args, sizes=self.sizes):
            raise ValueError("potentials must not be NaN, found NaN in unary, transition or initial")

    # ---- helpers ---------------------------------------------------------------------------------------

    def _of_chains(self, joint: Tensor, over: Any = torch.sum) -> tuple[Tensor, ...]:
        """What ``joint`` (*b, n, k_1, ..., k_m) is for each chain alone, (*b, n, k_i)."""
        count = len(self.sizes)
        return tuple(_kept(joint, count, (i,), over) for i in range(count))

    def _matrices(self, moves: Tensor) -> tuple[Tensor, ...]:
        """The chains' matrices (*, k_i, k_i) out of (*, sum k_i^2)."""
        flat = moves.split([k * k for k in self.sizes], -1)
        return tuple(x.unflatten(-1, (k, k)) for x, k in zip(flat, self.sizes, strict=True))


def first_steps(chains: FactorialChain) -> tuple[Tensor, ...] | None:
    """The initial scores as scores of steps, (*b, n, k_i) for each chain: zeros but at the first; or None."""
    if chains.initial is None:
        return None
    first = (torch.arange(chains.event_shape[-1], device=chains._any_unary.device) == 0).unsqueeze(-1)
    return tuple(torch.where(first, x.unsqueeze(-2), 0.0) for x in chains.initial)


def pair(i: int, j: int, count: int) -> tuple[int, int]:
    """Two different chains out of ``count``, negative numbers counted from the end."""
    for name, value in (("i", i), ("j", j)):
        if not isinstance(value, int) or not -count <= value < count:
            raise ValueError(f"{name} must be a chain, an integer in 0..{count - 1}, found {value!r}")
    if i % count == j % count:
        raise ValueError(f"i and j must be different chains, found {i} and {j}")
    return i % count, j % count


def _kept(x: Tensor, count: int, axes: tuple[int, ...], over: Any = torch.sum) -> Tensor:
    """``x``, of whose last ``count`` dimensions only ``axes`` are kept."""
    rest = [axis - count for axis in range(count) if axis not in axes]
    return over(x, rest) if rest else x


def _joined(tensors: tuple[Tensor, ...], event: int) -> Tensor:
    """The chains' scores, flattened and one after the other: (*b, sum) of (*b, k) or (*b, k, k)."""
    flat = [x.flatten(-event) for x in tensors]
    if any(x.shape[:-1] != flat[0].shape[:-1] for x in flat):
        batch = torch.broadcast_shapes(*(x.shape[:-1] for x in flat))
        flat = [x.expand(batch + x.shape[-1:]) for x in flat]
    return torch.cat(flat, -1)
