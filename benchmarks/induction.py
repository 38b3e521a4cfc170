"""What grammar induction finds: ``python -m benchmarks.induction`` (an hour on one core for each corpus).

Simple neural PCFGs of 256 nonterminals learn from the words of a treebank's training part, in lower case and
without punctuation, as ``structlv induce`` trains them; the trees of its test part are what the grammars'
minimum-risk trees are compared with, beside left-, right-branching and random ones. Unlabelled F1 as the
literature computes it (``structlv.metrics.unlabelled_f1``), three seeds; results in
``benchmarks/results/induction.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.machine import describe
from structlv.cli.induce import Settings, run

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).with_name("results") / "induction.json"
SEEDS = (0, 1, 2)
SETTINGS = Settings(model="simple", nonterminals=256, preterminals=512, epochs=6)
CORPORA = ("craft", "gum_open")


def learn(corpus: str, settings: Settings) -> dict[str, Any]:
    """One grammar: what ``structlv induce`` reports, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run(
            settings,
            DATA / corpus / "train.trees",
            Path(folder) / "run",
            Console(),
            DATA / corpus / "test.trees",
        )
        seconds = time.perf_counter() - start
        found = json.loads((Path(folder) / "run" / "result.json").read_text())
    return {"seed": settings.seed, "perplexity": found["perplexity"], "f1": found["f1"], "seconds": seconds}


def summary(corpus: str, settings: Settings) -> dict[str, Any]:
    """Three seeds: each, and means and maxima over them beside the trivial trees."""
    runs = [learn(corpus, settings.replaced(seed=seed)) for seed in SEEDS]
    row: dict[str, Any] = {"corpus": corpus, "settings": asdict(settings), "runs": runs}
    for level in ("sentence", "corpus"):
        values = [one["f1"]["grammar"][level] for one in runs]
        trivial = {name: f1[level] for name, f1 in runs[0]["f1"].items() if name != "grammar"}
        row[level] = {"mean": statistics.mean(values), "max": max(values), "trivial": trivial}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="*", default=CORPORA)
    rows = []
    for corpus in parser.parse_args().corpora:
        rows.append(summary(corpus, SETTINGS))
        print(f"{corpus}: sentence F1 {rows[-1]['sentence']}, corpus F1 {rows[-1]['corpus']}")
    document = {"machine": describe(), "torch": torch.__version__, "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
