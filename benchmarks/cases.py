"""A case: a query at one size. What that means is its structure's: see chains.py and its like."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from benchmarks import chains, factorials, layers, relaxed, trees

STRUCTURES: tuple[ModuleType, ...] = (chains, relaxed, trees, factorials, layers)
TITLES: dict[str, str] = {query: title for one in STRUCTURES for query, title in one.QUERIES.items()}


@dataclass(frozen=True)
class Case:
    query: str
    size: tuple[int, ...]
    dtype: str = "float32"

    @property
    def structure(self) -> ModuleType:
        return next(one for one in STRUCTURES if self.query in one.QUERIES)

    @property
    def size_text(self) -> str:
        return ",".join(map(str, self.size))

    @property
    def name(self) -> str:
        return f"{self.query}:{self.size_text}:{self.dtype}"

    @property
    def streamed_bytes(self) -> int:
        """Bytes of potentials that are too many for the cache, 0 where they are few."""
        return self.structure.streamed(self.query, self.size) * np.dtype(self.dtype).itemsize

    def flops(self) -> float:
        return self.structure.flops(self.query, self.size)

    def goals(self) -> tuple[tuple[str, float], ...]:
        """The peers to beat and by what factors."""
        return self.structure.goals(self.query, self.size) if self.dtype == "float32" else ()

    def small(self) -> Case:
        """Many copies of one short item: sampling is checked on it, and it warms up a peer's code."""
        return Case(self.query, self.structure.small(self.query), self.dtype)

    def inputs(self, *, copies: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
        """Natural-log potentials by name; `copies` repeats one item over the batch."""
        found = self.structure.inputs(self.query, self.size, copies, seed)
        return {name: value.astype(self.dtype) for name, value in found.items()}


def parse(text: str) -> Case:
    """``query:SIZE[:dtype]`` -> Case. Raises ValueError on an unknown query or a malformed size."""
    query, size, *dtype = text.split(":")
    if query not in TITLES:
        raise ValueError(f"unknown query {query!r}; one of {', '.join(TITLES)}")
    case = Case(query, tuple(int(part) for part in size.split(",")), *dtype)
    case.structure.require_size(query, case.size)
    return case


def full(*structures: ModuleType) -> list[Case]:
    return [
        Case(query, size)
        for one in structures or STRUCTURES
        for query in one.QUERIES
        for size in one.sizes(query)
    ]


def smoke() -> list[Case]:
    return [Case(query, one.smoke(query)) for one in STRUCTURES for query in one.QUERIES]
