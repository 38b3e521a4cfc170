"""A piano roll, with the decoded states of a factorial model as bands under it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from structlv._extras import require
from structlv.data import pitch_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VOICES = ("#1f4e79", "#c0792a", "#3f7d4e", "#8c4a7f")
BAND, GAP = 1.6, 0.5  # height of a band, and between bands, in semitones
WIDE = 0.8  # of a band's states, steps for each character that fits


def plot_piano_roll(
    pitches: Tensor,
    states: Tensor | None = None,
    *,
    attacks: Tensor | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw pitches over time, and under them one row of coloured bands for each chain of states.

    Equal states that follow one another are one band, with the state's number in it; a state's colour means
    nothing beyond its own chain.

    Args:
        pitches: (n,) or (n, voices) MIDI numbers at each step, negative where nothing sounds.
        states: (m, n) states of m chains, as ``posterior(x).argmax()`` gives them; negative where none.
        attacks: bool of the shape of ``pitches``, whether a note begins there; by default all do for
            (n,), one event a step, and where the pitch changes for (n, voices).
        ax: Axes to draw into; by default those of a new figure of fitting size.
        title: text above.

    Returns the Axes (save with ``ax.figure.savefig(path)``). Raises ValueError on shapes that do not fit or
    where nothing sounds, MissingExtra without matplotlib.
    """
    require("matplotlib", "plot")
    notes, begins = _checked(pitches, states, attacks)
    low, high = int(notes[notes >= 0].min()), int(notes.max())
    chains = 0 if states is None else len(states)
    ax = _new_axes(len(notes), high - low, chains) if ax is None else ax
    for voice in range(notes.shape[1]):
        for start, length, pitch in _notes(notes[:, voice].tolist(), begins[:, voice].tolist()):
            _box(ax, start + 0.06, pitch - 0.42, length - 0.12, 0.84, VOICES[voice % len(VOICES)])
    bottom = low - 1.5
    rows = []
    for chain in range(chains):
        bottom -= BAND + GAP
        rows.append(bottom + BAND / 2)
        assert states is not None  # else there are no chains
        _bands(ax, states[chain].tolist(), bottom)
    _label(ax, low, high, rows, len(notes), bottom - GAP)
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def _checked(pitches: Tensor, states: Tensor | None, attacks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pitches and attacks, both (n, voices). Raises ValueError."""
    if pitches.dim() not in (1, 2) or not bool((pitches >= 0).any()):
        raise ValueError(
            f"expected pitches (n,) or (n, voices), some not negative, found {tuple(pitches.shape)}"
        )
    if states is not None and (states.dim() != 2 or states.shape[1] != len(pitches)):
        raise ValueError(f"expected states (m, {len(pitches)}), found {tuple(states.shape)}")
    if attacks is not None and attacks.shape != pitches.shape:
        raise ValueError(f"expected attacks {tuple(pitches.shape)}, found {tuple(attacks.shape)}")
    if attacks is None:
        attacks = torch.ones_like(pitches, dtype=torch.bool)
        if pitches.dim() == 2:
            attacks[1:] = pitches[1:] != pitches[:-1]
    return pitches.reshape(len(pitches), -1), attacks.reshape(len(pitches), -1)


def _notes(pitches: list[int], begins: list[bool]) -> list[tuple[int, int, int]]:
    """(start, length, pitch) of each note of a voice."""
    found: list[tuple[int, int, int]] = []
    for step, (pitch, new) in enumerate(zip(pitches, begins, strict=True)):
        if pitch >= 0 and (new or step == 0 or pitches[step - 1] != pitch):
            found.append((step, 1, pitch))
        elif pitch >= 0:
            start, length, _ = found[-1]
            found[-1] = (start, length + 1, pitch)
    return found


def _bands(ax: Axes, states: list[int], bottom: float) -> None:
    """One box for each run of equal states, its number inside where it fits."""
    from matplotlib import colormaps

    # the light colours first: dark figures can be read on them
    palette = [colormaps["tab20"](i) for i in (*range(1, 20, 2), *range(0, 20, 2))]
    start = 0
    for state, run in groupby(states):
        length = len(list(run))
        if state >= 0:
            _box(ax, start, bottom, length, BAND, palette[state % len(palette)])
            if length >= WIDE * len(str(state)):
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "0.15"}
                ax.text(start + length / 2, bottom + BAND / 2, str(state), **style)
        start += length


def _box(ax: Axes, x: float, y: float, width: float, height: float, colour: Any) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", linewidth=0.6))


def _label(ax: Axes, low: int, high: int, rows: list[float], steps: int, bottom: float) -> None:
    white = [p for p in range(low, high + 1) if "#" not in pitch_name(p) and "b" not in pitch_name(p)]
    names = [f"chain {i + 1}" for i in range(len(rows))]
    ax.set_yticks([*white, *rows], [*map(pitch_name, white), *names], fontsize=8)
    for pitch in white:
        ax.axhline(pitch, color="0.92", linewidth=0.6, zorder=0)
    ax.set_xlim(0, steps)
    ax.set_ylim(bottom, high + 1.5)
    ax.set_xlabel("step", fontsize=9)
    ax.tick_params(axis="both", length=0, labelsize=8)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


def _new_axes(steps: int, semitones: int, chains: int) -> Axes:
    """Axes in a figure of its own, without pyplot."""
    from matplotlib.figure import Figure

    height = 1.4 + 0.13 * (semitones + (BAND + GAP) * chains)
    figure = Figure(figsize=(min(max(6.0, 1.2 + 0.19 * steps), 24.0), height), dpi=130, layout="constrained")
    axes: Axes = figure.add_subplot()
    return axes
