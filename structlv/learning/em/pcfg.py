"""EM of probabilistic context-free grammars: inside and outside."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv.distributions import PCFG, TreePosterior
from structlv.distributions.emissions import CategoricalEmission
from structlv.learning.em.m_step import Prior, check_fixed, log_ratio, weighted
from structlv.learning.em.problem import Expectation, Problem, Sequences, plus

CHUNK = 1 << 11  # words of the sentences that are looked at together


class PCFGCounts(NamedTuple):
    """Expected counts, sums over all sentences, float64: roots (NT), rules (NT, S, S), words (T, v)."""

    root: Tensor
    rules: Tensor
    emission: Tensor


class PCFGProblem(Problem):
    """Sentences, and a PCFG with dense rules to explain them, in float64.

    The counts are the gradient of log Z with respect to the log-probabilities. Sources: Baker 1979; Lari &
    Young 1990, section 3; Eisner 2016, "Inside-outside and forward-backward algorithms are just backprop".
    """

    def __init__(
        self,
        like: PCFG,
        x: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        *,
        prior: Prior,
        fixed: Collection[str] = (),
    ) -> None:
        prior.check()
        self.prior, self.fixed = prior, check_fixed(fixed, ("root", "rules", "emission"))
        self.data = Sequences(x, 0, lengths, mask)
        if bool((self.data.lengths < 2).any()):
            raise ValueError(
                f"a sentence needs two words or more, found one of {int(self.data.lengths.min())}"
            )
        self.dtype = like.root_logits.dtype
        self.items, self.steps = len(self.data), self.data.steps

    def begin(self, model: PCFG) -> PCFG:
        if model.batch_shape:
            raise ValueError(f"EM needs parameters of batch_shape (), found {tuple(model.batch_shape)}")
        return model.detach().to(torch.float64)

    def finished(self, model: PCFG) -> PCFG:
        return model.to(self.dtype)

    @torch.no_grad()
    def e_step(self, model: PCFG, carry: Any = None, items: Tensor | None = None) -> Expectation:
        counts, value = PCFGCounts(*(torch.zeros_like(x) for x in self.tensors(model))), 0.0
        for part in self.data.chunks(items, CHUNK):
            observed = None if part.mask is None else part.observed
            leaves = [x.detach().clone().requires_grad_() for x in self.tensors(model)]
            root, rules, emission = leaves
            emitted = CategoricalEmission(emission)
            emitted.check(part.x, part.observed, values=True)
            with torch.enable_grad():
                unary = emitted.log_likelihood(part.x, observed)
                trees = TreePosterior(root, rules, unary, lengths=part.lengths, validate_args=False)
                log_z = trees.log_partition()
                found = torch.autograd.grad(log_z.sum(), leaves)
            if not bool((log_z > -torch.inf).all()):
                raise ValueError("the grammar gives a sentence probability 0: begin with one that allows it")
            counts, value = plus(counts, PCFGCounts(*found)), value + float(log_z.detach().sum())
        return Expectation(counts, value)

    def m_step(self, model: PCFG, counts: PCFGCounts) -> PCFG:
        root, rules, emission = self.tensors(model)
        if "root" not in self.fixed:
            root = log_ratio(counts.root, root, self.prior.initial)
        if "rules" not in self.fixed:
            pairs = log_ratio(counts.rules.flatten(-2), rules.flatten(-2), self.prior.transition)
            rules = pairs.unflatten(-1, rules.shape[-2:])
        if "emission" not in self.fixed:
            emission = log_ratio(counts.emission, emission, self.prior.emission)
        return PCFG(root, rules, emission)

    def log_prior(self, model: PCFG) -> float:
        root, rules, emission = self.tensors(model)
        total = weighted(self.prior.initial, root) + weighted(self.prior.transition, rules)
        return total + weighted(self.prior.emission, emission)

    def tensors(self, model: PCFG) -> list[Tensor]:
        return [model.root_logits, model.rule_logits, model.emission_logits]

    def restored(self, model: PCFG, tensors: list[Tensor]) -> PCFG:
        new = dict(zip(("root_logits", "rule_logits", "emission_logits"), tensors, strict=True))
        return model._derived(lambda name, _: new[name])  # past the constructor: they are normalised already

    def fingerprint(self) -> str:
        return f"{self.data.checksum()}:{self.prior.fingerprint()}:{sorted(self.fixed)}"
