"""EM over processes that each have a part of the data: the same parameters as one process with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from structlv import HMM, PCFG
from structlv.learning import NaiveBayesTables, Prior, fit_em, hmm_of_vectors

ROOT = Path(__file__).resolve().parents[2]
F64 = torch.float64


def problems() -> dict[str, Any]:
    """By name a function of a seed, the data, and lengths. Called in every process: all see the same."""
    torch.manual_seed(0)
    x = torch.randn(7, 6, 2, dtype=F64) * 3
    words = torch.randint(4, (7, 6))
    lengths = torch.tensor([6, 2, 4, 3, 5, 6, 3])

    def of_words(seed: int) -> Any:
        torch.manual_seed(seed)
        return HMM(torch.randn(3), torch.randn(3, 3), torch.randn(3, 4), final_logits=torch.randn(3)).to(F64)

    def grammar(seed: int) -> Any:
        torch.manual_seed(seed)
        return PCFG(torch.randn(2), torch.randn(2, 5, 5), torch.randn(3, 4)).to(F64)

    def bayes(seed: int) -> Any:
        torch.manual_seed(seed)
        return NaiveBayesTables(torch.randn(3, dtype=F64), torch.randn(3, 4, dtype=F64))

    return {
        "vectors": (lambda seed: hmm_of_vectors(3, x.flatten(0, 1), seed), x, lengths),
        "symbols": (of_words, words, lengths),
        "grammar": (grammar, words, lengths),
        "bayes": (bayes, words, lengths),
    }


def learned(rank: int | None, size: int, folder: Path | None) -> dict[str, Any]:
    """What this process finds: of shards, from every size-th sequence."""
    found = {}
    for name, (begin, x, lengths) in problems().items():
        if rank is not None:
            x, lengths = x[rank::size], lengths[rank::size]
        result = fit_em(
            begin,
            x,
            lengths,
            prior=Prior(0.1, 0.1, 0.1, covariance=0.2),
            seeds=[3, 4],
            iterations=8,
            tolerance=-1.0,
            sharded=rank is not None,
            checkpoint=None if folder is None else folder / f"{name}.ckpt",
            progress=False,
        )
        m = result.model
        if isinstance(m, HMM):
            own = m.emission if isinstance(m.emission, torch.Tensor) else m.emission.covariance_matrix
            tensors = [m.initial_logits, m.transition_logits, own]
        elif isinstance(m, PCFG):
            tensors = [m.root_logits, m.rule_logits, m.emission_logits]
        else:
            tensors = [m.prior_logits, m.word_logits]
        found[name] = {"tensors": tensors, "history": list(result.history), "seed": result.seed}
    return found


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size
    )
    torch.save(learned(rank, size, folder), folder / f"{rank}.pt")
    again = learned(rank, size, folder)  # all is in the checkpoints
    torch.save(again, folder / f"{rank}-again.pt")
    torch.distributed.destroy_process_group()


def test_shards_find_what_one_process_finds(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, __file__, str(rank), "2", str(tmp_path)] for rank in range(2)]
    processes = [
        subprocess.Popen(c, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) for c in commands
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    whole = learned(None, 1, None)
    first, second, again = (torch.load(tmp_path / f"{name}.pt") for name in ("0", "1", "1-again"))
    for name, wanted in whole.items():
        assert first[name]["seed"] == wanted["seed"]
        for a, b in zip(first[name]["history"], wanted["history"], strict=True):
            assert abs(a - b) < 1e-10 * max(1.0, abs(b)), name
        for a, b, c, d in zip(*(one[name]["tensors"] for one in (first, second, again, whole)), strict=True):
            assert torch.equal(a, b), name
            assert torch.equal(a, c), name
            assert float((a.exp() - d.exp()).abs().max() / d.exp().max()) < 1e-10, name


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
