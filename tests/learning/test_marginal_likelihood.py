"""The marginal likelihood objective."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from structlv.data import Batches
from structlv.learning import MarginalLikelihood, fit
from structlv.models import NeuralHMM
from tests.learning import toy


def sentences(hmm: NeuralHMM, count: int, n: int) -> torch.Tensor:
    with torch.no_grad():
        return hmm.distribution().sample((count,), length=n)


def test_it_learns_a_model_that_generated_the_data(tmp_path: Path) -> None:
    torch.manual_seed(3)
    truth = NeuralHMM(2, 6, dim=8, stop=False)
    with torch.no_grad():
        truth.words.mul_(4)
        truth.states.mul_(2)
    data = sentences(truth, 240, 10)
    model = NeuralHMM(2, 6, dim=8, stop=False)
    objective = MarginalLikelihood(model, lr=0.05)
    trainer = fit(
        objective,
        Batches(list(data[:200]), 20),
        Batches(list(data[200:]), 20, shuffle=False),
        folder=tmp_path,
        epochs=20,
        progress=False,
    )
    with torch.no_grad():
        best, found = (-float(m.log_prob(data[200:]).mean()) / 10 for m in (truth, model))
    assert math.isclose(float(trainer.callback_metrics["val_nats"]), found, rel_tol=1e-5)
    assert math.isclose(float(trainer.callback_metrics["val_perplexity"]), math.exp(found), rel_tol=1e-4)
    assert found < best + 0.05


@pytest.mark.parametrize("stop", [True, False])
def test_symbols_include_the_end_where_it_is_scored(stop: bool) -> None:
    objective = MarginalLikelihood(NeuralHMM(2, 3, dim=2, stop=stop))
    assert objective.symbols(torch.tensor([3, 1])) == 4 + 2 * stop


def test_an_impossible_sentence_stops_training(tmp_path: Path) -> None:
    class Impossible(toy.NoisyModel):
        def log_prob(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return super().log_prob(x, lengths) - torch.inf

    with pytest.raises(ValueError, match="the loss of step 0 is inf"):
        fit(
            MarginalLikelihood(Impossible()),
            Batches(toy.sequences(), 4),
            folder=tmp_path,
            epochs=1,
            progress=False,
        )


def test_an_ordinary_loader_is_refused(tmp_path: Path) -> None:
    loader: Any = DataLoader(toy.sequences(), batch_size=1)
    with pytest.raises(TypeError, match=r"must be a structlv\.data\.Batches, found DataLoader"):
        fit(MarginalLikelihood(toy.NoisyModel()), loader, folder=tmp_path, epochs=1, progress=False)


def test_a_trainer_of_the_users_own_works(tmp_path: Path) -> None:
    objective = MarginalLikelihood(toy.NoisyModel())
    trainer = pl.Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(objective, Batches(toy.sequences(), 4), Batches(toy.sequences(), 4, shuffle=False))
    assert trainer.global_step == toy.BATCHES


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    from structlv.learning.objective import learning_rate

    rates = [learning_rate(step, 100, 0.1, "cosine") for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0)
