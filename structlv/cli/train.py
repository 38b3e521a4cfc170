"""`structlv train`: one command for every model that learns from raw text."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import structlv
from structlv._extras import require
from structlv.cli import demo, induce, show
from structlv.cli.options import Precision
from structlv.cli.processes import only_the_first_goes_on
from structlv.cli.run_folder import close_run, open_run, save_json
from structlv.data import Batches, read_sentences
from structlv.models.folder import refuse_other_files

GRAMMARS = {"pcfg": "neural", "compound": "compound", "lowrank": "lowrank", "simple": "simple"}
FILES = ("data", "out", "held_out", "format")
REAL = ("lr", "weight_decay", "clip")
MAY_BE_ZERO = (*REAL, "seed", "layers")
CHOICES: dict[str, list[Any]] = {"precision": [one.value for one in Precision], "tensorboard": [False, True]}


def with_config(config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a TOML file, those that were given taking their place; hyphens may be underscores.

    Raises OSError where the file cannot be read, ValueError, which names it, where it is not TOML.
    """
    if config is None:
        return given
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", "cli")
    try:
        found = toml.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are such
        raise ValueError(f"{config}: not TOML: {error}") from error
    return {name.replace("-", "_"): value for name, value in found.items()} | given


def run(kind: str, options: dict[str, Any], console: Console) -> None:
    """Train the model of this kind. Raises ValueError for an option that it does not have."""
    for module in ("pytorch_lightning", "safetensors"):
        require(module, "train")
    for name in ("data", "out"):
        if name not in options:
            raise ValueError(f"--{name} is missing, here and in the configuration")
    base: Any = demo.Settings() if kind == "hmm" else induce.Settings(model=GRAMMARS[kind])
    files = {name: options[name] for name in FILES if name in options}
    for name, value in files.items():
        if not isinstance(value, str | Path):
            raise ValueError(f"{name} must be a text, found {value!r}")
    if kind != "hmm" and "format" in files:
        raise ValueError("--format is for HMMs; the text of a grammar is plain or bracketed trees")
    settings = base.replaced(**_checked(kind, base, {k: v for k, v in options.items() if k not in FILES}))
    data, out = Path(files["data"]), Path(files["out"])
    held_out = Path(files["held_out"]) if "held_out" in files else None
    if kind == "hmm":
        train_hmm(settings, data, out, console, held_out, files.get("format"))
    else:
        induce.run(settings, data, out, console, held_out)


def _checked(kind: str, base: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options that are the settings of this kind, of their types."""
    known = {f.name for f in fields(base)} - {"model", "curriculum", "method"}
    unknown = [f"--{name.replace('_', '-')}" for name in options if name not in known]
    if unknown:
        names = ", ".join(sorted(known))
        raise ValueError(f"{', '.join(unknown)}: no option of {kind}, which has {names}")
    for name, value in options.items():
        if name in CHOICES:
            right, expected = value in CHOICES[name], " or ".join(map(json.dumps, CHOICES[name]))
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            least = 0 if name in MAY_BE_ZERO else 1
            right = number and least <= value < math.inf and (name in REAL or isinstance(value, int))
            expected = f"{'a number' if name in REAL else 'a whole number'}, {least} or more"
        if not right:
            raise ValueError(f"{name} must be {expected}, found {value!r}")
    return options


def train_hmm(
    settings: demo.Settings,
    data: Path,
    out: Path,
    console: Console,
    held_out: Path | None,
    format: str | None,
) -> None:
    """A neural HMM: its model, result.json and states.tsv go to `out`; goes on from a checkpoint there."""
    torch.set_num_threads(settings.threads)
    refuse_other_files(out / "model")  # now, not after the training
    sentences = read_sentences(data, format=format)
    corpus = demo.prepare(sentences, settings, None if held_out is None else read_sentences(held_out))
    show.corpus(console, str(data), corpus, settings.min_count)
    text = Batches(corpus.train, settings.batch_size).fingerprint()
    resuming = open_run(out, {"model": "hmm", **asdict(settings), "text": text})
    words = f"Training a neural HMM of {settings.states} states ..."
    console.print(f"Going on from the checkpoint in {out}." if resuming else words, style="bold")
    model = demo.build(settings, corpus)
    speed = demo.train(model, corpus, settings, out)
    if not only_the_first_goes_on():
        return
    perplexity, usage = demo.evaluate(model, corpus, settings.batch_size)
    labels = show.state_labels(model, corpus.vocabulary)
    show.states(console, labels, usage)
    model.save(out / "model")
    demo.save_labels(labels, out)
    versions = {"structlv": structlv.__version__, "torch": torch.__version__}
    result = {"perplexity": perplexity, "nats": math.log(perplexity), "tokens_per_second": speed}
    save_json(out / "result.json", {**result, "settings": asdict(settings), "versions": versions})
    close_run(out)
    console.print(f"\n[bold]Held-out perplexity[/bold] {perplexity:,.1f}", highlight=False)
    console.print(f"Model in {out / 'model'}, numbers in {out / 'result.json'}", highlight=False)
