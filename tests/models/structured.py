"""Small structured VAEs in float64, whose latent structures can be listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.models import ChainVAE, GrammarVAE, StructuredVAE, TreeVAE
from tests.distributions.examples import chain_structures
from tests.distributions.tree_cases import binary_structures, tree_structures

VOCABULARY, LENGTH = 3, 3


def chain() -> StructuredVAE:
    return ChainVAE(VOCABULARY, num_states=2, dim=2, history=True)


def chain_without_words() -> StructuredVAE:
    return ChainVAE(VOCABULARY, num_states=2, dim=2)


def tree() -> StructuredVAE:
    return TreeVAE(VOCABULARY, num_labels=2, dim=2)


def grammar() -> StructuredVAE:
    return GrammarVAE(VOCABULARY, num_nonterminals=2, num_preterminals=1, dim=2)


MODELS: dict[str, tuple[Callable[[], StructuredVAE], Callable[[Any], Tensor]]] = {
    "chain": (chain, chain_structures),
    "chain without words": (chain_without_words, chain_structures),
    "tree": (tree, binary_structures),
    "grammar": (grammar, tree_structures),
}
models = pytest.mark.parametrize("name", MODELS)


def built(name: str) -> StructuredVAE:
    """Its parameters are spread out, so that nothing is nearly uniform."""
    torch.manual_seed(3)
    model = MODELS[name][0]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def one_sentence() -> Tensor:
    return torch.tensor([[2, 0, 1]])


class Listed:
    """Everything about one sentence, by the list of its structures: (count) each."""

    def __init__(self, model: StructuredVAE, name: str, x: Tensor, lengths: Tensor | None = None) -> None:
        q, p = model.encode(x, lengths), model.prior_for(x, lengths)
        self.events = MODELS[name][1](q[0]).unsqueeze(1)  # (count, 1, *event)
        self.log_q, self.log_prior = q.log_prob(self.events)[:, 0], p.log_prob(self.events)[:, 0]
        self.log_likelihood = model.log_likelihood(x, lengths, self.events)[:, 0]
        self.q = self.log_q.exp()

    def __len__(self) -> int:
        return len(self.events)

    @property
    def reconstruction(self) -> Tensor:
        return (self.q * self.log_likelihood).sum()

    @property
    def kl(self) -> Tensor:
        return (self.q * (self.log_q - self.log_prior)).sum()

    @property
    def log_joint(self) -> Tensor:
        return self.log_likelihood + self.log_prior

    def importance_bound(self) -> Tensor:
        """The mean of the bound of two samples."""
        log_weight = self.log_joint - self.log_q
        pairs = torch.logaddexp(log_weight.unsqueeze(0), log_weight.unsqueeze(1)) - torch.tensor(2.0).log()
        return (self.q.unsqueeze(0) * self.q.unsqueeze(1) * pairs).sum()


def trained(model: StructuredVAE, *parts: str) -> list[Tensor]:
    """The model's parameters, without the estimator's; or those of these parts of the model."""
    names = parts or ("recognition", "structure_prior", "decoder")
    return [p for name, p in model.named_parameters() if name.startswith(names)]


def gradient(value: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(value, parameters, materialize_grads=True, allow_unused=True)
    return torch.cat([g.flatten() for g in found])
