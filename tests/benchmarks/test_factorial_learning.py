"""The experiments with factorial HMMs, small: what they write, and what must come out whatever the size."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from benchmarks import factorial_learning
from structlv.learning import Prior, num_parameters, padded, states_of_equal_parameters

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_parameters_are_counted() -> None:
    assert num_parameters((1,), 5) == 4
    assert num_parameters((3,), 5) == 2 + 6 + 3 * 4
    assert num_parameters((2, 3), 5) == (1 + 2) + (2 + 6) + 4 * (1 + 1 + 2)
    for sizes in ((2, 2), (4, 4, 4), (8, 4)):
        k = states_of_equal_parameters(sizes, 20)
        wanted = num_parameters(sizes, 20)
        others = (abs(num_parameters((k + d,), 20) - wanted) for d in (-1, 1))
        assert abs(num_parameters((k,), 20) - wanted) <= min(others)
    x, lengths = padded([torch.tensor([1, 2]), torch.tensor([3])])
    assert (x.tolist(), lengths.tolist()) == ([[1, 2], [3, 0]], [2, 1])


def test_the_toy_and_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    for name, value in (("TRIALS", 2), ("SEQUENCES", 6), ("LENGTH", 8), ("PROBLEMS", ((2, 2),))):
        monkeypatch.setattr(factorial_learning, name, value)
    document = factorial_learning.toy()
    gaps = document["gaps"]["2 chains of 2"]
    assert set(gaps) == {"exact", "structured mean field", "factorised mean field", "HMM of all joint states"}
    assert all(len(values) == 2 for values in gaps.values())
    factorial_learning.draw(document, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
    json.dumps(document)


@pytest.mark.corpora
def test_the_chorales_small(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factorial_learning, "DATA", corpora)
    small = {"SIZES": ((2, 2),), "LARGER_HMMS": (3,), "PRIORS": (Prior(0.1, 0.1, 0.1),), "ITERATIONS": 2}
    for name, value in {**small, "FOLDS": 2, "CHOOSING_SEEDS": (9,)}.items():
        monkeypatch.setattr(factorial_learning, name, value)
    document = factorial_learning.chorales()
    assert document["test_events"] == 1470
    assert document["models"]["bigram, add 1/2"]["mean_nats"] == pytest.approx(1.9280, abs=5e-5)
    model = document["models"]["factorial HMM"]
    assert model["states"] == [2, 2]
    assert len(model["nats"]) == 3
    assert model["mean_nats"] == pytest.approx(statistics.mean(model["nats"]))
    json.dumps(document)


def test_the_results_that_are_kept_say_what_is_claimed() -> None:
    """The factorial HMM is better than an HMM of as many parameters and than the bigram, for every seed."""
    models = json.loads((RESULTS / "chorales.json").read_text())["models"]
    ours, same = models["factorial HMM"], models["HMM, as many parameters"]
    assert abs(ours["parameters"] - same["parameters"]) <= 0.1 * ours["parameters"]
    assert max(ours["nats"]) < min(same["nats"])
    assert max(ours["nats"]) < models["bigram, add 1/2"]["mean_nats"]
    means = json.loads((RESULTS / "factorial-toy.json").read_text())["means"]
    assert all(found["exact"] > found["HMM of all joint states"] for found in means.values())
