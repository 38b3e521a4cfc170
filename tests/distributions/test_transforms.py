"""torch.compile, torch.export, vmap, functional gradients: a distribution built inside a graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.distributions import HMM, PCFG, LinearChain, TreePosterior
from tests.distributions.examples import BY_NAME
from tests.distributions.laws import QUERIES, compare

# torch's compiler and its forward mode import parts of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

COMPILED = (
    "ragged",
    "per step",
    "forbidden parts",
    "HMM posterior that stops",
    "sentences of several lengths",
    "forbidden labels",
)
SKIPPED = {"sample", "without_replacement"}  # a generator is not supported under torch.compile


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("name", COMPILED)
def test_every_query_compiles_into_one_graph(name: str) -> None:
    example = BY_NAME[name]
    parameters = example.parameters(0)

    def everything(**parameters: Any) -> dict[str, Any]:
        d = example.build(**parameters)
        return {query: QUERIES[query](d) for query in QUERIES if query not in SKIPPED}

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for query, found in compiled(**parameters).items():
        compare(query, found, QUERIES[query](example.build(**parameters)))


def test_a_compiled_training_step_has_the_gradient() -> None:
    unary, transition = torch.randn(2, 5, 3), torch.randn(3, 3)
    lengths = torch.tensor([5, 3])

    def loss(unary: Tensor, transition: Tensor) -> Tensor:
        return LinearChain(unary, transition, lengths=lengths).log_partition().sum()

    compiled = torch.compile(loss, fullgraph=True)
    grads = []
    for fn in (loss, compiled):
        leaves = [unary.clone().requires_grad_(), transition.clone().requires_grad_()]
        fn(*leaves).backward()
        grads.append([leaf.grad for leaf in leaves])
    for eager, graph in zip(*grads, strict=True):
        torch.testing.assert_close(graph, eager)


def test_samples_under_compile_differ_from_call_to_call() -> None:
    unary, transition = torch.zeros(4, 20, 3), torch.zeros(3, 3)
    draw = torch.compile(lambda u, t: LinearChain(u, t).sample((2,)), fullgraph=True, backend="aot_eager")
    first, second = draw(unary, transition), draw(unary, transition)
    assert first.shape == (2, 4, 20)
    assert not torch.equal(first, second)
    assert bool(((first >= 0) & (first < 3)).all())


def test_an_hmm_compiles() -> None:
    x = torch.tensor([[0, 3, 1], [2, 2, 0]])
    logits = torch.randn(3), torch.randn(3, 3), torch.randn(3, 4)

    def log_prob(initial: Tensor, transition: Tensor, emission: Tensor, x: Tensor) -> Tensor:
        return HMM(initial, transition, emission).log_prob(x, lengths=torch.tensor([3, 2]))

    compiled = torch.compile(log_prob, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*logits, x), log_prob(*logits, x))


def test_a_pcfg_compiles() -> None:
    x = torch.tensor([[0, 3, 1], [2, 2, 0]])
    logits = torch.randn(2), torch.randn(2, 5, 5), torch.randn(3, 4)

    def log_prob(root: Tensor, rules: Tensor, emission: Tensor, x: Tensor) -> Tensor:
        return PCFG(root, rules, emission).log_prob(x, lengths=torch.tensor([3, 2]))

    compiled = torch.compile(log_prob, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*logits, x), log_prob(*logits, x))


class Parser(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.root = torch.nn.Parameter(torch.randn(2))
        self.rules = torch.nn.Parameter(torch.randn(2, 5, 5))

    def forward(self, unary: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        d = TreePosterior(self.root, self.rules, unary, lengths=lengths)
        return d.log_partition(), d.argmax(), d.span_marginals(), d.decode(labelled=True)


class Crf(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transition = torch.nn.Parameter(torch.randn(3, 3))

    def forward(self, unary: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d = LinearChain(unary, self.transition, lengths=lengths)
        return d.log_partition(), d.argmax(), d.marginals().unary


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("module", [Crf, Parser])
def test_export(module: type[torch.nn.Module], strict: bool) -> None:
    model, arguments = module(), (torch.randn(2, 5, 3), torch.tensor([5, 3]))
    exported = torch.export.export(model, arguments, strict=strict).module()
    other = (torch.randn(2, 5, 3), torch.tensor([2, 4]))
    for found, want in zip(exported(*other), model(*other), strict=True):
        torch.testing.assert_close(found, want)


def test_values_are_not_looked_at_inside_a_transform() -> None:
    bad = torch.tensor([9])
    unary, transition = torch.randn(1, 3, 2), torch.randn(2, 2)
    with pytest.raises(ValueError, match="lengths"):
        LinearChain(unary, transition, lengths=bad)
    clamped = torch.compile(
        lambda u: LinearChain(u, transition, lengths=bad).log_partition(), fullgraph=True, backend="aot_eager"
    )(unary)
    torch.testing.assert_close(clamped, LinearChain(unary, transition).log_partition())


def test_per_item_gradients() -> None:
    unary, transition = torch.randn(4, 5, 3), torch.randn(3, 3)
    each = torch.vmap(torch.func.grad(lambda u: LinearChain(u, transition).log_partition()), in_dims=0)(unary)
    torch.testing.assert_close(each, LinearChain(unary, transition).marginals().unary)


def test_hessians_of_the_log_partition_are_covariances() -> None:
    unary, transition = torch.randn(3, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    hessian = torch.func.hessian(lambda u: LinearChain(u, transition).log_partition())(unary)
    d = LinearChain(unary, transition)
    events = torch.cartesian_prod(*[torch.arange(2)] * 3)
    weight, parts = d.log_prob(events).exp(), d.to_parts(events).unary.flatten(1)
    mean = weight @ parts
    covariance = (parts * weight.unsqueeze(-1)).mT @ parts - mean.outer(mean)
    torch.testing.assert_close(hessian.reshape(6, 6), covariance)


def test_autocast_may_mix_dtypes() -> None:
    model, x = torch.nn.Linear(4, 3), torch.randn(2, 5, 4)
    transition = torch.nn.Parameter(torch.zeros(3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        unary = model(x)
        assert unary.dtype == torch.bfloat16
        log_z = LinearChain(unary, transition).log_partition()
    log_z.sum().backward()
    assert log_z.dtype == torch.float32
    assert transition.grad is not None
    assert transition.grad.dtype == torch.float32
    with pytest.raises(TypeError, match="mixed"):
        LinearChain(unary.detach(), transition)
