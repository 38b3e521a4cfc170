"""The same parameters give the same numbers as hmmlearn, an independent implementation (C++, float64)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

from structlv.distributions import HMM

hmmlearn = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn is not installed (extra: test)")

K, V, D = 4, 6, 2
LENGTHS = [7, 1, 12]


def parameters() -> tuple[Tensor, Tensor]:
    return torch.randn(K).double(), torch.randn(K, K).double()


def theirs(model: Any, hmm: HMM) -> Any:
    model.startprob_ = hmm.initial_logits.exp().numpy()
    model.transmat_ = hmm.transition_logits.exp().numpy()
    return model


def symbols() -> tuple[HMM, Any, list[Tensor]]:
    hmm = HMM(*parameters(), torch.randn(K, V).double())
    model = theirs(hmmlearn.CategoricalHMM(n_components=K), hmm)
    model.emissionprob_ = hmm.emission.exp().numpy()  # type: ignore[union-attr]
    return hmm, model, [hmm.sample((), n).unsqueeze(-1) for n in LENGTHS]


def gaussians() -> tuple[HMM, Any, list[Tensor]]:
    root = torch.randn(K, D, D).double()
    covariance = root @ root.mT + 0.5 * torch.eye(D).double()
    mean = torch.randn(K, D).double()
    hmm = HMM(*parameters(), td.MultivariateNormal(mean, covariance))
    model = theirs(hmmlearn.GaussianHMM(n_components=K, covariance_type="full"), hmm)
    model.means_, model.covars_ = mean.numpy(), covariance.numpy()
    return hmm, model, [hmm.sample((), n) for n in LENGTHS]


def counts() -> tuple[HMM, Any, list[Tensor]]:
    rates = torch.rand(K, D).double() * 9 + 0.5
    hmm = HMM(*parameters(), td.Independent(td.Poisson(rates), 1))
    model = theirs(hmmlearn.PoissonHMM(n_components=K), hmm)
    model.lambdas_ = rates.numpy()
    model.n_features = D
    return hmm, model, [hmm.sample((), n) for n in LENGTHS]


@pytest.mark.parametrize("make", [symbols, gaussians, counts])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agreement(make: Any, dtype: torch.dtype) -> None:
    hmm, model, sequences = make()
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    x = padded.squeeze(-1) if make is symbols else padded
    hmm, x = hmm.to(dtype), x.to(dtype) if x.is_floating_point() else x
    lengths = torch.tensor(LENGTHS)
    posterior = hmm.posterior(x, lengths)
    for i, sequence in enumerate(sequences):
        data = sequence.numpy() if make is not counts else sequence.long().numpy()
        log_likelihood, states = model.score_samples(data)
        n = len(sequence)
        assert float(hmm.log_prob(x, lengths)[i]) == pytest.approx(log_likelihood, rel=1e-5)
        found = posterior.marginals().unary[i, :n].double()
        torch.testing.assert_close(found, torch.from_numpy(states), rtol=1e-5, atol=1e-5)
        score, path = model.decode(data)
        assert float(posterior.max()[i]) == pytest.approx(score, rel=1e-5)
        assert posterior.argmax()[i, :n].tolist() == path.tolist()
    stationary = torch.from_numpy(model.get_stationary_distribution())
    torch.testing.assert_close(hmm.stationary().double(), stationary, rtol=1e-5, atol=1e-5)
