"""The evidence lower bound, and the options that all objectives share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from structlv.data import Batches
from structlv.learning import EvidenceLowerBound, MarginalLikelihood, fit
from structlv.learning.objective import learning_rate
from structlv.models import Elbo
from tests.learning import toy


class Coin(nn.Module):
    """One parameter: a token is 1 with probability sigmoid(w), and every sequence costs 0.5 nats of KL."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def elbo(self, x: Tensor, lengths: Tensor) -> Elbo:
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        each = nn.functional.logsigmoid(torch.where(x == 1, self.w, -self.w))
        return Elbo((each * inside).sum(-1), torch.full((len(x),), 0.5))


def test_it_climbs_to_the_frequency_and_counts_the_kl(tmp_path: Path) -> None:
    sequences = [torch.tensor([1, 1, 1, 0]), torch.tensor([1, 1]), torch.tensor([0, 1])] * 8
    model = Coin()
    trainer = fit(
        EvidenceLowerBound(model, lr=0.05),
        Batches(sequences, 6),
        Batches(sequences, 6, shuffle=False),
        folder=tmp_path,
        epochs=60,
        progress=False,
    )
    assert torch.sigmoid(model.w).item() == pytest.approx(0.75, abs=0.03)  # 6 of 8 tokens are 1
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()).item()
    assert trainer.callback_metrics["val_nats"].item() == pytest.approx(entropy + 0.5 * 3 / 8, abs=5e-3)
    assert trainer.callback_metrics["train_kl"].item() == pytest.approx(0.5 * 3 / 8, rel=0.5)


def test_defaults_are_those_of_the_kind_and_options_override_them() -> None:
    kim = {"lr": 1e-3, "betas": [0.75, 0.999], "weight_decay": 0.0, "warmup": 0.0, "schedule": "constant"}
    bound = {"beta": "1.0", "free_bits": 0.0}
    assert dict(EvidenceLowerBound(Coin()).hparams) == {**kim, **bound, "seed": 0}
    found = MarginalLikelihood(toy.NoisyModel(), lr=0.5, seed=4).hparams
    assert (found["lr"], found["schedule"], found["warmup"], found["seed"]) == (0.5, "cosine", 0.05, 4)


@pytest.mark.parametrize(
    ("options", "error"), [({"schedule": "linear"}, ValueError), ({"momentum": 0.9}, TypeError)]
)
def test_other_options_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=str(next(iter(options.values())) if error is ValueError else "momentum")):
        EvidenceLowerBound(Coin(), **options)


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    rates = [learning_rate(step, 100, 0.1, "constant") for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:]) == {1.0}
