"""Work on many items at once: in processes of this machine, or through Ray Data on many machines.

Work is made in each process, from a function that can be pickled; its results are files.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

import torch

from structlv._extras import require

T = TypeVar("T")
Work = Callable[[Any], None]
DEATHS = 3  # of workers, without an item done between them, that end a run

_work: Work | None = None  # of a worker process


def in_processes(make: Callable[[], Work], items: Iterable[T], workers: int) -> Iterator[T]:
    """Do the items, in `workers` processes started anew ("spawn"); yields each when it is done, in any order.

    A process that dies is replaced, and what it did is done again. Raises what the work raises, and OSError
    where processes die again and again.
    """
    source, deaths = iter(items), 0
    while True:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(make,))
        begun: list[T] = []
        running: dict[Future[None], T] = {}
        try:
            while True:
                while len(running) < 2 * workers and (item := next(source, None)) is not None:
                    begun.append(item)
                    running[pool.submit(_do, item)] = item
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    item = running.pop(future)
                    begun.remove(item)
                    deaths = 0
                    yield item
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == DEATHS:
                raise OSError(
                    f"{DEATHS} times a worker died and nothing was done; fewer workers need less memory"
                ) from error
            source = chain(begun, source)
        finally:
            pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Work]) -> None:
    """In a new process: Ctrl-C is the parent's affair, and without the parent there is nothing to do."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    _work = make()


def _leave_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _do(item: Any) -> None:
    assert _work is not None
    _work(item)


class _Actor:
    """What Ray makes in each of its workers."""

    def __init__(self, make: Callable[[], Work]) -> None:
        torch.set_num_threads(1)
        self.work = make()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self.work(row["item"])
        return row


def on_ray(make: Callable[[], Work], items: Iterable[T], workers: int) -> Iterator[T]:
    """The same on the cluster that RAY_ADDRESS names, else on one that is started here; yields in order.

    A worker or a machine that dies is Ray's to replace. Raises MissingExtra without Ray.
    """
    data = require("ray.data", "ray")
    todo = list(items)
    if not todo:
        return
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = data.from_items([{"item": item} for item in todo], override_num_blocks=len(todo))
    for row in rows.map(_Actor, fn_constructor_args=(make,), concurrency=workers, num_cpus=1).iter_rows():
        yield row["item"]
