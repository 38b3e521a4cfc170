"""Chains, factorial ones and PCFGs to test on: a builder each, for every sharing, option, forbidden part."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

AWKWARD_STATES = (1, 2, 3, 5, 15, 16, 17, 31, 33, 64, 65)
AWKWARD_LENGTHS = (0, 1, 2, 3, 37)


def _floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _map(case, f):
    """The case with ``f`` of every potential; indices and lengths as they are."""
    return type(case)(*[f(x) if _floating(x) else x for x in case])


def _to(case, dtype: torch.dtype):
    return case.map(lambda x: x.to(dtype))


def _leaves(case):
    """A copy that requires grad, and its tensors."""
    copy = case.map(lambda x: x.detach().clone().requires_grad_())
    return copy, [x for x in copy if _floating(x)]


def _full(case, *cores: int):
    """Every potential with the batch shape, as a view; ``cores``: their dimensions without it."""
    batch = case.unary.shape[:-2]
    grown = [
        None if x is None else x.expand(*batch, *x.shape[x.dim() - core :])
        for x, core in zip(case[:-1], cores, strict=True)
    ]
    return type(case)(*grown, case.lengths)


class Chain(NamedTuple):
    """The positional arguments of a chain's queries."""

    unary: Tensor
    transition: Tensor
    initial: Tensor | None
    final: Tensor | None
    lengths: Tensor | None

    map, to, leaves = _map, _to, _leaves

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


class Factorial(NamedTuple):
    """The potentials of a factorial chain, in the order of its operators."""

    unary: Tensor
    transition: Tensor
    initial: Tensor | None
    sizes: tuple[int, ...]
    lengths: Tensor | None

    map, to, leaves = _map, _to, _leaves

    def item(self, index: tuple[int, ...]) -> Factorial:
        """One item of the batch, cut to its length, without batch dimensions."""
        batch = self.unary.shape[:-2]
        n = self.unary.shape[-2] if self.lengths is None else int(self.lengths[index])
        scores = [None if x is None else x.expand(*batch, x.shape[-1])[index] for x in self[1:3]]
        return Factorial(self.unary[index][:n], *scores, self.sizes, None)

    def chain(self) -> Chain:
        """The same law as a chain of joint states, differentiable."""
        matrix, first = None, None
        edge = end = 0
        for k in self.sizes:
            own = self.transition[..., edge : edge + k * k].unflatten(-1, (k, k))
            matrix = own if matrix is None else _outer(matrix, own, 2)
            if self.initial is not None:
                scores = self.initial[..., end : end + k]
                first = scores if first is None else _outer(first, scores, 1)
            edge, end = edge + k * k, end + k
        return Chain(self.unary, matrix, first, None, self.lengths)


def _outer(a: Tensor, b: Tensor, core: int) -> Tensor:
    """Sums of scores of two chains for their joint states: of vectors (``core`` 1) or matrices (2)."""
    if core == 1:
        return (a[..., :, None] + b[..., None, :]).flatten(-2)
    return (a[..., :, None, :, None] + b[..., None, :, None, :]).flatten(-4, -3).flatten(-2)


def factorial(
    batch: tuple[int, ...] = (3,),
    n: int = 4,
    sizes: tuple[int, ...] = (2, 3),
    sharing: str = "shared",
    initial: bool = True,
    ragged: bool = True,
    left_to_right: bool = False,
    holes: float = 0.0,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Factorial:
    """Random potentials; ``sharing`` of the transition, the initial scores are shared where it is not."""
    g = torch.Generator().manual_seed(seed)

    def potential(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=g, dtype=torch.float64) * scale
        gone = torch.rand(shape, generator=g, dtype=torch.float64) < holes
        return x.masked_fill(gone, -torch.inf).to(dtype)

    lead, other = {"shared": ((), batch), "item": (batch, ())}[sharing]
    transition = potential(*lead, sum(k * k for k in sizes))
    first = potential(*other, sum(sizes)) if initial else None
    if left_to_right:
        back = torch.cat([torch.ones(k, k).tril(-1).flatten() for k in sizes]).bool()
        later = torch.cat([torch.arange(k) > 0 for k in sizes])
        transition, first = transition.masked_fill(back, -torch.inf), first.masked_fill(later, -torch.inf)
    lengths = torch.randint(0, n + 1, batch, generator=g) if ragged else None
    return Factorial(potential(*batch, n, math.prod(sizes)), transition, first, sizes, lengths)


# Few but wicked; small enough to enumerate.
SMALL_FACTORIALS = [
    *[
        {"n": 3, "sharing": s, "holes": h, "initial": i, "ragged": r, "seed": 7}
        for s in ("shared", "item")
        for h, i, r in [(0.0, True, True), (0.25, True, True), (0.5, False, False)]
    ],
    {"sizes": (4,)},
    {"sizes": (1,), "sharing": "item"},
    {"sizes": (1, 3, 1, 2), "n": 3, "sharing": "item"},
    {"sizes": (2, 2, 2), "n": 3, "seed": 3},
    {"sizes": (4, 2), "n": 3, "left_to_right": True, "ragged": False},
    {"n": 0},
    {"n": 1, "sharing": "item"},
    {"n": 2, "batch": ()},
    {"n": 2, "batch": (2, 2), "sharing": "item"},
    {"n": 3, "batch": (0,)},
    {"n": 4, "sizes": (2, 2), "scale": 30.0},
    {"n": 3, "scale": 3000.0, "holes": 0.2},
]


class PCFG(NamedTuple):
    """The positional arguments of a PCFG's queries."""

    root: Tensor
    rules: Tensor
    unary: Tensor
    spans: Tensor | None
    lengths: Tensor | None

    map, to, leaves = _map, _to, _leaves

    def full(self) -> PCFG:
        return _full(self, 1, 3, 2, 3)

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


class LowRank(NamedTuple):
    """The positional arguments of a low-rank PCFG's queries."""

    root: Tensor
    head: Tensor | None
    left: Tensor
    right: Tensor
    unary: Tensor
    spans: Tensor | None
    lengths: Tensor | None

    map, to, leaves = _map, _to, _leaves

    def full(self) -> LowRank:
        return _full(self, 1, 2, 2, 2, 2, 3)

    def item(self, index: tuple[int, ...]) -> LowRank:
        """One item of the batch, cut to its length, without batch dimensions."""
        n = self.unary.shape[-2] if self.lengths is None else int(self.lengths[index])
        *rules, unary, spans, _ = self.full()
        between = None if spans is None else spans[index][:n, :n]
        return LowRank(*[None if x is None else x[index] for x in rules], unary[index][:n], between, None)

    def dense(self) -> PCFG:
        """The same grammar with its rules written out, differentiable."""
        rules = self.left.double().unsqueeze(-1) + self.right.double().unsqueeze(-2)
        if self.head is not None:
            terms = self.head.double()[..., None, None] + rules.unsqueeze(-4)  # (*b, NT, r, S, S)
            top = terms.detach().amax(-3, keepdim=True).clamp(min=-1e300)
            total = (terms - top).exp().sum(-3)
            log = torch.where(total > 0, total, 1.0).log() + top.squeeze(-3)
            rules = torch.where(total > 0, log, -torch.inf)
        rest = [None if x is None else x.double() for x in (self.root, self.unary, self.spans)]
        return PCFG(rest[0], rules, rest[1], rest[2], self.lengths)


HEADS = ("rank", "simple")


def lowrank(
    batch: tuple[int, ...] = (3,),
    n: int = 4,
    symbols: tuple[int, int] = (2, 2),
    rank: int = 3,
    heads: str = "rank",
    grammar: str = "shared",
    spans: str | None = None,
    ragged: bool = True,
    holes: float = 0.0,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> LowRank:
    """As :func:`pcfg`, with rules of rank ``rank``, or of independent children ("simple")."""
    frame = pcfg(batch, n, symbols, grammar, spans, ragged, holes, scale, seed, dtype)
    g = torch.Generator().manual_seed(seed + 1)
    (nonterminals, _), lead = symbols, batch if grammar == "item" else ()
    rank = nonterminals if heads == "simple" else rank

    def potential(*shape: int) -> Tensor:
        x = torch.randn((*lead, *shape), generator=g, dtype=torch.float64) * scale
        gone = torch.rand((*lead, *shape), generator=g, dtype=torch.float64) < holes
        return x.masked_fill(gone, -torch.inf).to(dtype)

    head = None if heads == "simple" else potential(nonterminals, rank)
    sides = [potential(rank, sum(symbols)) for _ in range(2)]
    return LowRank(frame.root, head, *sides, frame.unary, frame.spans, frame.lengths)


SMALL_LOWRANKS = [{"heads": h, **case} for h in HEADS for case in SMALL_PCFGS]


class SparsePCFG(NamedTuple):
    """The positional arguments of a sparse PCFG's queries."""

    root: Tensor
    index: Tensor
    scores: Tensor
    unary: Tensor
    spans: Tensor | None
    lengths: Tensor | None

    map, to, leaves = _map, _to, _leaves


def sparse_pcfg(
    batch: tuple[int, ...] = (3,),
    n: int = 4,
    symbols: tuple[int, int] = (4, 3),
    rules: tuple[int, int] = (12, 8),
    grammar: str = "shared",
    spans: str | None = None,
    ragged: bool = True,
    holes: float = 0.0,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> SparsePCFG:
    """Random potentials; ``rules``: how many binary, and at most how many unary ones."""
    g = torch.Generator().manual_seed(seed)

    def potential(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=g, dtype=torch.float64) * scale
        gone = torch.rand(shape, generator=g, dtype=torch.float64) < holes
        return x.masked_fill(gone, -torch.inf).to(dtype)

    def draw(size: int) -> int:
        return int(torch.randint(size, (), generator=g))

    nonterminals, preterminals = symbols
    both, lead = sum(symbols), batch if grammar == "item" else ()
    height = torch.randperm(nonterminals, generator=g).tolist()  # unary rules lead down
    listed: set[tuple[int, int, int]] = set()
    while len(listed) < rules[0]:
        listed.add((draw(nonterminals), draw(both), draw(both)))
    for _ in range(rules[1]):
        parent, child = draw(nonterminals), draw(both)
        if child >= nonterminals or height[child] < height[parent]:
            listed.add((parent, child, -1))
    index = torch.tensor(sorted(listed))[torch.randperm(len(listed), generator=g)]
    between = {
        "label": (*batch, n, n, nonterminals),
        "one": (*batch, n, n, 1),
        "shared": (n, n, nonterminals),
    }
    lengths = torch.randint(0, n + 1, batch, generator=g) if ragged else None
    if ragged and lengths.numel() > 1:
        lengths.view(-1)[0] = n
    return SparsePCFG(
        potential(*lead, nonterminals),
        index,
        potential(*lead, len(index)),
        potential(*batch, n, preterminals),
        None if spans is None else potential(*between[spans]),
        lengths,
    )


# Small enough to enumerate: chains of unary rules, holes, every sharing.
SMALL_SPARSE = [
    *[
        {"grammar": g, "spans": s, "holes": h, "ragged": r, "seed": seed}
        for g in GRAMMARS
        for s in SPANS
        for h, r, seed in [(0.0, True, 3), (0.2, False, 4)]
    ],
    {"n": 1, "spans": "one"},
    {"n": 2, "batch": (), "spans": "label"},
    {"n": 0, "spans": "label"},
    {"n": 3, "symbols": (6, 2), "rules": (10, 20), "seed": 1},
    {"n": 3, "symbols": (3, 3), "rules": (0, 20), "seed": 2},
    {"n": 4, "symbols": (1, 1), "rules": (3, 1), "spans": "one"},
    {"batch": (2, 2), "n": 3, "grammar": "item", "spans": "label"},
    {"batch": (0,), "n": 3},
    {"n": 4, "scale": 30.0, "seed": 5},
    {"n": 3, "scale": 3000.0, "spans": "one", "seed": 6},
]
