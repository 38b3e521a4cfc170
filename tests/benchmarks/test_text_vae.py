"""The experiment with text VAEs, small: what it writes, and its figure."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from benchmarks import text_vae


def test_a_small_run_and_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "e2e").mkdir()
    lines = [f"name[X]\tThe {a} {b} is {c}." for a in "ab" for b in "cde" for c in ("near", "far", "cheap")]
    for name in ("train.tsv", "test.tsv"):
        (tmp_path / "e2e" / name).write_text("\n".join(lines) + "\n")
    small = {
        "DATA": tmp_path,
        "SIZES": {"word_dim": 4, "dim": 4},
        "LATENT": {"latent": 2, "encoder_dim": 3},
        "SAMPLES": 3,
        "EVERY": 2,
        "BATCH": 4,
        "NOISE_SAMPLES": (1, 2),
    }
    for name, value in small.items():
        monkeypatch.setattr(text_vae, name, value)
    document = text_vae.run(epochs=2, runs=2)
    assert document["data"] == {"train": 14, "validation": 4, "test": 9, "whole_test": 18, "vocabulary": 12}
    plain, annealed = (document["models"][name] for name in (text_vae.PLAIN, text_vae.ANNEALED))
    for found in (plain, annealed):
        assert found["scores_end"]
        assert found["symbols"] == 9 * 6 + 9
        assert found["elbo"] == pytest.approx(found["reconstruction"] - found["kl"])
        assert [len(curve) for curve in (found["curve"], found["texts"]["interpolated"])] == [2, 5]
    assert annealed["curve"] != plain["curve"]
    assert all(value > 0 for value in document["signal_to_noise"]["doubly"])
    text_vae.draw(document, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
