"""`--ray`: shards made by Ray Data on a cluster of two workers, one of which is killed. `make test-ray`."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: make test-ray has an environment with it")

import ray
import torch

from structlv.cli import label, shards, tag
from structlv.cli.options import Sharding
from structlv.data import Vocabulary
from structlv.models import NeuralHMM

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
WORDS = ("the", "a", "dog", "cat", "sees", "likes")


class Killed(tag.Tagger):
    """In small chunks; the first worker that labels the fourth is killed."""

    chunk = 16

    def label(self, lines: Any, format: str, name: str | Path) -> str:
        found = list(lines)
        mark = self.folder.with_name("killed")
        if found[0][0] == 3 * self.chunk + 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().label(found, format, name)


def test_shards_of_two_ray_workers_are_the_output_without_shards(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build([WORDS], min_count=1)
    torch.manual_seed(0)
    model = NeuralHMM(3, len(vocabulary), dim=4)
    model.vocabulary = vocabulary
    model.save(tmp_path / "hmm")
    text, folder = tmp_path / "text.txt", tmp_path / "s"
    text.write_text("\n".join(" ".join(WORDS[(i * k + i) % 6] for k in range(1 + i % 5)) for i in range(160)))
    label.run(partial(tag.Tagger, tmp_path / "hmm", "viterbi"), text, tmp_path / "whole.tsv", None)
    root = str(Path(__file__).resolve().parents[2])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    try:
        made = label.run(
            partial(Killed, tmp_path / "hmm", "viterbi"),
            text,
            None,
            Sharding(folder, 16, workers=2, ray=True),
        )
    finally:
        ray.shutdown()
    assert made
    assert (tmp_path / "killed").exists()
    found = sorted(folder.glob("shard-*"))
    assert len(found) == 10
    assert "".join(path.read_text() for path in found) == (tmp_path / "whole.tsv").read_text()
    assert (folder / shards.MANIFEST).exists()
