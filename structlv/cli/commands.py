"""The commands that train a model on your text and use it, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from structlv.cli.errors import tidy_errors
from structlv.cli.options import Format, Kind, Method, Precision, Sharding, Tagging

Model = Annotated[Path, typer.Argument(help="Folder of a run, or of a saved model.")]
Text = Annotated[
    Path, typer.Argument(help="Plain text, one sentence a line, or CoNLL-U (.conllu); - for standard input.")
]
Output = Annotated[Path | None, typer.Option(help="Write here, not to standard output.")]
Shards = Annotated[
    Path | None,
    typer.Option(
        help="Write shards into this folder instead: stopped, the same command makes those that are missing. "
        "One after the other they are the output without shards."
    ),
]
ShardSize = Annotated[int, typer.Option(min=1, help="Sentences in a shard, rounded up.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that make shards.")]
Ray = Annotated[
    bool,
    typer.Option("--ray", help="Workers of the Ray cluster that RAY_ADDRESS names, or of one started here."),
]


def train(
    model: Annotated[Kind, typer.Argument(help="What to train: an HMM (tags) or a grammar (trees).")],
    data: Annotated[
        Path | None,
        typer.Option(help="The text, one sentence a line; or CoNLL-U (HMM), bracketed trees (grammar)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoint, model and numbers.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of these options, such as states = 64; options given here win."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Evaluate on this file; by default on every 20th sentence.")
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="Format of an HMM's text; by default the suffix decides.")
    ] = None,
    states: Annotated[int | None, typer.Option(min=1, help="HMM: number of hidden states.")] = None,
    layers: Annotated[int | None, typer.Option(min=0, help="HMM: residual blocks of its networks.")] = None,
    nonterminals: Annotated[int | None, typer.Option(min=1, help="Grammar: nonterminals.")] = None,
    preterminals: Annotated[int | None, typer.Option(min=1, help="Grammar: preterminals.")] = None,
    max_length: Annotated[int | None, typer.Option(min=2, help="Grammar: no longer sentences.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Width of embeddings and networks.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the text.")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help="Highest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sentences in a batch.")] = None,
    min_count: Annotated[int | None, typer.Option(min=1, help="Rarer words are <unk>.")] = None,
    max_sentences: Annotated[int | None, typer.Option(min=2, help="Use only the first ones.")] = None,
    clip: Annotated[
        float | None, typer.Option(min=0.0, help="Longest gradient; longer ones are scaled. 0: any.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Of the networks; inference is never in half precision.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after this many epochs no better on held-out text; keep the best."),
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard", help="Log for TensorBoard too, beside log.csv.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of initial weights and data order.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; 1 by default.")] = None,
) -> None:
    """Train a model on your text, say how good it is on sentences it has not seen, and save it.

    Stop it when you like (Ctrl-C, a kill, a power cut): the same command goes on from the last checkpoint to
    the same result.

    Example: structlv train hmm --data text.txt --out run --states 64, then structlv tag run text.txt
    """
    given = {name: getattr(x, "value", x) for name, x in locals().items() if x is not None}
    del given["model"]
    given.pop("config", None)
    with tidy_errors(out):
        from structlv.cli.processes import console
        from structlv.cli.train import run, with_config

        run(model.value, with_config(config, given), console())


def tag(
    model: Model,
    file: Text,
    method: Annotated[
        Tagging, typer.Option(help="The best sequence of states, or each word's most probable state.")
    ] = Tagging.viterbi,
    output: Output = None,
    shards: Shards = None,
    shard_size: ShardSize = 16384,
    workers: Workers = 1,
    ray: Ray = False,
) -> None:
    """Tag sentences by an HMM: a word, a tab and its state a line, an empty line after each sentence."""
    with tidy_errors(shards):
        from structlv.cli.tag import run

        run(model, file, method.value, output, _sharding(shards, shard_size, workers, ray))


def parse(
    model: Annotated[Path, typer.Argument(help="Folder of a saved grammar, as `structlv induce` leaves it.")],
    file: Annotated[Path, typer.Argument(help="Plain text, one sentence a line; - for standard input.")],
    method: Annotated[Method, typer.Option(help="Most probable tree, or most expected constituents.")] = (
        Method.viterbi
    ),
    output: Output = None,
    shards: Shards = None,
    shard_size: ShardSize = 4096,
    workers: Workers = 1,
    ray: Ray = False,
) -> None:
    """Parse sentences with a grammar: one tree in brackets a line."""
    with tidy_errors(shards):
        from structlv.cli.parse import run

        run(model, file, method.value, output, _sharding(shards, shard_size, workers, ray))


def _sharding(folder: Path | None, size: int, workers: int, ray: bool) -> Sharding | None:
    """What the options say. Raises ValueError for workers that have nowhere to write."""
    if folder is not None:
        return Sharding(folder, size, workers, ray)
    if ray or workers > 1:
        raise ValueError("--workers and --ray make shards: name a folder for them with --shards")
    return None


def evaluate(
    model: Model,
    file: Text,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
) -> None:
    """Say how well a model predicts a text, and how well its tags or trees agree with those of the file."""
    with tidy_errors():
        from structlv.cli.evaluate import run

        run(model, file, json, Console())


def sample(
    model: Model,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many sentences.")] = 10,
    max_length: Annotated[int, typer.Option(min=1, help="No longer sentences than this many words.")] = 30,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same sentences.")] = None,
) -> None:
    """Print sentences drawn from a model, one a line."""
    with tidy_errors():
        from structlv.cli.sample import run

        run(model, number, max_length, seed)


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Check only, and time the smallest sizes.")] = False,
) -> None:
    """Check this machine's kernels against sums over all structures, and time them. Status 1 if wrong."""
    from structlv.cli.bench import run

    raise typer.Exit(0 if run(Console(), quick) else 1)
