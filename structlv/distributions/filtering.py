"""Filtering a stream: what is known of the last state, from one observation to the next."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from structlv.distributions.validation import broadcast_batch, require_events, uniform_floats
from structlv.reference.semiring import log_normalize, log_vecmat, logsumexp


class FilterState(NamedTuple):
    """What a stream has told so far; O(k) memory for each item, however long it is.

    Attributes:
        states: (*b, k) log p(z_t = i | x_1..x_t), nats; -inf where nothing is possible.
        log_prob: (*b) log p(x_1..x_t), float64 nats. Of a model that may stop: that it did not stop before,
            too. Of scores that are not normalised: the log of the sum over all prefixes.
        steps: t.
    """

    states: Tensor
    log_prob: Tensor
    steps: int


def filter_step(
    state: FilterState | None, unary: Tensor, transition: Tensor, initial: Tensor | None = None
) -> FilterState:
    """One step of the forward recursion: the rows of ``LinearChain.filter()`` as their scores arrive.

    O(b k^2) time. Differentiable through all steps so far (detach ``states`` to forget them).

    Args:
        state: what the steps before have told; None at the first.
        unary: (*b, k) scores of the states at this step.
        transition: (*b, k, k) scores of the states here ``[..., j]`` after those of the step before. Not used
            at the first.
        initial: (*b, k) scores of the first state, or None. Used at the first step alone.

    Raises:
        TypeError: dtypes differ, or are not floating.
        ValueError: shapes do not fit together.
    """
    unary, transition, initial = uniform_floats(unary=unary, transition=transition, initial=initial)
    k = unary.shape[-1] if unary.dim() else 0
    require_events("unary", unary, "(*b, k)", k)
    require_events("transition", transition, "(*b, k, k)", k, k)
    batches = {"unary": unary.shape[:-1], "transition": transition.shape[:-2]}
    if initial is not None:
        require_events("initial", initial, "(*b, k)", k)
        batches["initial"] = initial.shape[:-1]
    if state is not None:
        require_events("state.states", state.states, "(*b, k)", k)
        batches["state"] = state.states.shape[:-1]
    batch = broadcast_batch(batches)
    if state is None:
        joint = unary if initial is None else unary + initial
        before: Tensor | float = 0.0
    else:
        joint = unary + log_vecmat(state.states, transition)
        before = state.log_prob
    joint = joint.expand(*batch, k)
    total = logsumexp(joint.double(), -1)
    # nothing follows what was impossible, and -inf is no longer added to -inf
    return FilterState(log_normalize(joint), total + before, 1 if state is None else state.steps + 1)
