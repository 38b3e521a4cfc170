"""Chains and PCFGs to test on: one builder each, for every sharing, raggedness, option and forbidden part."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

AWKWARD_STATES = (1, 2, 3, 5, 15, 16, 17, 31, 33, 64, 65)
AWKWARD_LENGTHS = (0, 1, 2, 3, 37)


class Chain(NamedTuple):
    """The positional arguments of a chain's queries."""

    unary: Tensor
    transition: Tensor
    initial: Tensor | None
    final: Tensor | None
    lengths: Tensor | None

    def to(self, dtype: torch.dtype) -> Chain:
        return self.map(lambda x: x.to(dtype))

    def map(self, f) -> Chain:
        """``f`` of every potential; lengths as they are."""
        return Chain(*[None if x is None else f(x) for x in self[:4]], self.lengths)

    def leaves(self) -> tuple[Chain, list[Tensor]]:
        """A copy that requires grad, and its tensors."""
        copy = self.map(lambda x: x.detach().clone().requires_grad_())
        return copy, [x for x in copy[:4] if x is not None]

    def item(self, index: tuple[int, ...]) -> Chain:
        """One item of the batch, cut to its length, without batch dimensions."""
        batch = self.unary.shape[:-2]
        n = self.unary.shape[-2] if self.lengths is None else int(self.lengths[index])
        per_step = self.transition.dim() == self.unary.dim() + 1
        core = self.transition.shape[-3:] if per_step else self.transition.shape[-2:]
        matrix = self.transition.expand(*batch, *core)[index]
        ends = [None if x is None else x.expand(*batch, x.shape[-1])[index] for x in self[2:4]]
        return Chain(self.unary[index][:n], matrix[: max(n - 1, 0)] if per_step else matrix, *ends, None)


SHARINGS = ("shared", "item", "step", "item step")


def chain(
    batch: tuple[int, ...] = (3,),
    n: int = 4,
    k: int = 3,
    sharing: str = "shared",
    ends: bool = True,
    ragged: bool = True,
    holes: float = 0.0,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Chain:
    """Random potentials: ``sharing`` of the transition, and ``holes`` the share of forbidden parts."""
    g = torch.Generator().manual_seed(seed)

    def potential(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=g, dtype=torch.float64) * scale
        gone = torch.rand(shape, generator=g, dtype=torch.float64) < holes
        return x.masked_fill(gone, -torch.inf).to(dtype)

    core = (max(n - 1, 0), k, k) if "step" in sharing else (k, k)
    lead = {"shared": (), "step": (1,) * len(batch)}.get(sharing, batch)
    lengths = torch.randint(0, n + 1, batch, generator=g) if ragged else None
    initial, final = (potential(k), potential(*batch, k)) if ends else (None, None)
    return Chain(potential(*batch, n, k), potential(*lead, *core), initial, final, lengths)


def name(case: dict) -> str:
    """A test id, such as "batch2x2-n3"."""
    text = {key: "x".join(map(str, value)) if key == "batch" else value for key, value in case.items()}
    return "-".join(f"{key}{value}".replace(" ", "_") for key, value in text.items())


# Every sharing, with and without the extras; small enough to enumerate.
SMALL = [
    *[
        {"sharing": s, "holes": h, "ends": e, "ragged": r, "seed": 7}
        for s in SHARINGS
        for h, e, r in [(0.0, True, True), (0.25, True, True), (0.6, False, False)]
    ],
    {"n": 1, "k": 4},
    {"n": 1, "k": 1, "sharing": "item step"},
    {"n": 0},
    {"n": 0, "sharing": "item step"},
    {"n": 6, "k": 1},
    {"n": 2, "k": 2, "batch": ()},
    {"n": 2, "k": 2, "batch": (), "sharing": "step"},
    {"batch": (2, 2), "n": 3},
    {"batch": (2, 1), "n": 3, "sharing": "item"},
    {"batch": (0,), "n": 3},
    {"n": 7, "k": 2, "scale": 30.0},
]


class PCFG(NamedTuple):
    """The positional arguments of a PCFG's queries."""

    root: Tensor
    rules: Tensor
    unary: Tensor
    spans: Tensor | None
    lengths: Tensor | None

    def to(self, dtype: torch.dtype) -> PCFG:
        return self.map(lambda x: x.to(dtype))

    def map(self, f) -> PCFG:
        """``f`` of every potential; lengths as they are."""
        return PCFG(*[None if x is None else f(x) for x in self[:4]], self.lengths)

    def leaves(self) -> tuple[PCFG, list[Tensor]]:
        """A copy that requires grad, and its tensors."""
        copy = self.map(lambda x: x.detach().clone().requires_grad_())
        return copy, [x for x in copy[:4] if x is not None]

    def full(self) -> PCFG:
        """Every potential with the batch shape, as a view."""
        batch = self.unary.shape[:-2]
        cores = (1, 3, 2, 3)
        return PCFG(
            *[
                None if x is None else x.expand(*batch, *x.shape[x.dim() - core :])
                for x, core in zip(self[:4], cores, strict=True)
            ],
            self.lengths,
        )

    def item(self, index: tuple[int, ...]) -> PCFG:
        """One item of the batch, cut to its length, without batch dimensions."""
        n = self.unary.shape[-2] if self.lengths is None else int(self.lengths[index])
        root, rules, unary, spans, _ = self.full()
        between = None if spans is None else spans[index][:n, :n]
        return PCFG(root[index], rules[index], unary[index][:n], between, None)


GRAMMARS = ("shared", "item")  # root and rules
SPANS = (None, "label", "one", "shared")


def pcfg(
    batch: tuple[int, ...] = (3,),
    n: int = 4,
    symbols: tuple[int, int] = (2, 2),
    grammar: str = "shared",
    spans: str | None = None,
    ragged: bool = True,
    holes: float = 0.0,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> PCFG:
    """Random potentials; ``symbols``: how many nonterminals, preterminals; ``holes``: the share of -inf."""
    g = torch.Generator().manual_seed(seed)

    def potential(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=g, dtype=torch.float64) * scale
        gone = torch.rand(shape, generator=g, dtype=torch.float64) < holes
        return x.masked_fill(gone, -torch.inf).to(dtype)

    nonterminals, preterminals = symbols
    both, lead = sum(symbols), batch if grammar == "item" else ()
    between = {
        "label": (*batch, n, n, nonterminals),
        "one": (*batch, n, n, 1),
        "shared": (n, n, nonterminals),
    }
    lengths = torch.randint(0, n + 1, batch, generator=g) if ragged else None
    if ragged and lengths.numel() > 1:
        lengths.view(-1)[0] = n
    return PCFG(
        potential(*lead, nonterminals),
        potential(*lead, nonterminals, both, both),
        potential(*batch, n, preterminals),
        None if spans is None else potential(*between[spans]),
        lengths,
    )


# Every sharing, with and without the extras; small enough to enumerate.
SMALL_PCFGS = [
    *[
        {"grammar": g, "spans": s, "holes": h, "ragged": r, "seed": 7}
        for g in GRAMMARS
        for s in SPANS
        for h, r in [(0.0, True), (0.2, False)]
    ],
    {"n": 5, "symbols": (2, 1), "holes": 0.1, "ragged": False},
    {"n": 4, "symbols": (1, 3), "spans": "label"},
    {"n": 3, "symbols": (3, 4), "grammar": "item"},
    {"n": 5, "symbols": (1, 1)},
    {"n": 0, "spans": "label"},
    {"n": 1, "spans": "one"},
    {"n": 2, "batch": (), "spans": "label"},
    {"batch": (2, 2), "n": 3, "grammar": "item", "spans": "label"},
    {"batch": (0,), "n": 3, "spans": "label"},
    {"n": 4, "scale": 30.0},
]
