"""A file's labels in shards: each a file of its own, whole or not there, made by any of many workers.

What is done is what lies in the folder. A shard is named by its number and by a digest of the text that it is
about; manifest.json has what else determines it, and when all is done the list of all.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import structlv
from structlv.cli.options import Sharding
from structlv.cli.run_folder import differences, save_json, write_atomically
from structlv.cli.saved import fingerprint
from structlv.cli.workers import Work, in_processes, on_ray
from structlv.data.readers import number_lines

if TYPE_CHECKING:
    from structlv.cli.label import Labeller

MANIFEST = "manifest.json"
CHANGED = "the text is not what it was when {} was made; name another folder for its --shards"
COLUMNS = TextColumn("Shards"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn()


class Job(NamedTuple):
    """A file to be labelled, of a format, and how its labeller is made."""

    make: Callable[[], Labeller]
    file: Path
    format: str


class Shard(NamedTuple):
    """A part of the file: its number, its bytes, the number of its first line, a digest of it."""

    number: int
    start: int
    end: int
    line: int
    digest: str

    def name(self, suffix: str) -> str:
        return f"shard-{self.number:06d}-{self.digest}{suffix}"


def run_shards(job: Job, labeller: Labeller, sharding: Sharding) -> bool:
    """Make the shards that are not there yet; whether there is a label in any.

    Raises OSError; ValueError where the folder holds shards of another text, model or size.
    """
    folder, suffix = sharding.folder, labeller.suffix
    size = -(-sharding.size // labeller.chunk) * labeller.chunk
    settings = _settings(job, labeller, size)
    there = _open(folder, settings)
    names: list[str] = []
    todo = _missing(cut(job.file, job.format, size), suffix, there, names)
    make = partial(_worker, job, folder)
    if sharding.ray:
        done = on_ray(make, todo, sharding.workers)
    elif sharding.workers > 1:
        done = in_processes(make, todo, sharding.workers)
    else:
        done = _here(partial(_write, job, labeller, folder), todo)
    with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=job.file.stat().st_size)
        for shard in done:
            progress.update(bar, completed=shard.end)
    save_json(folder / MANIFEST, {**settings, "complete": True, "shards": names})
    return any((folder / name).stat().st_size for name in names)


def cut(file: Path, format: str, size: int) -> Iterator[Shard]:
    """Shards of `size` sentences, as `chunks` counts them, found in one pass over the bytes."""
    number = start = end = count = 0
    first = line_number = 1
    digest = hashlib.blake2b(digest_size=8)
    with open(file, "rb") as stream:
        for line in stream:
            digest.update(line)
            end += len(line)
            line_number += 1
            count += format == "text" or not line.strip()
            if count == size:
                yield Shard(number, start, end, first, digest.hexdigest())
                number, start, count, first = number + 1, end, 0, line_number
                digest = hashlib.blake2b(digest_size=8)
    if end > start:
        yield Shard(number, start, end, first, digest.hexdigest())


def _missing(
    shards: Iterable[Shard], suffix: str, there: dict[int, str], names: list[str]
) -> Iterator[Shard]:
    """The shards that are not `there`; the names of all go to `names`."""
    for shard in shards:
        names.append(shard.name(suffix))
        found = there.get(shard.number)
        if found is None:
            yield shard
        elif found != names[-1]:
            raise ValueError(CHANGED.format(found))
    if len(there) > len(names):
        raise ValueError(CHANGED.format(there[max(there)]))


def _settings(job: Job, labeller: Labeller, size: int) -> dict[str, Any]:
    """What determines the shards, beside the text."""
    return {
        "labels": type(labeller).__name__,
        "method": labeller.method,
        "model": fingerprint(labeller.folder),
        "format": job.format,
        "sentences": size,
        "structlv": structlv.__version__,
    }


def _open(folder: Path, settings: dict[str, Any]) -> dict[int, str]:
    """Make the folder; the names of the shards that are there, by their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for half in folder.glob(".*.tmp"):  # of processes that were killed
        half.unlink()
    manifest = folder / MANIFEST
    if manifest.exists():
        if changed := differences(manifest, settings):
            raise ValueError(
                f"{folder} holds shards made with other settings ({changed}); name another --shards"
            )
    elif any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files; name another --shards")
    else:
        save_json(manifest, {**settings, "complete": False})
    names = (path.name for path in folder.glob("shard-*"))
    return {int(name.split("-")[1]): name for name in names}


def _here(work: Work, shards: Iterable[Shard]) -> Iterator[Shard]:
    """In this process."""
    for shard in shards:
        work(shard)
        yield shard


def _worker(job: Job, folder: Path) -> Work:
    return partial(_write, job, job.make(), folder)


def _write(job: Job, labeller: Labeller, folder: Path, shard: Shard) -> None:
    """Label a shard. Raises ValueError where its text is no longer what it was."""
    with open(job.file, "rb") as file:
        file.seek(shard.start)
        content = file.read(shard.end - shard.start)
    if hashlib.blake2b(content, digest_size=8).hexdigest() != shard.digest:
        raise ValueError(f"{job.file}: changed while it was read")
    encoding = "utf-8" if shard.start else "utf-8-sig"
    text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding)
    lines = number_lines(text, job.file, shard.line)
    labels = "".join(labeller.labelled(lines, job.format, job.file))
    write_atomically(folder / shard.name(labeller.suffix), labels)
