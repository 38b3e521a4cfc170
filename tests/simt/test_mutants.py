"""The list of seeded bugs that may go unnoticed."""

from __future__ import annotations

import json

from tests.simt import mutate


def test_what_is_listed_is_there() -> None:
    _, everything = mutate.all_kernels()
    assert mutate.stale_of(everything) == []


def test_names_are_unique() -> None:
    """Else a reason for one bug would excuse another."""
    _, everything = mutate.all_kernels()
    assert len({mutate.key(m) for m in everything}) == len(everything)


def test_each_has_one_reason() -> None:
    listed = json.loads(mutate.UNNOTICED.read_text())
    assert len(mutate.reasons()) == sum(map(len, listed.values()))
    assert mutate.UNJUDGED not in listed
