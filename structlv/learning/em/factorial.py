"""EM of factorial hidden Markov models, exact or with mean field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from structlv.distributions import Exact, FactorialHMM
from structlv.distributions.parameters import map_tensors
from structlv.learning.em.factorial_m_step import Expected, expectations, log_prior, m_step
from structlv.learning.em.m_step import Prior, check_fixed
from structlv.learning.em.problem import Expectation, Problem, crc


class FactorialProblem(Problem):
    """Sequences, and a factorial HMM to explain them, in its own dtype.

    ``method`` finds the posterior: ``Exact()``, or a mean field that begins with the one before, so that its
    bound never falls. Sources: Ghahramani & Jordan, "Factorial Hidden Markov Models", 1997, section 3 and
    appendix A.
    """

    additive = False  # log-linear emissions climb on all observations

    def __init__(
        self,
        like: FactorialHMM,
        x: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        *,
        prior: Prior,
        fixed: Collection[str] = (),
        method: Any = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        prior.check()
        self.x, self.lengths, self.mask, self.prior = x, lengths, mask, prior
        self.fixed = check_fixed(fixed, ("initial", "transition", "emission"))
        self.method, self.evidence = Exact() if method is None else method, dict(evidence or {})
        if self.evidence and not isinstance(self.method, Exact):
            raise ValueError(f"evidence needs method=Exact(), found {self.method}")
        split = x.dim() - len(like.event_shape)
        self.observed = torch.ones(x.shape[:split], dtype=torch.bool, device=x.device)  # (*b, n)
        if mask is not None:
            self.observed = self.observed & mask
        if lengths is not None:
            steps = torch.arange(self.observed.shape[-1], device=x.device)
            self.observed = self.observed & (steps < lengths.unsqueeze(-1))
        self.steps = int(self.observed.sum())
        self.items = self.observed[..., :1].numel()

    def begin(self, model: FactorialHMM) -> FactorialHMM:
        if model.batch_shape:
            raise ValueError(f"EM needs parameters of batch_shape (), found {tuple(model.batch_shape)}")
        return model

    @torch.no_grad()
    def e_step(self, model: FactorialHMM, carry: Any = None, items: Tensor | None = None) -> Expectation:
        posterior, value = model.infer(self.x, self.lengths, self.mask, self.method, start=carry)
        if self.evidence:
            posterior = posterior.condition(**self.evidence)
            value = posterior.log_partition()
        parts = posterior.marginals()
        counts = expectations(parts, self.x, self.observed)
        return Expectation(
            counts, float(value.double().sum()), None if parts.joint is not None else parts.unary
        )

    def m_step(self, model: FactorialHMM, counts: Expected) -> FactorialHMM:
        return m_step(model, counts, self.prior, self.fixed)

    def log_prior(self, model: FactorialHMM) -> float:
        return log_prior(model, self.prior)

    def tensors(self, model: FactorialHMM) -> list[Tensor]:
        """In the order in which `map_tensors` comes to them."""
        found: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            found.append(x.contiguous())
            return x

        map_tensors(model, keep)
        return found

    def restored(self, model: FactorialHMM, tensors: list[Tensor]) -> FactorialHMM:
        queue = iter(tensors)
        return map_tensors(model, lambda _: next(queue))

    def fingerprint(self) -> str:
        known = [
            x
            for value in self.evidence.values()
            for x in (value if isinstance(value, tuple | list) else [value])
        ]
        checksum = crc([self.x, self.lengths, self.mask, *known])
        options = (str(self.method), self.prior.fingerprint(), sorted(self.fixed), sorted(self.evidence))
        return f"{tuple(self.x.shape)}:{checksum:08x}:{options}"
