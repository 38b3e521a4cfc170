"""REBAR and RELAX: unbiased gradients of expectations over structures, with relaxations as control variates.

A structure z is drawn choice by choice (see ``structlv.distributions.traces``); each choice is the argmax of
log-probabilities, given those before, perturbed by Gumbel noise, and the softmax of the same numbers relaxes
it. With c a differentiable function of parts, z_<t the choices before t and zeta_t the relaxed one,

    (f(z) - c(z_<t, zeta'_t)) d log p(z_t | z_<t) + d c(z_<t, zeta_t) - d c(z_<t, zeta'_t),

summed over the choices, estimates the gradient of E[f] without bias, whatever c is: zeta comes from the noise
that led to z_t, zeta' from other noise that would have led there too, and the two have one law given z_<t
and z_t. Choices after t count as not made: they depend on z_t, and a c that saw them would have a bias. The
closer c is to f, the lower the variance. All of it is formed in the log-probabilities of the choices; what
they depend on gets it by the chain rule, so that no recursion is differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from structlv.distributions import StructuredDistribution
from structlv.distributions.algebra import flat, rebuilt
from structlv.distributions.seeding import draw_seed, nth_seed
from structlv.distributions.traces import Choices, Trace, require_memory
from structlv.learning.estimators import Estimator, checked_values, require_samples

__all__ = ["REBAR", "RELAX"]

Control = Callable[[Any], Tensor]


class _ControlVariate(nn.Module, Estimator):
    """What both share; its parameters are trained by the surrogate's own gradient, to a lower variance.

    That gradient is d/dphi of the squared norm of the estimate (in the choices' log-probabilities), an
    unbiased estimate of the variance's: Grathwohl et al. (2018), section 3.1. It reaches phi alone, and what
    p and f depend on gets the estimate alone: give the two to different optimisers, or to one.
    """

    of_parts = True

    def __init__(self, temperature: float, num_samples: int) -> None:
        super().__init__()
        require_samples(num_samples, 1)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, found {temperature!r}")
        self.num_samples = num_samples
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp()

    def _control(self, f: Control) -> Control:
        raise NotImplementedError

    def _learned(self) -> Iterable[Tensor]:
        return [x for x in self.parameters() if x.requires_grad]

    def forward(self, p: StructuredDistribution, f: Control, generator: Generator | None = None) -> Tensor:
        """The surrogate (*b). f maps parts, as ``p.rsample`` gives them after (s), to (s, *b).

        Raises:
            ValueError: f does not give one number for each sample and item, or the alternatives of all
                choices, once for each choice, would not fit into memory.
        """
        p, seed = p._by_choices(), draw_seed(generator)
        event = p._sample(self.num_samples, seed)
        trace = p._trace(event)
        values = checked_values(f(p.to_parts(event)), self.num_samples, p)
        leaves = [c.logits.detach().requires_grad_() for c in trace.choices]
        with torch.enable_grad():
            estimate = self._estimate(p, f, trace, leaves, values.detach(), seed)
        surrogate = values.mean(0)
        for c, g in zip(trace.choices, estimate, strict=True):
            used = torch.where(g == 0, 0.0, c.logits)  # what is impossible has no gradient
            used = (g.detach() * (used - used.detach())).flatten(len(values.shape)).sum(-1)
            surrogate = surrogate + used.mean(0).to(surrogate.dtype)
        return surrogate + self._variance(estimate).to(surrogate.dtype) / max(surrogate.numel(), 1)

    def _estimate(
        self,
        p: StructuredDistribution,
        f: Control,
        trace: Trace,
        leaves: list[Tensor],
        values: Tensor,
        seed: int,
    ) -> list[Tensor]:
        """For each sample, the gradient in the log-probabilities of its choices."""
        choices = [c._replace(logits=x) for c, x in zip(trace.choices, leaves, strict=True)]
        # zeta as if its noise had been there first, zeta' with the choice held
        free = [c.noisy(nth_seed(seed, 2 * i + 1)) for i, c in enumerate(choices)]
        tied = [c.perturbed(nth_seed(seed, 2 * i + 2)) for i, c in enumerate(choices)]
        control = self._control(f)
        log_prob = torch.stack([c.log_prob() for c in choices]).sum(0)
        # the derivative of log p(z) holds for normalised log-probabilities: minus the probabilities
        ones = torch.autograd.grad(log_prob.sum(), leaves)
        learn = len(list(self._learned())) > 0
        found = []
        for i, c in enumerate(choices):
            soft, same = (
                self._partial(p, control, trace, choices, i, c.relaxed(y, self.temperature))
                for y in (free[i], tied[i])
            )
            gap = (soft - same).sum()
            if gap.requires_grad:
                (path,) = torch.autograd.grad(gap, leaves[i], create_graph=learn, materialize_grads=True)
            else:  # a control variate that does not see choices of this kind
                path = torch.zeros_like(leaves[i])
            advantage = (values.unsqueeze(-1) - same)[(...,) + (None,) * c.dims]
            made = (c.chosen >= 0)[(...,) + (None,) * c.dims]
            found.append(advantage * (ones[i] - leaves[i].exp() * made) + path)
        return found

    def _partial(
        self,
        p: StructuredDistribution,
        control: Control,
        trace: Trace,
        choices: list[Choices],
        kind: int,
        relaxed: Tensor,
    ) -> Tensor:
        """c of the parts of the choices before, with ``relaxed`` in place of one choice: (s, *b, m)."""
        mine = choices[kind]
        m = mine.chosen.shape[-1]
        require_memory((m, *mine.logits.shape), mine.logits.element_size())
        place = torch.arange(m, device=relaxed.device)
        before = place > place.unsqueeze(-1) if mine.backwards else place < place.unsqueeze(-1)  # (choice, m)
        weights = []
        for j, c in enumerate(choices):
            hard = c.hard()
            hard = hard.expand(m, *hard.shape)
            if j == kind:
                at, past = (
                    x.reshape(m, *[1] * (hard.dim() - 2 - c.dims), m, *[1] * c.dims)
                    for x in (torch.eye(m, dtype=torch.bool, device=relaxed.device), before)
                )
                hard = torch.where(at, relaxed, torch.where(past, hard, 0.0))
            weights.append(hard if j <= kind else torch.zeros_like(hard))
        parts = trace.parts(weights)
        parts = rebuilt(parts, [x.flatten(0, 1) for x in flat(parts)])
        found = checked_values(control(parts), m * self.num_samples, p)
        found = found.unflatten(0, (m, self.num_samples)).movedim(0, -1)
        return torch.where(mine.chosen >= 0, found, 0.0)

    def _variance(self, estimate: list[Tensor]) -> Tensor:
        """0, with the gradient of the squared norm in the learned parameters."""
        learned = list(self._learned())
        size = sum((x.square().sum() for x in estimate), torch.zeros(()))
        if not torch.is_grad_enabled() or not learned or not size.requires_grad:
            return size.new_zeros(())
        found = torch.autograd.grad(size / self.num_samples, learned, allow_unused=True)
        moves = [(x * g).sum() for x, g in zip(learned, found, strict=True) if g is not None]
        total = sum(moves, size.new_zeros(()))
        return total - total.detach()


class REBAR(_ControlVariate):
    """The relaxed f itself as control variate, c = scale * f(parts).

    f maps parts, hard and relaxed ones, of whole structures and of beginnings, and must be differentiable.
    The scale and the temperature are learned. Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017),
    "REBAR: low-variance, unbiased gradient estimates for discrete latent variable models", section 3.

    Args:
        temperature: of the relaxation at the start.
        scale: of the control variate at the start.
        num_samples: s.
    """

    def __init__(self, temperature: float = 0.5, scale: float = 1.0, num_samples: int = 1) -> None:
        super().__init__(temperature, num_samples)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def _control(self, f: Control) -> Control:
        return lambda parts: self.scale * f(parts)


class RELAX(_ControlVariate):
    """A learned function of relaxed parts as control variate; f may be a black box, of hard parts alone.

    Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the void", section 3.

    Args:
        control: maps relaxed parts, as f has them, to (s, *b); differentiable. If a module, it is learned.
        temperature: of the relaxation at the start.
        with_f: whether f of the relaxed parts is added to it, as in the paper's discrete case: then f must
            be differentiable.
        num_samples: s.
    """

    def __init__(
        self,
        control: Control | nn.Module,
        temperature: float = 0.5,
        with_f: bool = False,
        num_samples: int = 1,
    ) -> None:
        super().__init__(temperature, num_samples)
        self.control, self.with_f = control, with_f

    @property
    def through_parts(self) -> bool:
        """Only with f in the control variate."""
        return self.with_f

    def _control(self, f: Control) -> Control:
        return (lambda parts: f(parts) + self.control(parts)) if self.with_f else self.control
