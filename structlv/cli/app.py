"""The commands and their options."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from structlv.cli import commands
from structlv.cli.errors import tidy_errors
from structlv.cli.options import Format, Method

app = typer.Typer(
    help="Structured latent-variable models for PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def structlv() -> None:
    """Structured latent-variable models for PyTorch."""


@app.command()
def info() -> None:
    """Print versions, the instruction set of the kernels, threads, and what CUDA there is."""
    from structlv.cli.info import facts, show

    show(facts(), Console())


demos = typer.Typer(invoke_without_command=True)
app.add_typer(demos, name="demo")


@demos.callback()
def demo(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(help="Train on this file instead: plain text, one sentence a line, or CoNLL-U."),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Format of --data; by default the suffix decides (.conllu, .conll, else text)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the model and the picture.")] = Path(
        "structlv-demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A small model on part of the text, in seconds.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of initial weights and data order.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads; more than one pays on an idle machine.")] = 1,
    states: Annotated[int | None, typer.Option(min=1, help="Number of hidden states.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the text.")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help="Highest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sentences in a batch.")] = None,
    min_count: Annotated[int | None, typer.Option(min=1, help="Rarer words are <unk>.")] = None,
) -> None:
    """Train a neural HMM on real text, compare it with n-gram models, and look at what it learned.

    Interrupt it when you like: the same command continues from the last checkpoint to the same result.
    `structlv demo factorial` is another demo, with options of its own.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    console = Console()
    with tidy_errors(out):
        from structlv.cli.demo import Settings, run

        chosen = {
            "states": states,
            "epochs": epochs,
            "lr": lr,
            "batch_size": batch_size,
            "min_count": min_count,
        }
        base = Settings.quick() if quick else Settings()
        settings = base.replaced(
            seed=seed, threads=threads, **{name: value for name, value in chosen.items() if value is not None}
        )
        run(settings, out, console, data=data, format=format.value if format else None)


def _refuse_options_before(context: typer.Context) -> None:
    """Options of the neural HMM in front of another demo's name would do nothing: status 2."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{option} must follow the name {context.invoked_subcommand!r}")


@demos.command()
def factorial(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Learn these melodies: tunes as text, or the UCI Bach chorales. By default those of music21 "
            "if it is installed, else tunes that come with structlv."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, numbers and the picture.")] = Path(
        "structlv-demo-factorial"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps and pieces, in seconds.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the first start of EM.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads; more than one pays on an idle machine.")] = 1,
    states: Annotated[str | None, typer.Option(help="States of each chain, such as 4,4,4.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations of EM, at most.")] = None,
    starts: Annotated[int | None, typer.Option(min=1, help="Random starts of EM; the best counts.")] = None,
) -> None:
    """Learn melodies with a factorial HMM by EM; compare HMMs and a bigram; draw the chains under the notes.

    Interrupt it when you like: the same command continues from the last checkpoint to the same result.
    """
    console = Console()
    with tidy_errors(out):
        from structlv.cli.factorial import Settings, run

        chosen = {"states": _sizes(states), "iterations": iterations, "starts": starts}
        base = Settings.quick() if quick else Settings()
        given = {name: value for name, value in chosen.items() if value is not None}
        run(base.replaced(seed=seed, threads=threads, **given), out, console, data=data)


def _sizes(text: str | None) -> tuple[int, ...] | None:
    """The text 4,4,4 as numbers. Raises ValueError."""
    if text is None:
        return None
    sizes = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in sizes):
        raise ValueError(f"--states: expected numbers such as 4,4,4, found {text!r}")
    return tuple(map(int, sizes))


class Grammar(str, Enum):
    neural = "neural"
    compound = "compound"
    lowrank = "lowrank"
    simple = "simple"


@app.command()
def induce(
    file: Annotated[Path, typer.Argument(help="Plain text, one sentence a line, or trees in brackets.")],
    held_out: Annotated[
        Path | None, typer.Option(help="Evaluate on this file; by default on every 20th sentence.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the model and pictures.")] = Path(
        "structlv-grammar"
    ),
    model: Annotated[Grammar, typer.Option(help="Kind of grammar.")] = Grammar.neural,
    method: Annotated[
        Method, typer.Option(help="Trees that are scored: most probable, or most expected constituents.")
    ] = Method.mbr,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of initial weights and data order.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads; more than one pays on an idle machine.")] = 1,
    nonterminals: Annotated[int | None, typer.Option(min=1, help="Number of nonterminals.")] = None,
    preterminals: Annotated[int | None, typer.Option(min=1, help="Number of preterminals.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Width of embeddings and networks.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the text.")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help="Learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sentences in a batch.")] = None,
    min_count: Annotated[int | None, typer.Option(min=1, help="Rarer words are <unk>.")] = None,
    max_length: Annotated[int | None, typer.Option(min=2, help="Longer sentences are left out.")] = None,
    max_sentences: Annotated[int | None, typer.Option(min=2, help="Use only the first ones.")] = None,
) -> None:
    """Learn a grammar from raw sentences, and compare its trees with those of the file, if it has any.

    Trees are used for evaluation alone. Interrupt it when you like: the same command continues from the last
    checkpoint to the same result.
    """
    console = Console()
    with tidy_errors(out):
        from structlv.cli.induce import Settings, run

        chosen = {
            "nonterminals": nonterminals,
            "preterminals": preterminals,
            "dim": dim,
            "epochs": epochs,
            "lr": lr,
            "batch_size": batch_size,
            "min_count": min_count,
            "max_length": max_length,
            "max_sentences": max_sentences,
        }
        settings = Settings(model=model.value, method=method.value, seed=seed, threads=threads)
        given = {name: value for name, value in chosen.items() if value is not None}
        run(settings.replaced(**given), file, out, console, held_out=held_out)


for command in (
    commands.train,
    commands.tag,
    commands.parse,
    commands.evaluate,
    commands.sample,
    commands.bench,
):
    app.command()(command)
