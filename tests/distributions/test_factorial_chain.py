"""Factorial chains beyond the laws: the two kinds agree, evidence, decoding, shapes and errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from structlv import FactorialChain, FactorialParts, LinearChain, StateSequences
from structlv.distributions import JointChains, SeparateChains
from tests.distributions.examples import BY_NAME
from tests.distributions.oracle import oracles, tensors
from tests.tolerance import assert_nats, assert_probabilities

JOINT = ["two chains", "three chains, ragged", "forbidden joint scores", "one factorial chain"]
SEPARATE = ["scores of each chain", "forbidden scores of each chain", "three separate chains"]


def made(name: str) -> Any:
    return BY_NAME[name].make()


def test_the_kind_of_scores_decides_the_class() -> None:
    assert type(made("two chains")) is JointChains
    assert type(made("three separate chains")) is SeparateChains
    x = torch.zeros(3, 2)
    assert type(FactorialChain(unary=[x], transition=[torch.zeros(2, 2)])) is SeparateChains
    assert type(FactorialChain(transition=[torch.zeros(2, 2)], unary=x)) is JointChains


@pytest.mark.parametrize("name", SEPARATE)
def test_separate_scores_are_joint_scores_that_are_sums(name: str) -> None:
    d = made(name)
    joint = d.joint()
    assert type(joint) is JointChains
    assert_nats(joint.log_partition(), d.log_partition())
    assert_nats(joint.entropy(), d.entropy())
    assert torch.equal(joint.argmax(), d.argmax())
    for i in range(len(d.sizes)):
        assert_probabilities(joint.marginals().unary[i], d.marginals().unary[i])
        assert_probabilities(joint.edge_marginals()[i], d.edge_marginals()[i])
    assert_probabilities(joint.pair_marginals(0, 1), d.pair_marginals(0, 1))
    assert_probabilities(joint.pair_marginals(-1, 0), d.pair_marginals(-1, 0))
    possible = d.log_partition() > -math.inf
    assert_nats(joint.kl(d)[possible], torch.zeros(int(possible.sum()), dtype=torch.float64))


def test_divergences_between_the_two_kinds() -> None:
    q = made("scores of each chain")
    p = FactorialChain(
        torch.randn(3, 3, 2, 3, dtype=torch.float64),
        [t.detach() for t in q.transition],
        initial=q.initial,
        lengths=q.lengths,
    )
    assert_nats(kl_divergence(q, p), q.joint().kl(p))
    assert_nats(p.cross_entropy(q), p.cross_entropy(q.joint()))
    assert bool((kl_divergence(q, p)[:2] > 0).all())


@pytest.mark.parametrize("name", JOINT + SEPARATE)
def test_it_is_the_chain_on_joint_states(name: str) -> None:
    d = made(name)
    chain = d.to_chain()
    assert isinstance(chain, LinearChain)
    assert_nats(chain.log_partition(), d.log_partition())
    assert_nats(chain.entropy(), d.entropy())
    assert_nats(chain.filter().unflatten(-1, d.sizes), d.filter())


@pytest.mark.parametrize("name", JOINT + SEPARATE)
def test_edges_and_pairs_by_enumeration(name: str) -> None:
    d = made(name)
    for index, oracle in oracles(BY_NAME[name], d).items():
        states = oracle.events  # (count, m, n)
        for i, edges in enumerate(d.edge_marginals()):
            k = d.sizes[i]
            here, there = states[:, i, :-1, None, None], states[:, i, 1:, None, None]
            uses = (here == torch.arange(k)[:, None]) & (there == torch.arange(k))
            assert_probabilities(edges[index], torch.tensordot(oracle.probabilities, uses.double(), 1))
            counts = d.marginals().transition[i]
            assert_probabilities(counts[index], edges[index].sum(0))
        if len(d.sizes) > 1:
            first, last = states[:, 0, :, None, None], states[:, -1, :, None, None]
            uses = (last == torch.arange(d.sizes[-1])[:, None]) & (first == torch.arange(d.sizes[0]))
            expected = torch.tensordot(oracle.probabilities, uses.double(), 1)
            assert_probabilities(d.pair_marginals(-1, 0)[index], expected)


@pytest.mark.parametrize("name", ["three chains, ragged", "scores of each chain"])
def test_evidence_is_conditioned_on(name: str) -> None:
    d = made(name)
    states = d.argmax()
    states[:, 0, 0] = -1
    allowed = [torch.ones(*d.batch_shape, d.event_shape[-1], k, dtype=torch.bool) for k in d.sizes]
    allowed[0][..., 0, 0] = False
    cases: list[dict[str, Any]] = [
        {"states": states},
        {"allowed": allowed},
        {"states": states, "allowed": allowed},
    ]
    for evidence in cases:
        found = d.condition(**evidence)
        assert type(found) is type(d)
        for index, oracle in oracles(BY_NAME[name], d).items():
            agrees = torch.ones(len(oracle.events), dtype=torch.bool)
            if "states" in evidence:
                known = states[index]
                agrees &= ((oracle.events == known) | (known == -1)).flatten(1).all(-1)
            if "allowed" in evidence and oracle.events.shape[-1]:
                agrees &= (oracle.events[:, 0, 0] != 0) | (oracle.events[:, 0, 0] == -1)
            gain = (found.log_partition() - d.log_partition())[index]
            assert_nats(gain, oracle.probabilities[agrees].sum().log())


def test_decoding_state_by_state() -> None:
    d = made("two chains")
    decoded = d.posterior_decode()
    for i, marginal in enumerate(d.marginals().unary):
        assert torch.equal(decoded[..., i, :], marginal.argmax(-1))
    assert bool((made("forbidden joint scores").posterior_decode()[2] == -1).all())


def test_chains_are_sampled_independently() -> None:
    """Chains with the same scores do not share their random numbers."""
    unary = torch.zeros(4, 2)
    d = FactorialChain([unary, unary], [torch.zeros(2, 2)] * 2)
    draws = d.sample((4000,), generator=torch.Generator().manual_seed(0))
    both = (draws[:, 0] == draws[:, 1]).double().mean(0)
    assert float((both - 0.5).abs().max()) < 0.04


def test_support() -> None:
    d = made("three chains, ragged")
    assert isinstance(d.support, StateSequences)
    assert d.support.event_dim == 2
    legal = torch.tensor([[1, 0], [2, 2], [0, 1]])
    assert bool(StateSequences((2, 3, 2), 2).check(legal))
    assert not bool(StateSequences((2, 2, 2), 2).check(legal))
    with pytest.raises(ValueError, match="events must have shape"):
        StateSequences((2, 2), 2).check(legal)
    assert "(2, 3)" in repr(StateSequences((2, 3), 4))


def test_expectation_takes_nested_parts() -> None:
    d = made("two chains")
    ones = FactorialParts(tuple(torch.ones(k) for k in d.sizes), None, None)
    assert_nats(d.expectation(ones), torch.full(d.batch_shape, 6.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="parts must hold 2 tensors"):
        d.expectation(FactorialParts((torch.ones(2),), None, None))
    with pytest.raises(TypeError, match=r"parts\.unary must be a floating-point tensor"):
        d.expectation(FactorialParts(tuple(torch.ones(k, dtype=torch.long) for k in d.sizes), None, None))


def test_a_sequence_of_one_chain_is_that_chain() -> None:
    unary, moves = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    lone, chain = FactorialChain([unary], [moves]), LinearChain(unary, moves)
    assert_nats(lone.log_partition(), chain.log_partition())
    assert torch.equal(lone.topk(4)[1][:, :, 0], chain.topk(4)[1])
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(lone.sample((3,), generators[0])[:, :, 0], chain.sample((3,), generators[1]))


def test_compiles() -> None:
    def fn(*values: Tensor) -> tuple[Tensor, ...]:
        d = FactorialChain(values[0], values[1:])
        return d.log_partition(), *tensors(d.marginals())

    values = (torch.randn(2, 3, 2, 2), torch.randn(2, 2), torch.randn(2, 2))
    for found, expected in zip(torch.compile(fn, backend="aot_eager")(*values), fn(*values), strict=True):
        assert torch.allclose(found, expected)


X, A, B = torch.zeros(2, 4, 2, 3), torch.zeros(2, 2), torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: FactorialChain(X, A), TypeError, "transition must be a sequence of tensors"),
        (lambda: FactorialChain(X, [B, A]), ValueError, r"transition\[0\] must have shape"),
        (lambda: FactorialChain(torch.zeros(2, 3), [A, B]), ValueError, "unary must have shape"),
        (lambda: FactorialChain([X[..., 0], X[0]], [A]), ValueError, "unary must have 1 tensors"),
        (lambda: FactorialChain([X[..., 0], X[0, :3, 0]], [A, B]), ValueError, r"unary\[1\] must have shape"),
        (lambda: FactorialChain(None, [A, B]), TypeError, "unary must be a sequence of tensors"),
        (
            lambda: FactorialChain(X, [A, B], initial=[torch.zeros(2)]),
            ValueError,
            "initial must have 2 tensors",
        ),
        (lambda: FactorialChain(X, [A, B.double()]), TypeError, "must not be mixed"),
        (
            lambda: FactorialChain(X, [A, B], lengths=torch.tensor([5, 1])),
            ValueError,
            r"lengths must be in 0\.\.4",
        ),
        (lambda: FactorialChain(X, [A, B * math.nan]), ValueError, "must not be NaN"),
        (lambda: FactorialChain([X[..., 0], X[..., 0, :]], [A, B * math.nan]), ValueError, "chain 1: .*NaN"),
        (
            lambda: FactorialChain(X, [A, B]).score(torch.zeros(2, 3, 4).long()),
            ValueError,
            "event must have shape",
        ),
        (lambda: FactorialChain(X, [A, B]).score(torch.full((2, 2, 4), 2)), ValueError, "states of chain 0"),
        (lambda: FactorialChain(X, [A, B]).pair_marginals(0, 2), ValueError, r"j must be a chain.*0\.\.1"),
        (lambda: FactorialChain(X, [A, B]).pair_marginals(1, -1), ValueError, "different chains"),
        (
            lambda: FactorialChain(X, [A, B]).condition(states=torch.zeros(2, 3).long()),
            ValueError,
            "states must have",
        ),
        (lambda: FactorialChain(X, [A, B]).condition(allowed=[X > 0]), ValueError, "allowed must have 2"),
        (
            lambda: FactorialChain(X, [A, B]).kl(FactorialChain(X.transpose(2, 3), [B, A])),
            ValueError,
            "numbers of states",
        ),
        (
            lambda: FactorialChain(X, [A, B]).kl(LinearChain(X[..., 0], A)),
            TypeError,
            "expected another JointChains",
        ),
    ],
)
def test_errors_name_the_argument(build: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()
