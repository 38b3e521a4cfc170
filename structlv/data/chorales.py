"""Melodies and chorales: tune files, the UCI collection, the corpus of music21, tunes that are shipped."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv._extras import require

TUNES_SOURCE = "public-domain tunes, 1551-1881, transcribed for structlv"
CHORALES_SOURCE = (
    "Bach's chorales in four voices, from the corpus of music21 (software BSD-3-Clause; encodings in the "
    "corpus under terms of their own, see bach_chorales)"
)
SILENT = -1
VOICES = 4
CACHE, CACHE_FORMAT = "bach-chorales.json", 1
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"": 0, "#": 1, "b": -1}
NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


class Melody(NamedTuple):
    """The pitches of one voice in order, (n,) int64 MIDI numbers (60 is middle C), one for each note."""

    title: str
    source: str
    pitches: Tensor


class Chorale(NamedTuple):
    """Voices, highest first, on a common grid of time.

    Attributes:
        title: as the corpus names it.
        pitches: (n, voices) int64 MIDI numbers sounding at each step, -1 where the voice is silent.
        attacks: (n, voices) bool, whether a note begins there (else it is held).
    """

    title: str
    pitches: Tensor
    attacks: Tensor

    def melody(self, voice: int = 0) -> Melody:
        """The notes of one voice, by default the highest."""
        return Melody(self.title, "J. S. Bach", self.pitches[self.attacks[:, voice], voice])


def pitch_number(name: str) -> int:
    """MIDI number of a note such as C4 (60), F#4 or Bb3. Raises ValueError for anything else."""
    match = re.fullmatch(r"([A-G])([#b]?)(-?\d)", name)
    if match is None:
        raise ValueError(f"expected a note such as C4, F#4 or Bb3, found {name!r}")
    letter, accidental, octave = match.groups()
    return 12 * (int(octave) + 1) + STEPS[letter] + ACCIDENTALS[accidental]


def pitch_name(number: int) -> str:
    """The note of a MIDI number: 60 is C4, 70 is Bb4."""
    return f"{NAMES[number % 12]}{number // 12 - 1}"


def read_melodies(path: str | Path) -> list[Melody]:
    """The melodies of a file, in its order.

    Either the lisp lists of the UCI collection "Bach Chorales" (Conklin; doi 10.24432/C5GC7P, CC BY 4.0), of
    which the pitches are kept: its published split is the first 66 for training, the other 34 for testing. Or
    tunes: a line "Title | source", then notes (C4, F#4; or MIDI numbers) up to an empty line; # begins a
    comment line. Raises OSError, and ValueError where the file is not UTF-8, is of neither format, or holds
    no melody.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error.reason}") from error
    melodies = _uci(path, text) if text.lstrip().startswith("(") else _tunes(path, text)
    if not melodies:
        raise ValueError(f"{path}: no melody in it")
    return melodies


def shipped_tunes() -> list[Melody]:
    """Two dozen tunes in the public domain, hymns, carols, folk songs, that come with structlv."""
    return read_melodies(str(files("structlv.data").joinpath("tunes.txt")))


def _uci(path: str | Path, text: str) -> list[Melody]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            head = re.match(r"\s*\((\d+)\b", line)
            pitches = [int(p) for p in re.findall(r"\(pitch (\d+)\)", line)]
            if head is None or not pitches or line.count("(") != line.count(")"):
                raise ValueError(f"{path}, line {number}: expected (number ((st ..) (pitch ..) ..) ..)")
            found.append(Melody(f"chorale {head[1]}", "UCI Bach Chorales", torch.tensor(pitches)))
    return found


def _tunes(path: str | Path, text: str) -> list[Melody]:
    found, notes = [], list[int]()
    title = ""
    numbered = enumerate([*text.splitlines(), ""], start=1)
    for number, line in ((i, one.strip()) for i, one in numbered):
        if line.startswith("#"):
            continue
        if title and line:
            notes += _notes(path, number, line)
        elif line:
            title = line
        elif title:
            name, _, source = (part.strip() for part in title.partition("|"))
            if not notes:
                raise ValueError(f"{path}, line {number}: no notes follow the title {name!r}")
            found.append(Melody(name, source, torch.tensor(notes)))
            title, notes = "", []
    return found


def _notes(path: str | Path, number: int, line: str) -> Iterable[int]:
    try:
        return [int(word) if word.isdigit() else pitch_number(word) for word in line.split()]
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


# ---- music21 -------------------------------------------------------------------------------------------


def bach_chorales(*, steps_per_quarter: int = 2, cache: str | Path | None = None) -> list[Chorale]:
    """Bach's chorales in four voices from the corpus that comes with the package music21 (extra "music").

    Those of its list of chorales that have exactly four parts, sampled at each step of time. Parsing takes
    half a minute, so that it is done once: notes are kept in ``cache``, by default a file of the user's cache
    folder, per version of music21.

    Licences: music21 is BSD-3-Clause, but its corpus is not part of that ("The music21 creators assume no
    copyright or change in licensing for content distributed in the corpus"): the music is in the public
    domain, encodings "may be under copyright but have been licensed for use, though there may be restrictions
    on commercial use". Nothing of it is copied into structlv.

    Raises MissingExtra without music21, ValueError unless ``steps_per_quarter`` is at least 1.
    """
    if steps_per_quarter < 1:
        raise ValueError(f"steps_per_quarter must be at least 1, found {steps_per_quarter}")
    require("music21.corpus", "music")  # not music21 itself: a folder of that name would pass for it
    version = str(require("music21", "music").__version__)
    path = _cache_folder() / CACHE if cache is None else Path(cache)
    stored = _read_cache(path, version)
    if stored is None:
        stored = list(_parse_corpus())
        _write_cache(path, {"format": CACHE_FORMAT, "music21": version, "pieces": stored})
    return [_on_grid(piece["title"], piece["voices"], steps_per_quarter) for piece in stored]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "structlv"


def _read_cache(path: Path, version: str) -> list[dict[str, Any]] | None:
    """The stored pieces; None where there are none, of another version, or damaged: then they are parsed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        current = content["format"] == CACHE_FORMAT and content["music21"] == version
        return list(content["pieces"]) if current else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_cache(path: Path, content: dict[str, Any]) -> None:
    """Beside the place, then renamed; a folder that cannot be written costs the next call its time alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def _parse_corpus() -> Iterable[dict[str, Any]]:
    """Title and voices, each a list of [start, end, pitch] in quarters, of every chorale in four parts."""
    corpus = require("music21.corpus", "music")
    for name in corpus.chorales.Iterator(returnType="filename"):
        score = corpus.parse(name)
        if len(score.parts) == VOICES:
            yield {
                "title": str(name).rpartition("/")[2],
                "voices": [_voice(part) for part in score.parts],
            }


def _voice(part: Any) -> list[list[float]]:
    """Notes of a part as [start, end, pitch]; tied ones are one note, of a chord the highest is taken."""
    notes: list[list[float]] = []
    for element in part.flatten().notes:
        start, pitch = float(element.offset), max(int(p.midi) for p in element.pitches)
        end = start + float(element.quarterLength)
        tied = element.tie is not None and element.tie.type in ("stop", "continue")
        if tied and notes and notes[-1][2] == pitch:
            notes[-1][1] = end
        elif end > start:  # grace notes take no time
            notes.append([start, end, pitch])
    return notes


def _on_grid(title: str, voices: Sequence[Sequence[Sequence[float]]], steps: int) -> Chorale:
    """What sounds at times 0, 1/steps, 2/steps, ...; a note between two steps is not heard."""
    length = max((math.ceil(notes[-1][1] * steps - 1e-6) for notes in voices if notes), default=0)
    pitches = torch.full((length, len(voices)), SILENT)
    attacks = torch.zeros(length, len(voices), dtype=torch.bool)
    for voice, notes in enumerate(voices):
        for start, end, pitch in notes:
            first, last = (math.ceil(time * steps - 1e-6) for time in (start, end))  # triplets are rounded
            if first < last:
                pitches[first:last, voice] = int(pitch)
                attacks[first, voice] = True
    return Chorale(title, pitches, attacks)
