"""`structlv demo factorial`: learn melodies with a factorial HMM by EM, beside HMMs and a bigram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from structlv._extras import MissingExtra, require
from structlv.cli import show_factorial
from structlv.cli.run_folder import save_json
from structlv.data import Chorale, Melody, bach_chorales, read_melodies, shipped_tunes
from structlv.data.chorales import CHORALES_SOURCE, TUNES_SOURCE
from structlv.distributions import FactorialHMM
from structlv.models import AdditiveBigram

HELD_OUT_EVERY = 5
READABLE = 64  # notes of a piece that fits into a picture
RESULT, PICTURE = "result.json", "piano-roll.png"


@dataclass(frozen=True)
class Settings:
    """What determines a run, beside the melodies. The defaults fit a few dozen to a few hundred of them."""

    states: tuple[int, ...] = (4, 4, 4)
    iterations: int = 100
    starts: int = 2
    initial: float = 0.1
    transition: float = 0.1
    emission: float = 0.05
    max_pieces: int | None = None
    seed: int = 0
    threads: int = 1

    @classmethod
    def quick(cls) -> Settings:
        """Fewer steps and pieces: some seconds."""
        return cls(iterations=25, starts=1, max_pieces=60)

    def replaced(self, **changes: Any) -> Settings:
        """The same with some values changed."""
        return replace(self, **changes)


class Music(NamedTuple):
    """Pieces, the events of each as symbols 0..V-1, the held-out ones apart, and what the symbols are."""

    source: str
    pitches: tuple[int, ...]
    train: list[Tensor]
    held_out: list[Tensor]
    held_out_pieces: list[Melody | Chorale]


class Score(NamedTuple):
    """A model's size and how well it predicts what is held out."""

    name: str
    parameters: int
    nats: float

    @property
    def bits(self) -> float:
        """Per event."""
        return self.nats / math.log(2)


def run(settings: Settings, out: Path, console: Console, data: Path | None = None) -> None:
    """Learn, report, and save everything into `out`; go on from the checkpoints there."""
    require("pytorch_lightning", "train")
    require("matplotlib", "plot")
    torch.set_num_threads(settings.threads)
    music = prepare(*load(data, console), settings)
    show_factorial.music(console, music)
    out.mkdir(parents=True, exist_ok=True)
    models = {
        name: learn(name, sizes, music, settings, out) for name, sizes in shapes(settings, music).items()
    }
    scores = evaluate(models, music)
    show_factorial.scores(console, scores)
    piece, states = decode(models["factorial HMM"], music)
    show_factorial.chains(console, states)
    show_factorial.picture(piece, states, out / PICTURE)
    found = [{**score._asdict(), "bits": score.bits} for score in scores]
    save_json(out / RESULT, {"scores": found, "settings": asdict(settings), "source": music.source})
    for name in models:
        checkpoint(name, out).unlink(missing_ok=True)  # the run is complete: the next one starts afresh
    show_factorial.files(console, out / RESULT, out / PICTURE)


def load(data: Path | None, console: Console) -> tuple[str, Sequence[Melody | Chorale]]:
    """The file's melodies; without a file Bach's chorales if music21 is there, else the shipped tunes."""
    if data is not None:
        return str(data), read_melodies(data)
    try:
        require("music21.corpus", "music")
    except MissingExtra:
        return TUNES_SOURCE, shipped_tunes()
    console.print("Reading the chorales of music21 (half a minute the first time) ...", style="dim")
    return CHORALES_SOURCE, bach_chorales()


def prepare(source: str, pieces: Sequence[Melody | Chorale], settings: Settings) -> Music:
    """Hold out every fifth piece; symbols are the pitches of the highest voice that occur, in order.

    Raises ValueError where there are fewer than five pieces.
    """
    chosen = list(pieces[: settings.max_pieces])
    if len(chosen) < HELD_OUT_EVERY:
        raise ValueError(f"{source}: {len(chosen)} melodies, expected at least {HELD_OUT_EVERY}")
    melodies = [(piece if isinstance(piece, Melody) else piece.melody()).pitches for piece in chosen]
    pitches = torch.cat(melodies).unique()
    events = [torch.searchsorted(pitches, melody) for melody in melodies]
    last = HELD_OUT_EVERY - 1
    return Music(
        source,
        tuple(pitches.tolist()),
        [x for i, x in enumerate(events) if i % HELD_OUT_EVERY != last],
        events[last::HELD_OUT_EVERY],
        chosen[last::HELD_OUT_EVERY],
    )


def shapes(settings: Settings, music: Music) -> dict[str, tuple[int, ...]]:
    """The factorial HMM, and the HMMs of as many parameters and of as many joint states."""
    from structlv.learning import states_of_equal_parameters

    return {
        "factorial HMM": settings.states,
        "HMM, as many parameters": (states_of_equal_parameters(settings.states, len(music.pitches)),),
        "HMM, as many joint states": (math.prod(settings.states),),
    }


def learn(name: str, sizes: tuple[int, ...], music: Music, settings: Settings, out: Path) -> FactorialHMM:
    """The best of some starts of EM."""
    from structlv.learning import Prior, fit_em, padded, random_categorical

    counts = torch.bincount(torch.cat(music.train), minlength=len(music.pitches))
    x, lengths = padded(music.train)
    return fit_em(
        partial(random_categorical, sizes, counts),
        x,
        lengths,
        prior=Prior(settings.initial, settings.transition, settings.emission),
        iterations=settings.iterations,
        tolerance=1e-4,
        seeds=range(settings.seed, settings.seed + settings.starts),
        checkpoint=checkpoint(name, out),
    ).model


def checkpoint(name: str, out: Path) -> Path:
    """Where EM of this model keeps its state."""
    return out / f"{name.replace(', ', '-').replace(' ', '-').lower()}.ckpt"


def evaluate(models: dict[str, FactorialHMM], music: Music) -> list[Score]:
    """Of every model, and of a bigram with 1/2 added to its counts."""
    from structlv.learning import nats_per_event, num_parameters

    v = len(music.pitches)
    bigram = AdditiveBigram(v).fit(x.tolist() for x in music.train)
    total = sum(bigram.log_prob(x.tolist()) for x in music.held_out)
    found = [Score("bigram, add 1/2", (v + 1) * (v - 1), -total / sum(map(len, music.held_out)))]
    for name, model in models.items():
        states = " × ".join(map(str, model.sizes))
        nats = nats_per_event(model, music.held_out)
        found.append(Score(f"{name}: {states} states", num_parameters(model.sizes, v), nats))
    return found


@torch.no_grad()
def decode(model: FactorialHMM, music: Music) -> tuple[Melody | Chorale, Tensor]:
    """A held-out piece and its best states (m, events): the longest that can be read in a picture."""
    lengths = [len(x) if len(x) <= READABLE else -len(x) for x in music.held_out]
    chosen = max(range(len(lengths)), key=lengths.__getitem__)
    return music.held_out_pieces[chosen], model.posterior(music.held_out[chosen]).argmax()
