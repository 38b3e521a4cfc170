"""The experiment with structured VAEs, small: what it writes; and what the results that are kept say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytorch_lightning")

from benchmarks import structured_vae

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.corpora
def test_the_experiment_small(corpora: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    chosen = dict(list(structured_vae.ESTIMATORS.items())[::4])
    small = {"DATA": corpora, "SEEDS": (0,), "EPOCHS": {"chain": 2, "tree": 2}, "SENTENCES": 24, "SAMPLES": 4}
    for name, value in {**small, "ESTIMATORS": chosen, "DIM": 8}.items():
        monkeypatch.setattr(structured_vae, name, value)
    (document,) = structured_vae.experiment()
    for kind in ("chain", "tree"):
        assert set(document[kind]["runs"]) == {*chosen, structured_vae.HMM}
        for (run,) in document[kind]["runs"].values():
            assert [step for step, _, _ in run["curve"]] == [1, 2]
    json.dumps(document)
    structured_vae.draw(document, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_the_results_that_are_kept_are_whole() -> None:
    document: dict[str, Any] = json.loads((RESULTS / "structured-vae.json").read_text())
    for kind in ("chain", "tree"):
        runs = document[kind]["runs"]
        assert set(runs) == {*structured_vae.ESTIMATORS, structured_vae.HMM}
        for name in structured_vae.ESTIMATORS:
            for run in runs[name]:
                assert run["curve"][-1][2] < run["curve"][0][2]  # it learned
                assert run["test"]["kl"] > 0.02  # and uses the latent
                assert run["test"]["importance_bound_32"] > run["test"]["bound"]
