"""Structures as series of choices: what the choices are worth, and what stands for which."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from structlv import GumbelCRF, SparseRules, StructuredDistribution, TreePosterior
from structlv.distributions import traces
from structlv.distributions.algebra import flat
from tests.distributions.examples import EXAMPLES, Example
from tests.distributions.laws import function
from tests.distributions.tree_cases import RULES
from tests.tolerance import assert_nats, assert_probabilities

SAMPLES = 20
chosen = pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if e.name != "choice"], ids=lambda e: e.name.replace(" ", "-")
)


def traced(d: StructuredDistribution) -> tuple[StructuredDistribution, Tensor, traces.Trace]:
    d = d._by_choices()
    event = d._sample(SAMPLES, 5)
    return d, event, d._trace(event)


@chosen
def test_what_was_chosen_is_the_structure(example: Example) -> None:
    d, event, trace = traced(example.make())
    parts = trace.parts([c.hard() for c in trace.choices])
    for found, wanted in zip(flat(parts), flat(d.to_parts(event)), strict=True):
        assert torch.equal(found, wanted)


@chosen
def test_choices_have_the_probability_of_the_structure(example: Example) -> None:
    """And its gradient; where no structure is possible nothing is chosen."""
    d, event, trace = traced(example.make())
    some = d._log_partition(as_double=True) > -torch.inf
    found = torch.stack([c.log_prob() for c in trace.choices]).sum(0)
    assert_nats(found, torch.where(some, d._log_prob(event), 0.0))

    def gradient(of_choices: bool) -> list[Tensor]:
        def total(d: StructuredDistribution) -> Tensor:
            d = d._by_choices()
            each = [c.log_prob() for c in d._trace(event).choices] if of_choices else [d._log_prob(event)]
            return torch.where(some, torch.stack(each).sum(0), 0.0).sum() / SAMPLES

        fn, inputs = function(example, total)
        value = fn(*inputs)
        if not value.requires_grad:
            return []
        found = torch.autograd.grad(value, inputs, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]

    for one, other in zip(gradient(True), gradient(False), strict=True):
        assert_probabilities(one, other)


def sentences(n: int, labels: int, *lengths: int) -> TreePosterior:
    """Random ones; of fewer words, the beginnings of those of more."""
    generator = Generator().manual_seed(3)
    unary, spans = (
        torch.randn(len(lengths), 6, *shape, generator=generator) for shape in ((2,), (6, labels))
    )
    rules = SparseRules(torch.tensor(RULES), torch.randn(9, generator=generator))
    return TreePosterior(
        torch.zeros(3), rules, unary[:, :n], spans=spans[:, :n, :n], lengths=torch.tensor(lengths)
    )


@pytest.mark.parametrize("labels", [1, 3])
def test_choices_of_listed_rules_do_not_depend_on_padding_or_on_others(labels: int) -> None:
    method, generator = GumbelCRF(), Generator()
    padded = sentences(6, labels, 4, 6, 0).rsample((3,), generator.manual_seed(1), method=method)
    alone = sentences(4, labels, 4, 0, 0)[:1].rsample((3,), generator.manual_seed(1), method=method)
    for name, cut in (("root", ()), ("rules", ()), ("unary", (4,)), ("spans", (4, 4))):
        found = getattr(padded, name)[(slice(None), slice(1), *map(slice, cut))]
        assert_probabilities(found, getattr(alone, name))
    assert all(not bool(x[:, 2].any()) for x in padded)


def test_refusal_of_tables_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of that size is made; the error says how large it would be."""
    d = sentences(4, 1, 4, 2)
    monkeypatch.setattr(traces, "MAX_BYTES", 2**20)
    assert d.rsample((2,), method=GumbelCRF()).rules.shape == (2, 2, 9)
    with pytest.raises(
        ValueError, match=r"3000 x 2 x \d+ x 4 x 2 numbers, about [\d.]+ GiB in all, and 0.000977"
    ):
        d.rsample((3000,), method=GumbelCRF())
