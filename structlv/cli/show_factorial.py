"""What `structlv demo factorial` prints and draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch import Tensor

from structlv.cli.show import new_table, print_table
from structlv.data import Chorale, Melody, pitch_name
from structlv.viz import plot_piano_roll

if TYPE_CHECKING:
    from structlv.cli.factorial import Music, Score


def music(console: Console, found: Music) -> None:
    """Where the melodies are from and how many there are."""
    train, held_out = (sum(map(len, part)) for part in (found.train, found.held_out))
    low, high = pitch_name(found.pitches[0]), pitch_name(found.pitches[-1])
    sizes = (
        f"{len(found.train)} melodies ({train:,} notes) to learn from, {len(found.held_out)} ({held_out:,} "
        f"notes) held out; {len(found.pitches)} pitches, {low} to {high}"
    )
    console.print(f"[bold]Music[/bold]  {found.source}", highlight=False)
    console.print(f"       {sizes}", highlight=False)


def scores(console: Console, found: list[Score]) -> None:
    """Bits per event, the fewest last."""
    table = new_table("Held-out bits per event", "model", "parameters", "bits", right="parameters bits")
    for score in sorted(found, key=lambda one: -one.bits):
        style = "bold" if score.name.startswith("factorial") else None
        table.add_row(score.name, f"{score.parameters:,}", f"{score.bits:.3f}", style=style)
    print_table(console, table)
    console.print("An event is the pitch of a note; lengths are given.", style="dim", highlight=False)


def chains(console: Console, states: Tensor) -> None:
    """How long each chain stays in a state of the piece that is drawn."""
    table = new_table(
        "Decoded chains of the piece drawn", "chain", "states used", "notes per state", right="chain"
    )
    for i, row in enumerate(states):
        runs = 1 + int((row[1:] != row[:-1]).sum())
        table.add_row(str(i + 1), str(len(row.unique())), f"{len(row) / runs:.1f}")
    print_table(console, table)


def picture(piece: Melody | Chorale, states: Tensor, path: Path) -> None:
    """The piece with the chains' states under it: of a chorale all voices, in its own time."""
    if isinstance(piece, Chorale):
        events = (piece.attacks[:, 0].cumsum(0) - 1).clamp(min=0)
        sounding = torch.where(piece.attacks[:, 0].cumsum(0) > 0, states[:, events], -1)
        axes = plot_piano_roll(piece.pitches, sounding, attacks=piece.attacks, title=piece.title)
    else:
        axes = plot_piano_roll(piece.pitches, states, title=piece.title)
        axes.set_xlabel("note")
    figure = axes.get_figure(root=True)
    assert figure is not None  # a drawn Axes has one
    figure.savefig(path)


def files(console: Console, result: Path, drawn: Path) -> None:
    """Where everything is."""
    console.print(f"\nNumbers in {result}, picture in {drawn}", highlight=False)
