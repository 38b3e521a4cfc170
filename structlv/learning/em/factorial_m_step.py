"""The M-step of factorial hidden Markov models: the best parameters for given expectations of states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from structlv.distributions import (
    AdditiveGaussian,
    FactorialHMM,
    FactorialParts,
    IndependentBernoulli,
    LogLinearCategorical,
)
from structlv.distributions.factorial_emissions import FactorialEmission
from structlv.distributions.factorial_parts import along
from structlv.learning.em.m_step import Prior, log_ratio, weighted

LogLinear = TypeVar("LogLinear", LogLinearCategorical, IndependentBernoulli)
STEPS = 20  # of L-BFGS in an M-step without closed form
MOST = 40.0  # log-odds of a bit that was always set: +inf is not allowed
TIES = 1e-10  # directions under this part of the largest are none: chains may share a constant


class Expected(NamedTuple):
    """Expectations of the states at the N observed steps, sequences one after the other.

    Attributes:
        x: (N, *event_shape), the observations.
        unary: for each chain (N, k_i).
        joint: (N, S), the last chain fastest; None where chains are independent (mean field).
        initial: for each chain (k_i), the first states of all sequences, observed or not.
        transition: for each chain (k_i, k_i), the moves of all sequences.
    """

    x: Tensor
    unary: tuple[Tensor, ...]
    joint: Tensor | None
    initial: tuple[Tensor, ...]
    transition: tuple[Tensor, ...]


def expectations(parts: FactorialParts, x: Tensor, observed: Tensor) -> Expected:
    """What `FactorialChain.marginals` says of observations x (*b, n, *event_shape), in float64.

    ``observed`` is (*b, n) bool.
    """
    assert parts.unary is not None
    assert parts.transition is not None
    unary = tuple(p.double()[observed] for p in parts.unary)
    joint = None if parts.joint is None else parts.joint.double().flatten(-len(unary))[observed]
    return Expected(
        x[observed],
        unary,
        joint,
        tuple(p.double()[..., 0, :].flatten(0, -2).sum(0) for p in map(_batched, parts.unary)),
        tuple(p.double().flatten(0, -3).sum(0) for p in map(_batched, parts.transition)),
    )


def _batched(x: Tensor) -> Tensor:
    return x.unsqueeze(0)


def m_step(
    model: FactorialHMM, expected: Expected, prior: Prior, fixed: Collection[str] = ()
) -> FactorialHMM:
    """The model that maximises E log p(x, z) + log prior for fixed expectations, or one that is no worse.

    Closed form of initial and transition probabilities; of `AdditiveGaussian` (Ghahramani & Jordan 1997,
    appendix A: least squares on the expected states and pairs, by pseudo-inverse, and their shared
    covariance); of symbols and bits where there is one chain and no decay. Else a few steps of L-BFGS on the
    expected complete log-likelihood (concave in the logits if the expectations are exact; of mean field, on
    its bound): generalised EM. A callable emission stays as it is, and what ``fixed`` names.
    """
    initial, transition, emission = model.initial_logits, model.transition_logits, model.emission
    if "initial" not in fixed:
        initial = tuple(_ratios(expected.initial, initial, prior.initial))
    if "transition" not in fixed:
        transition = tuple(_ratios(expected.transition, transition, prior.transition))
    if "emission" not in fixed:
        emission = emission_step(emission, expected, prior)
    return FactorialHMM(initial, transition, emission)


def _ratios(counts: Sequence[Tensor], old: Sequence[Tensor], weight: float | Tensor) -> list[Tensor]:
    return [log_ratio(c, o, weight) for c, o in zip(counts, old, strict=True)]


def log_prior(model: FactorialHMM, prior: Prior) -> float:
    """The log prior of the parameters in nats, up to a constant."""
    total = sum((weighted(prior.initial, x) for x in model.initial_logits), 0.0)
    total += sum(weighted(prior.transition, x) for x in model.transition_logits)
    emission = model.emission
    if isinstance(emission, AdditiveGaussian) and prior.covariance:
        return total - 0.5 * float(prior.covariance) * float(
            torch.linalg.inv(emission.covariance.double()).trace()
        )
    if isinstance(emission, LogLinearCategorical | IndependentBernoulli):
        total = total + float(_log_linear_prior(emission, [x.double() for x in emission.logits], prior))
    return total


def emission_step(emission: FactorialEmission, expected: Expected, prior: Prior) -> FactorialEmission:
    """The emission's part of the M-step."""
    if isinstance(emission, AdditiveGaussian):
        return _additive(emission, expected, prior)
    if isinstance(emission, LogLinearCategorical):
        return _categorical(emission, expected, prior)
    if isinstance(emission, IndependentBernoulli):
        return _bernoulli(emission, expected, prior)
    return emission


# ---- sums of means -------------------------------------------------------------------------------------


def _additive(emission: AdditiveGaussian, expected: Expected, prior: Prior) -> AdditiveGaussian:
    """Ghahramani & Jordan 1997, equations A.3 and A.4, on x less its mean: then less cancels."""
    x = expected.x.double()
    centre = x.mean(0)
    x = x - centre
    states = torch.cat(expected.unary, -1)
    cross = states.T @ x
    rows = torch.linalg.pinv(_second_moments(expected), rtol=TIES, hermitian=True) @ cross
    residual = x.T @ x - rows.T @ cross
    identity = torch.eye(len(centre), dtype=x.dtype, device=x.device)
    covariance = (0.5 * (residual + residual.T) + prior.covariance * identity) / len(x)
    share = centre / len(emission.sizes)  # exactly one state of each chain adds its mean
    means = (rows + share).split(emission.sizes)
    dtype = emission.covariance.dtype
    return AdditiveGaussian([m.to(dtype) for m in means], covariance.to(dtype))


def _second_moments(expected: Expected) -> Tensor:
    """Sum over steps of E s s' for the states s of all chains one below the other, (K, K), K = sum k_i."""
    sizes = [p.shape[-1] for p in expected.unary]
    blocks = [[expected.unary[0].new_zeros(a, b) for b in sizes] for a in sizes]
    for i, p in enumerate(expected.unary):
        blocks[i][i] = p.sum(0).diag()
        for j in range(i):
            blocks[i][j] = _pairs(expected, i, j)
            blocks[j][i] = blocks[i][j].T
    return torch.cat([torch.cat(row, -1) for row in blocks], -2)


def _pairs(expected: Expected, i: int, j: int) -> Tensor:
    """Expected number of steps with chain i in state a and chain j < i in state b, (k_i, k_j)."""
    if expected.joint is None:
        return expected.unary[i].T @ expected.unary[j]
    table = expected.joint.sum(0).unflatten(0, [p.shape[-1] for p in expected.unary])
    others = [axis for axis in range(table.dim()) if axis not in (i, j)]
    return (table.sum(others) if others else table).T


# ---- log-linear emissions ------------------------------------------------------------------------------


def _categorical(emission: LogLinearCategorical, expected: Expected, prior: Prior) -> LogLinearCategorical:
    if expected.joint is None:
        return _bounded(emission, expected, prior)
    x = expected.x.long()
    counts = expected.joint.new_zeros(emission.logits[0].shape[-1], expected.joint.shape[-1])
    counts = counts.index_add(0, x, expected.joint).T
    if len(emission.logits) == 1 and not prior.decay:
        return LogLinearCategorical([log_ratio(counts, emission.logits[0], prior.emission)])
    return _climb(emission, prior, lambda logits: (counts * joint_logits(logits).log_softmax(-1)).sum())


def _bernoulli(emission: IndependentBernoulli, expected: Expected, prior: Prior) -> IndependentBernoulli:
    if expected.joint is None:
        return _bounded(emission, expected, prior)
    ones = expected.joint.T @ expected.x.double()
    zeros = expected.joint.T @ (1 - expected.x.double())
    if len(emission.logits) == 1 and not prior.decay:
        odds = (ones + prior.emission).log() - (zeros + prior.emission).log()
        odds = torch.where(odds.isnan(), emission.logits[0].double(), odds)  # a state without a step
        return IndependentBernoulli([odds.clamp(max=MOST).to(emission.logits[0].dtype)])
    return _climb(emission, prior, lambda logits: _log_bits(joint_logits(logits), ones, zeros))


def _bounded(emission: LogLinear, expected: Expected, prior: Prior) -> LogLinear:
    """On the bound that mean field maximises over the states, so that it never decreases."""
    kind = type(emission)
    return _climb(
        emission,
        prior,
        lambda logits: kind(logits).likelihood(expected.x, None, torch.Size()).expected(expected.unary).sum(),
    )


def joint_logits(logits: Sequence[Tensor]) -> Tensor:
    """Sums of one row of each chain (k_i, v), in the order of joint states: (S, v)."""
    count = len(logits)
    total = along(logits[0].T, 0, count)
    for i in range(1, count):
        total = total + along(logits[i].T, i, count)
    return total.flatten(1).T


def _log_bits(odds: Tensor, ones: Tensor, zeros: Tensor) -> Tensor:
    log_sigmoid = torch.nn.functional.logsigmoid
    return (ones * log_sigmoid(odds)).sum() + (zeros * log_sigmoid(-odds)).sum()


def _log_linear_prior(emission: FactorialEmission, logits: Sequence[Tensor], prior: Prior) -> Tensor:
    total = -0.5 * prior.decay * torch.stack([x.square().sum() for x in logits]).sum()
    if not prior.decay:
        total = torch.zeros_like(total)
    if prior.emission:
        table = joint_logits(logits)
        even = torch.full_like(table, float(prior.emission))
        if isinstance(emission, LogLinearCategorical):
            return total + (even * table.log_softmax(-1)).sum()
        return total + _log_bits(table, even, even)
    return total


def _climb(emission: LogLinear, prior: Prior, objective: Callable[[Sequence[Tensor]], Tensor]) -> LogLinear:
    """`STEPS` steps of L-BFGS on objective + log prior; the old logits where the result is not better.

    Raises ValueError where a logit is infinite: no gradient moves it.
    """
    if not all(bool(x.isfinite().all()) for x in emission.logits):
        raise ValueError("EM of several chains, or with decay, needs finite emission logits to start from")
    logits = [x.detach().double().clone().requires_grad_() for x in emission.logits]

    def value() -> Tensor:
        return objective(logits) + _log_linear_prior(emission, logits, prior)

    with torch.no_grad():
        before = float(value())
    scale = max(1.0, abs(before))  # then the optimiser's thresholds are relative
    optimiser = torch.optim.LBFGS(logits, max_iter=STEPS, history_size=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        lost = -value() / scale
        lost.backward()
        return lost.detach()

    with torch.enable_grad():
        optimiser.step(loss)
    with torch.no_grad():
        if not float(value()) > before:
            return emission
    return type(emission)([x.detach().to(old.dtype) for x, old in zip(logits, emission.logits, strict=True)])
