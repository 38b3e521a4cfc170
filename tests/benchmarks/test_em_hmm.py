"""The experiments with EM, small: that they run, and the numbers that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from benchmarks import em_hmm

TSV = "the\tDET\ndog\tNOUN\nbarks\tVERB\n\nthe\tDET\ncat\tNOUN\nbarks\tVERB\n\nthe\tDET\ndog\tNOUN\n\n"


def test_the_comparison_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "train.tsv").write_text(TSV * 4)
    for name, value in (
        ("DATA", tmp_path),
        ("SEEDS", (0, 1)),
        ("ITERATIONS", 5),
        ("CORPORA", {"toy": 3}),
        ("NEURAL", {"toy": 1}),
    ):
        monkeypatch.setattr(em_hmm, name, value)
    found = em_hmm.tags()["corpora"]["toy"]
    assert (found["sentences"], found["words"], found["types"]) == (12, 32, 5)  # and <unk>
    assert set(found["runs"]) == {"EM", "EM, flat start", "neural HMM"}
    for runs in found["runs"].values():
        assert len(runs) == 2
        assert all(0.37 < one["many_to_one"] <= 1 and one["nats_per_word"] < 0 for one in runs)


@pytest.mark.corpora
@pytest.mark.parametrize("states", [2, 3])
def test_earthquakes_have_their_known_likelihood(
    states: int, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-341.88 and -328.53 nats, of an independent implementation; here of fewer starts."""
    monkeypatch.setattr(em_hmm, "DATA", corpora)
    monkeypatch.setattr(em_hmm, "STARTS", 6)
    counts = torch.tensor([count for _, count in em_hmm.yearly()])
    assert len(counts) == 107
    found: dict[str, Any] = em_hmm.best_poisson(states, counts)
    assert found["log_likelihood"] == pytest.approx(em_hmm.EARTHQUAKES[states], abs=0.05)
