"""Filtering step by step is filtering the whole sequence."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from structlv import HMM, LinearChain
from structlv.data import unpack
from structlv.distributions import FilterState, filter_step
from tests.tolerance import assert_filtered, assert_nats, assert_probabilities

N, K, V = 6, 3, 4


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def streamed(hmm: HMM, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, FilterState]:
    """Rows (*b, n, k) step by step, and the last state."""
    state, rows = None, []
    time = x.dim() - len(hmm.event_shape) - 1
    for t in range(x.shape[time]):
        state = hmm.filter_step(state, x.select(time, t), None if mask is None else mask[..., t])
        rows.append(state.states)
    assert state is not None
    return torch.stack(rows, -2), state


MODELS = {
    "symbols": lambda: HMM(logits(K), logits(K, K), logits(K, V)),
    "per step": lambda: HMM(logits(K), logits(N - 1, K, K), logits(K, V)),
    "stopping": lambda: HMM(logits(K), logits(K, K), logits(K, V), final_logits=logits(K)),
    "batch": lambda: HMM(logits(2, K), logits(2, K, K), logits(2, K, V)),
    "left to right": lambda: HMM(
        torch.tensor([0.0, -math.inf, -math.inf]).double(),
        logits(K, K).masked_fill(torch.ones(K, K).tril(-1).bool(), -math.inf),
        logits(K, V),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("masked", [False, True])
def test_steps_are_the_rows_of_filter(name: str, masked: bool) -> None:
    hmm = MODELS[name]()
    x = torch.randint(V, (2, N))
    mask = torch.rand(2, N) < 0.6 if masked else None
    rows, last = streamed(hmm, x, mask)
    assert_filtered(rows, hmm.filter(x, mask=mask))
    assert last.steps == N
    if name != "stopping":
        assert_nats(last.log_prob, hmm.log_prob(x, mask=mask))


def test_of_a_model_that_stops_the_evidence_is_that_of_the_prefix() -> None:
    hmm = MODELS["stopping"]()
    x = torch.randint(V, (N,))
    _, last = streamed(hmm, x)
    ended = (last.states + hmm.final_logits).logsumexp(-1) + last.log_prob
    assert_nats(ended, hmm.log_prob(x))


def test_continuous_observations_and_gradients() -> None:
    means = logits(K, 2).requires_grad_()
    hmm = HMM(logits(K), logits(K, K), td.Independent(td.Normal(means, 1.0), 1))
    x = logits(5, N, 2)
    rows, last = streamed(hmm, x)
    assert_filtered(rows, hmm.filter(x))
    weights = logits(*rows.shape)
    (found,) = torch.autograd.grad((rows * weights).sum() + last.log_prob.sum(), means, retain_graph=True)
    whole = (hmm.filter(x) * weights).sum() + hmm.log_prob(x).sum()
    assert_probabilities(found, torch.autograd.grad(whole, means)[0])


def test_an_impossible_observation_stays_impossible() -> None:
    table = torch.tensor([[0.0, -math.inf], [0.0, -math.inf], [0.0, -math.inf]]).double()
    hmm = HMM(logits(K), logits(K, K), table)
    rows, last = streamed(hmm, torch.tensor([0, 1, 0]))
    assert bool((rows[1:] == -math.inf).all())
    assert float(last.log_prob) == -math.inf
    assert_filtered(rows, hmm.filter(torch.tensor([0, 1, 0])))


def test_scores_of_a_chain() -> None:
    unary, transition, initial = logits(2, N, K), logits(K, K), logits(K)
    state, rows = None, []
    for t in range(N):
        state = filter_step(state, unary[:, t], transition, initial)
        rows.append(state.states)
    chain = LinearChain(unary, transition, initial=initial)
    assert_filtered(torch.stack(rows, -2), chain.filter())
    assert_nats(state.log_prob, chain.log_partition())


def test_errors_name_what_does_not_fit() -> None:
    hmm = MODELS["per step"]()
    _, last = streamed(hmm, torch.randint(V, (N,)))
    with pytest.raises(ValueError, match="7 observations need 6 transitions"):
        hmm.filter_step(last, torch.tensor(0))
    with pytest.raises(ValueError, match=r"x must be in 0\.\.3"):
        hmm.filter_step(None, torch.tensor(V))
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor"):
        hmm.filter_step(None, 0)
    with pytest.raises(ValueError, match="transition must have shape"):
        filter_step(None, logits(K), logits(K, K + 1))


def test_packed_sequences() -> None:
    hmm = MODELS["symbols"]()
    x, lengths = torch.randint(V, (3, N)), torch.tensor([2, 6, 3])
    unpacked = unpack(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    assert_nats(hmm.log_prob(*unpacked), hmm.log_prob(x, lengths))
    scores = logits(3, N, K).requires_grad_()
    packed = pack_padded_sequence(scores, lengths, batch_first=True, enforce_sorted=False)
    values, ends = unpack(packed)
    transition = logits(K, K)
    found, expected = (
        LinearChain(u, transition, lengths=ends).log_partition().sum() for u in (values, scores)
    )
    assert_nats(found, expected)
    assert_probabilities(*(torch.autograd.grad(z, scores)[0] for z in (found, expected)))
    with pytest.raises(TypeError, match="PackedSequence, found Tensor"):
        unpack(scores)
