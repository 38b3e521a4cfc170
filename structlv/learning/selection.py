"""Choosing among models, and telling whether two of them found the same: criteria, and matching of states."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from structlv._extras import require
from structlv.distributions import HMM, PCFG
from structlv.distributions.parameters import map_tensors
from structlv.learning.em.emission_steps import family_of
from structlv.learning.em.hmm import emission_options
from structlv.learning.em.m_step import Groups, Prior, Tied
from structlv.learning.em.naive_bayes import NaiveBayesTables


def aic(log_likelihood: float, parameters: int) -> float:
    """Akaike's criterion, -2 log p + 2 parameters, in nats times two: the lower the better. Akaike (1974)."""
    return -2.0 * log_likelihood + 2.0 * parameters


def bic(log_likelihood: float, parameters: int, observations: int) -> float:
    """Schwarz's criterion, -2 log p + parameters log observations: the lower the better. Schwarz (1978).

    ``observations``: of a model of sequences usually the number of steps. Raises ValueError if it is < 1.
    """
    if observations < 1:
        raise ValueError(f"observations must be at least 1, found {observations}")
    return -2.0 * log_likelihood + parameters * math.log(observations)


def free_parameters(
    model: HMM | PCFG | NaiveBayesTables, *, fixed: Collection[str] = (), tied: Tied | None = None
) -> int:
    """How many numbers of a model may be chosen freely: of n probabilities that are not 0, n - 1.

    ``fixed`` and ``tied`` as `fit_em` takes them. (Of factorial HMMs over symbols: `num_parameters`.) Raises
    TypeError for another model, or an emission that EM does not know and that is not fixed.
    """
    held = {fixed} if isinstance(fixed, str) else set(fixed)
    if isinstance(model, HMM):
        return _of_hmm(model, frozenset(held), tied or Tied())
    if isinstance(model, PCFG):
        tables = {
            "root": model.root_logits,
            "rules": model.rule_logits.flatten(-2),
            "emission": model.emission_logits,
        }
    elif isinstance(model, NaiveBayesTables):
        tables = {"prior": model.prior_logits, "words": model.word_logits}
    else:
        raise TypeError(f"expected an HMM, PCFG or NaiveBayesTables, found {type(model).__name__}")
    return sum(_choices(table) for name, table in tables.items() if name not in held)


def _choices(logits: Tensor) -> int:
    """Free numbers of the rows of a table of log-probabilities."""
    return int(((logits > -torch.inf).sum(-1) - 1).clamp_min(0).sum())


def _of_hmm(model: HMM, fixed: frozenset[str], tied: Tied) -> int:
    k, device = model.initial_logits.shape[-1], model.initial_logits.device
    rows = Groups("transition", tied.transition, k, device)
    moves = _choices(model.transition_logits[rows.first].log_softmax(-1))
    stops = 0 if model.final_logits is None else int((model.final_logits[rows.first] > -torch.inf).sum())
    total = _choices(model.initial_logits) * ("initial" not in fixed)
    total += moves * ("transition" not in fixed) + stops * ("final" not in fixed)
    if "emission" in fixed:
        return total
    emitters = Groups("emission", tied.emission, k, device)
    family = family_of(model.emission)
    parameters = tuple(p[emitters.first] for p in family.parameters(model.emission))
    return total + family.free(parameters, emission_options(Prior(), fixed, tied, emitters, parameters))


def match_states(first: Tensor, second: Tensor) -> Tensor:
    """(k) int64: to each state of the first the state of the second that goes with it.

    Which states go together is decided by what they explain in common, of all one-to-one matchings the one
    with the most: the Hungarian algorithm, O(k^3), on the overlap.

    Args: ``first``, ``second``: of the same observations either states (N) int64, -1 where there is none, or
    their probabilities (N, k), such as posterior marginals. Raises ValueError where they do not fit, and
    MissingExtra without scipy (extra: sklearn).
    """
    first, second = _probabilities(first), _probabilities(second)
    if len(first) != len(second):
        raise ValueError(f"expected the same observations twice, found {len(first)} and {len(second)}")
    k = max(first.shape[1], second.shape[1])
    overlap = torch.zeros(k, k, dtype=torch.float64)
    overlap[: first.shape[1], : second.shape[1]] = first.T @ second
    solve = require("scipy.optimize", "sklearn").linear_sum_assignment
    _, found = solve(overlap.numpy(), maximize=True)
    return torch.as_tensor(found, dtype=torch.int64)[: first.shape[1]]


def _probabilities(states: Tensor) -> Tensor:
    if states.dim() == 2 and states.is_floating_point():
        return states.detach().double().cpu()
    if states.dim() != 1 or states.is_floating_point():
        found = f"{tuple(states.shape)} of {states.dtype}"
        raise ValueError(f"expected states (N) int64, or probabilities (N, k), found {found}")
    k = max(int(states.max()) + 1, 1) if len(states) else 1
    return (states.unsqueeze(-1).cpu() == torch.arange(k)).double()


def permuted(model: HMM, order: Tensor) -> HMM:
    """The HMM whose state i is ``model``'s state ``order[i]``: the same law of observations.

    So ``permuted(other, match_states(states, states_of_other))`` has the states of the first in their places.
    Raises ValueError unless ``order`` is a permutation and the parameters have no batch shape.
    """
    k = model.initial_logits.shape[-1]
    if order.sort().values.tolist() != list(range(k)):
        raise ValueError(f"order must be a permutation of 0..{k - 1}, found {order.tolist()}")
    if model.batch_shape or model.transition_logits.dim() != 2:
        raise ValueError("permuted needs parameters of batch_shape (), the same at all steps")

    def moved(value: Any) -> Any:
        return value[order]

    emission = model.emission
    emission = moved(emission) if isinstance(emission, Tensor) else _rows(emission, moved)
    final = None if model.final_logits is None else moved(model.final_logits)
    return HMM(
        moved(model.initial_logits), model.transition_logits[order][:, order], emission, final_logits=final
    )


def _rows(emission: Distribution, moved: Any) -> Distribution:
    """Every tensor of an emission has a row for each state."""
    return map_tensors(emission, moved)
