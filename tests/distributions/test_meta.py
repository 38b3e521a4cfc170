"""On the device "meta" there are shapes and no numbers: every query gives what it would give elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from structlv import SparseRules, TreePosterior
from structlv.distributions.algebra import flat
from structlv.ops import _route
from structlv.ops._register import Operator
from tests.distributions.choice import Choice
from tests.distributions.examples import EXAMPLES, Example

QUERIES = {
    "log_partition": lambda d: d.log_partition(),
    "marginals": lambda d: d.marginals(),
    "entropy": lambda d: d.entropy(),
    "kl": lambda d: d.kl(d),
    "argmax": lambda d: d.argmax(),
    "max_marginals": lambda d: d.max_marginals(),
    "topk": lambda d: d.topk(2),
    "sample": lambda d: d.sample((3,), Generator().manual_seed(0)),
    "rsample": lambda d: d.rsample((3,), Generator().manual_seed(0)),
    "log_prob": lambda d: d.log_prob(
        torch.zeros(d.batch_shape + d.event_shape, dtype=torch.long, device=of(d))
    ),
}
REFERENCE = ("marginals", "argmax", "max_marginals", "sample")


def of(d: Any) -> torch.device:
    return flat([getattr(d, name) for name in d._parameters if getattr(d, name) is not None])[0].device


def shapes(found: Any) -> list[tuple[Any, ...]]:
    tensors = flat([found] if isinstance(found, Tensor) else found)
    return [(tuple(x.shape), x.dtype) for x in tensors]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name.replace(" ", "-"))
def test_shapes_without_numbers(example: Example, query: str) -> None:
    d = example.make()
    if isinstance(d, Choice):
        pytest.skip("a structure of the tests' own, in plain torch")
    try:
        wanted = QUERIES[query](d)
    except (NotImplementedError, ValueError):
        pytest.skip("not a query of this structure")
    empty = d.to("meta")
    found = QUERIES[query](empty)
    assert shapes(found) == shapes(wanted)
    assert {x.device.type for x in flat([found] if isinstance(found, Tensor) else found)} == {"meta"}


@pytest.mark.parametrize("name", ["ragged", "rules of each item", "rank 2", "listed rules"])
def test_gradients_without_numbers(name: str) -> None:
    d = next(e for e in EXAMPLES if e.name == name).make().to("meta")
    leaf = d._derived(lambda _, x: x.requires_grad_() if x.is_floating_point() else x)
    scores = [x for x in flat([getattr(leaf, n) for n in leaf._parameters]) if x.requires_grad]
    for value in (leaf.log_partition(), leaf.entropy()):
        grads = torch.autograd.grad(value.sum(), scores, allow_unused=True, retain_graph=True)
        assert any(g is not None for g in grads)
        assert all(
            g is None or (g.is_meta and g.shape == x.shape) for g, x in zip(grads, scores, strict=True)
        )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name.replace(" ", "-"))
def test_the_reference_stays_on_one_device(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU without kernels: a tensor that it made on the CPU would not go together with the others."""
    d = example.make()
    if isinstance(d, Choice) or (isinstance(d, TreePosterior) and isinstance(d.rules, SparseRules)):
        pytest.skip("looks at numbers")
    wanted = {query: shapes(QUERIES[query](d)) for query in REFERENCE}
    monkeypatch.setattr(_route, "kernels", lambda x: False)
    monkeypatch.setattr(Operator, "runs_on", lambda self, x: False)
    empty = d.to("meta")
    for query in REFERENCE:
        assert shapes(QUERIES[query](empty)) == wanted[query], query
