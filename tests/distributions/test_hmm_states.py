"""The hidden Markov model: filtering, prediction and where it settles."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from structlv.distributions import HMM
from tests.distributions.laws import close
from tests.distributions.test_hmm import EMISSIONS, INF, K, V, emit, logits, plain


def test_filtering_and_prediction_by_brute_force() -> None:
    x = torch.tensor([0, 3, 1])
    for hmm in (plain(), plain(transition_logits=logits(4, K, K)), plain(final_logits=logits(K, seed=3))):
        weights = torch.stack([joint(hmm, x[: t + 1], 0) for t in range(3)])
        close(hmm.filter(x), weights.log_softmax(-1))
        ahead = torch.stack([joint(hmm, x, s) for s in (1, 2)])
        close(hmm.predict(x, 2), ahead.log_softmax(-1))


def joint(hmm: HMM, x: Tensor, steps: int) -> Tensor:
    """log p(x, z_n+steps = i) (k), by enumeration."""
    n, scores = len(x), emit(hmm, x)
    found: list[list[Tensor]] = [[] for _ in range(K)]
    for z in itertools.product(range(K), repeat=n + steps):
        score = hmm.initial_logits[z[0]]
        for t in range(n + steps):
            score = score + scores[t, z[t]] if t < n else score
            if t:
                step = (
                    hmm.transition_logits
                    if hmm.transition_logits.dim() == 2
                    else hmm.transition_logits[t - 1]
                )
                score = score + step[z[t - 1], z[t]]
        found[z[-1]].append(score)
    return torch.stack([torch.stack(f).logsumexp(0) for f in found])


def test_prediction_of_ragged_and_incomplete_sequences() -> None:
    hmm = plain()
    x = torch.tensor([[0, 3, 1], [2, -1, -1], [-1, -1, -1]])
    lengths = torch.tensor([3, 1, 0])
    predicted = hmm.predict(x, 3, lengths)
    assert predicted.shape == (3, 3, K)
    close(predicted[0], hmm.predict(x[0], 3))
    close(predicted[1], hmm.predict(x[1, :1], 3))
    close(predicted[2, 0], hmm.initial_logits)  # nothing seen: the first state's prior
    mask = torch.tensor([True, True, False])
    close(hmm.predict(x[0], 1, mask=mask), hmm.predict(x[0, :2], 2)[1:])
    gaussian = plain(emission=EMISSIONS["Normal"]())
    series = logits(2, 4)
    close(gaussian.predict(series, 2)[1], gaussian.predict(series[1], 2))
    point = logits(K, K).requires_grad_()
    assert gradcheck(lambda t: plain(transition_logits=t).predict(x[0], 2), (point,))


def test_prediction_beyond_per_step_transitions() -> None:
    hmm = plain(transition_logits=logits(3, K, K))
    x = torch.tensor([0, 1])
    assert hmm.predict(x, 2).shape == (2, K)
    with pytest.raises(
        ValueError, match=r"predict: 2 observations and 3 steps need 4 transitions.*there are 3"
    ):
        hmm.predict(x, 3)
    for steps in (0, -1, 1.0):
        with pytest.raises(ValueError, match="steps must be a positive integer"):
            hmm.predict(x, steps)  # type: ignore[arg-type]


def test_the_stationary_distribution() -> None:
    hmm = HMM(logits(2, K), logits(2, K, K), logits(K, V))
    pi = hmm.stationary()
    close((pi.unsqueeze(-2) @ hmm.transition_logits.exp()).squeeze(-2), pi)
    close(pi.sum(-1), torch.ones(2))
    assert gradcheck(lambda t: plain(transition_logits=t).stationary(), (logits(K, K).requires_grad_(),))
    far = plain().predict(torch.tensor([0]), 200)[-1]
    close(far.exp(), plain().stationary())


def test_stationary_with_transient_and_periodic_states() -> None:
    chain = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).double().log()
    close(plain(transition_logits=chain).stationary(), torch.tensor([0.0, 0.5, 0.5]))
    close(HMM(logits(1), logits(1, 1), logits(1, V)).stationary(), torch.ones(1))


def test_stationary_is_refused_where_it_is_not_one_distribution() -> None:
    apart = torch.tensor([[0.0, -INF, -INF], [-INF, 0.0, 0.0], [-INF, 0.0, 0.0]]).double()
    with pytest.raises(ValueError, match="not unique"):
        plain(transition_logits=apart).stationary()
    with pytest.raises(ValueError, match="not unique"):
        plain(transition_logits=torch.eye(3).double() * 2000).stationary()
    with pytest.raises(ValueError, match="per step"):
        plain(transition_logits=logits(2, K, K)).stationary()
    with pytest.raises(ValueError, match="final_logits"):
        plain(final_logits=logits(K)).stationary()
