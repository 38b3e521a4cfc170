"""What went wrong, in one sentence, and exit statuses: 0 done, 1 a mistake that a user can mend, 2 a wrong
option, 130 interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from structlv._extras import MissingExtra


@contextmanager
def tidy_errors(out: Path | None = None) -> Iterator[None]:
    """What a user can mend is one sentence and status 1, Ctrl-C or SIGTERM status 130; a traceback is a bug.

    `out` is the folder of a run, whose checkpoint or shards are named where there are some.
    """
    errors = Console(stderr=True)
    try:
        yield
    except KeyboardInterrupt:
        where = "Nothing was saved yet."
        for pattern, kept, them in (
            ("*.ckpt", "checkpoint is", "it"),
            ("shard-*", "finished shards are", "them"),
        ):
            if out is not None and any(out.glob(pattern)):
                where = f"The {kept} in {out}: the same command goes on from {them}."
        errors.print(f"\nInterrupted. {where}", style="yellow", highlight=False)
        raise typer.Exit(130) from None
    except (OSError, ValueError, MissingExtra) as error:
        errors.print("error:", style="bold red", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
