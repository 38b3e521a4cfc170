"""EM of hidden Markov models: Baum and Welch's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from structlv.distributions import HMM, Exact, LinearChain
from structlv.learning.em.emission_family import Family, Options, Parameters
from structlv.learning.em.emission_steps import family_of
from structlv.learning.em.m_step import Groups, Prior, Tied, check_fixed, log_ratio, weighted
from structlv.learning.em.problem import Expectation, Problem, Sequences, plus

EVIDENCE = ("states", "allowed")


class MonteCarlo(NamedTuple):
    """An E-step that counts posterior samples instead of summing: Wei & Tanner (1990). Promises nothing.

    Attributes:
        samples: of the states of each sequence, at every E-step.
        seed: with the E-step's number it decides the samples.
    """

    samples: int = 16
    seed: int = 0


class HMMCounts(NamedTuple):
    """Expected counts, sums over all sequences, float64.

    Attributes:
        initial: (k), first states.
        transition: (k, k), moves from i to j.
        final: (k), last states; None where the model does not score stopping.
        emission: statistics of its family (`emission_steps`), a row for each group of states.
    """

    initial: Tensor
    transition: Tensor
    final: Tensor | None
    emission: tuple[Tensor, ...]


class HMMProblem(Problem):
    """Sequences, and an HMM to explain them. EM runs in float64; the result has the start's dtype.

    The counts are the gradient of log Z: one pass forward and one back, each state and move summed over
    sequences in float64. Source: Baum et al. 1970; Rabiner 1989, section III.C, with scaling in place of
    his equation 95; mixtures: equations 51-54; several sequences: section V.B.
    """

    def __init__(
        self,
        like: HMM,
        x: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        *,
        prior: Prior,
        fixed: Collection[str] = (),
        tied: Tied | None = None,
        evidence: Mapping[str, Tensor] | None = None,
        method: MonteCarlo | None = None,
    ) -> None:
        prior.check()
        if method is not None and not isinstance(method, MonteCarlo | Exact):
            raise ValueError(f"method of an HMM must be Exact() or MonteCarlo(...), found {method}")
        self.method = method if isinstance(method, MonteCarlo) else None
        self.monotone = self.method is None
        if not set(evidence or ()) <= set(EVIDENCE):
            raise ValueError(
                f"evidence must be among {', '.join(EVIDENCE)}, found {', '.join(evidence or ())}"
            )
        if len(like.transition_logits.shape) != 2:
            found = tuple(like.transition_logits.shape)
            raise ValueError(f"EM needs transition_logits (k, k), the same at all steps, found {found}")
        self.prior, self.tied = prior, tied or Tied()
        names = ["initial", "transition", "final", "emission"]
        fixed = {fixed} if isinstance(fixed, str) else set(fixed)
        self.family: Family | None = None if "emission" in fixed else family_of(like.emission)
        if self.family is not None:
            names += [name for name in self.family.names if name not in names]
        self.fixed = check_fixed(fixed, names)
        k, device = like.initial_logits.shape[-1], x.device
        self.rows = Groups("transition", self.tied.transition, k, device)
        self.emitters = Groups("emission", self.tied.emission, k, device)
        self.dtype = like.initial_logits.dtype
        self.data = Sequences(x, len(like.event_shape), lengths, mask, evidence, wide=("allowed",))
        if self.data.x.is_floating_point():
            self.data.x = self.data.x.double()
        self.items, self.steps = len(self.data), self.data.steps

    def begin(self, model: HMM) -> HMM:
        if model.batch_shape:
            raise ValueError(f"EM needs parameters of batch_shape (), found {tuple(model.batch_shape)}")
        model = model.detach().to(torch.float64)
        same = self.rows.first[self.rows.of]
        final = None if model.final_logits is None else model.final_logits[same]
        return HMM(
            model.initial_logits,
            model.transition_logits[same],
            self._shared(model.emission),
            final_logits=final,
        )

    def finished(self, model: HMM) -> HMM:
        return model.to(self.dtype)

    # ---- E-step ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def e_step(self, model: HMM, carry: Any = None, items: Tensor | None = None) -> Expectation:
        parameters = self._parameters(model)
        counts, value = self._no_counts(model, parameters), 0.0
        turn = 0 if carry is None else carry
        for number, part in enumerate(self.data.chunks(items)):
            chain = model.posterior(part.x, part.lengths, part.mask)
            if part.evidence:
                chain = chain.condition(**part.evidence)
            states, found, log_z = expected_states(chain)
            if self.method is not None:
                states, found = sampled_states(chain, self.method, (turn, number))
            value += log_z
            emission = tuple(map(torch.zeros_like, counts.emission))
            if self.family is not None and parameters is not None and part.steps:
                weights = self.emitters.pooled(states[part.observed].T).T
                emission = self.family.statistics(parameters, part.x[part.observed], weights)
            counts = plus(counts, found._replace(emission=emission))
        return Expectation(counts, value, turn + 1 if self.method is not None else None)

    def _no_counts(self, model: HMM, parameters: Parameters | None) -> HMMCounts:
        k = model.initial_logits.shape[-1]
        zero = model.initial_logits.new_zeros
        emission: tuple[Tensor, ...] = ()
        if self.family is not None and parameters is not None:
            none = self.data.x.new_zeros(1, *self.data.x.shape[2:])
            emission = self.family.statistics(parameters, none, zero(1, len(self.emitters.first)))
        return HMMCounts(zero(k), zero(k, k), None if model.final_logits is None else zero(k), emission)

    # ---- M-step ----------------------------------------------------------------------------------------

    def m_step(self, model: HMM, counts: HMMCounts) -> HMM:
        initial, emission = model.initial_logits, model.emission
        if "initial" not in self.fixed:
            initial = log_ratio(counts.initial, initial, self.prior.initial)
        transition, final = self._moves(model, counts)
        parameters = self._parameters(model)
        if self.family is not None and parameters is not None:
            found = self.family.step(parameters, counts.emission, self._options(parameters))
            emission = self.family.emission(tuple(p[self.emitters.of] for p in found))
        return HMM(initial, transition, emission, final_logits=final)

    def _moves(self, model: HMM, counts: HMMCounts) -> tuple[Tensor, Tensor | None]:
        """Rows of transitions, with stopping one more outcome: of two that sum to 1 one may be fixed."""
        transition, final = model.transition_logits, model.final_logits
        if final is None or counts.final is None:
            return (
                transition if "transition" in self.fixed else self._rows(transition, counts.transition)
            ), None
        outcomes = torch.cat([transition, final.unsqueeze(-1)], -1)
        found = self._rows(outcomes, torch.cat([counts.transition, counts.final.unsqueeze(-1)], -1))
        if {"transition", "final"} <= self.fixed:
            found = outcomes
        elif "final" in self.fixed:  # which move, given that there is one
            left = torch.log1p(-final.exp()).unsqueeze(-1)
            found = torch.cat([found[:, :-1].log_softmax(-1) + left, final.unsqueeze(-1)], -1)
        elif "transition" in self.fixed:  # whether there is a move
            left = torch.log1p(-found[:, -1:].exp())
            found = torch.cat([transition.log_softmax(-1) + left, found[:, -1:]], -1)
        return found[:, :-1], found[:, -1]

    def _rows(self, old: Tensor, counts: Tensor) -> Tensor:
        weight = torch.as_tensor(self.prior.transition).to(old)
        if old.shape[-1] > len(old):  # the last outcome is stopping
            k = len(old)
            moves = weight.expand(len(self.rows.first), k)
            stops = torch.as_tensor(self.prior.final).to(old).expand(len(self.rows.first)).unsqueeze(-1)
            weight = torch.cat([moves, stops], -1)
        return log_ratio(self.rows.pooled(counts), old[self.rows.first], weight)[self.rows.of]

    def log_prior(self, model: HMM) -> float:
        total = weighted(self.prior.initial, model.initial_logits)
        total += weighted(self.prior.transition, model.transition_logits[self.rows.first])
        if model.final_logits is not None:
            total += weighted(self.prior.final, model.final_logits[self.rows.first])
        parameters = self._parameters(model)
        if self.family is not None and parameters is not None:
            total += self.family.log_prior(parameters, self._options(parameters))
        return total

    def moved(self, counts: HMMCounts, old: HMM, new: HMM) -> HMMCounts:
        before, after = self._parameters(old), self._parameters(new)
        if self.family is None or before is None or after is None:
            return counts
        return counts._replace(emission=self.family.moved(counts.emission, before, after))

    # ---- parameters ------------------------------------------------------------------------------------

    def _parameters(self, model: HMM) -> Parameters | None:
        """Of the emission, a row for each group of states."""
        if self.family is None:
            return None
        return tuple(p[self.emitters.first] for p in self.family.parameters(model.emission))

    def _options(self, parameters: Parameters) -> Options:
        return emission_options(self.prior, self.fixed, self.tied, self.emitters, parameters)

    def _shared(self, emission: Any) -> Any:
        """The emission with what is tied made equal, in the form that the family makes."""
        if self.family is None:
            return emission
        parameters = tuple(p[self.emitters.first] for p in self.family.parameters(emission))
        groups = self._options(parameters).covariance
        if groups is not None:
            shape = parameters[-1].shape
            lead = 2 if len(groups.of) > len(parameters[0]) else 1
            rows = parameters[-1].flatten(0, lead - 1)
            sizes = groups.pooled(rows.new_ones(len(rows)))
            mean = groups.pooled(rows) / sizes.reshape(-1, *(1,) * (rows.dim() - 1))
            parameters = (*parameters[:-1], mean[groups.of].reshape(shape))
        if self.tied.spherical:
            covariance = parameters[-1]
            parameters = (*parameters[:-1], covariance.mean(-1, keepdim=True).expand_as(covariance))
        return self.family.emission(tuple(p[self.emitters.of] for p in parameters))

    def tensors(self, model: HMM) -> list[Tensor]:
        found = [model.initial_logits, model.transition_logits]
        found += [] if model.final_logits is None else [model.final_logits]
        return found + ([] if self.family is None else list(self.family.parameters(model.emission)))

    def restored(self, model: HMM, tensors: list[Tensor]) -> HMM:
        initial, transition, *rest = tensors
        final = None if model.final_logits is None else rest.pop(0)
        emission = model.emission if self.family is None else self.family.emission(tuple(rest))
        new = {
            "initial_logits": initial,
            "transition_logits": transition,
            "emission": emission,
            "final_logits": final,
        }
        return model._derived(lambda name, _: new[name])  # past the constructor: they are normalised already

    def fingerprint(self) -> str:
        options = (self.prior.fingerprint(), sorted(self.fixed), self.tied.fingerprint(), self.method)
        return f"{self.data.checksum()}:{options}"


def emission_options(
    prior: Prior, fixed: frozenset[str], tied: Tied, emitters: Groups, parameters: Parameters
) -> Options:
    """For parameters with a row for each group of ``emitters``: who shares a covariance, by such rows."""
    groups = None
    if tied.covariance is not None:
        each = torch.as_tensor(tied.covariance)[emitters.first.cpu()]
        rows = parameters[0].shape[:2].numel() if each.dim() == 2 else len(parameters[0])
        groups = Groups("covariance", each, rows, parameters[0].device)
    return Options(prior, fixed, groups, tied.spherical)


def expected_states(chain: LinearChain) -> tuple[Tensor, HMMCounts, float]:
    """p(z_t = i | x) (b, n, k), counts of first and last states and of moves, and the sum of log p(x).

    Raises ValueError where a sequence has probability 0.
    """
    parts = {name: getattr(chain, name) for name in ("unary", "transition", "initial", "final")}
    leaves = {name: x.detach().clone().requires_grad_() for name, x in parts.items() if x is not None}
    with torch.enable_grad():
        open_chain = LinearChain(**leaves, lengths=chain.lengths, validate_args=False)
        log_z = open_chain.log_partition()
        found = dict(zip(leaves, torch.autograd.grad(log_z.sum(), list(leaves.values())), strict=True))
    if not bool((log_z > -torch.inf).all()):
        raise ValueError(
            "the model gives a sequence probability 0 (as does every model that EM could make of it): begin "
            "with parameters that allow it, or give a prior"
        )
    counts = HMMCounts(found["initial"], found["transition"], found.get("final"), ())
    return found["unary"], counts, float(log_z.detach().double().sum())


def sampled_states(chain: LinearChain, method: MonteCarlo, turn: tuple[int, int]) -> tuple[Tensor, HMMCounts]:
    """What `expected_states` counts, averaged over samples of the states."""
    word = np.random.SeedSequence((method.seed, *turn)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(word >> np.uint64(1)))
    events = chain.sample((method.samples,), generator=generator)
    states, moves = (x.double().mean(0) for x in chain.to_parts(events))
    first, final = states[:, 0].sum(0), None
    if chain.final is not None and chain.lengths is not None:
        last = (chain.lengths - 1).reshape(-1, 1, 1)
        final = states.take_along_dim(last, 1).sum((0, 1))
    return states, HMMCounts(first, moves.sum(0), final, ())
