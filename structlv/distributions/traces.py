"""A structure as a series of choices: what relaxed sampling and control variates need to know of it.

Drawing a structure exactly, part by part, is a series of draws from categoricals, each conditional on what
was drawn before. Given the structure, all of its choices can be looked at together: their log-probabilities,
noise that would have led to them, and the softmax of the perturbed log-probabilities, which relaxes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv._extras import require
from structlv.distributions.seeding import nth_seed
from structlv.ops.noise import gumbel
from structlv.reference import semiring

TABLES = 12  # of the size of its weights that the relaxation of choices and its gradient have in memory
MAX_BYTES = 2**34  # of them all, for tables that grow beyond what the structure itself takes

# From the weights of choices (*, s, *b, m, *c) to those of parts.
Parts = Callable[[list[Tensor]], Any]


class Choices(NamedTuple):
    """Choices (m) of one kind among the same number of alternatives (c), for each sample and item.

    Attributes:
        logits: (s, *b, m, c), log-probabilities; -inf for what is impossible, and everywhere where there is
            no choice. ``c`` may be several dimensions.
        chosen: (s, *b, m), which alternative of the flattened ``c`` was drawn; -1 where there is no choice.
        dims: the number of dimensions of ``c``.
        backwards: whether the last of them was made first.
    """

    logits: Tensor
    chosen: Tensor
    dims: int = 1
    backwards: bool = False

    def flat(self) -> Tensor:
        return self.logits.flatten(-self.dims)

    def noise(self, seed: int) -> Tensor:
        """Gumbel noise (s, *b, m, c), independent of what was chosen. The first of several dimensions of
        ``c`` may grow with the padding: the noise does not depend on its size.
        """
        if self.dims == 1:
            return gumbel(self.logits[0], event_dims=2, num_samples=len(self.logits), seed=seed)
        outer = self.logits.flatten(1 - self.dims)
        rows = [
            gumbel(outer[0, ..., q, :], event_dims=2, num_samples=len(outer), seed=nth_seed(seed, q << 20))
            for q in range(outer.shape[-2])
        ]
        noise = torch.stack(rows, -2) if rows else torch.zeros_like(outer)
        return noise.reshape(self.logits.shape)

    def perturbed(self, seed: int) -> Tensor:
        """Perturbed log-probabilities (s, *b, m, c flattened) whose largest is the one that was chosen.

        Distributed as logits + Gumbel noise given that; differentiable in the logits, the underlying
        exponential draws held fixed: y_z = -log E_z, and else y_j = -log(E_j / p_j + E_z). Tucker, Mnih,
        Maddison, Lawson and Sohl-Dickstein (2017), "REBAR", appendix C; Maddison and Tarlow (2017).
        """
        exponential = (-self.noise(seed).flatten(-self.dims).to(self.logits.dtype)).exp()
        logits, index = self.flat(), self.chosen.clamp(min=0).unsqueeze(-1)
        drawn = torch.arange(logits.shape[-1], device=logits.device) == index
        first = exponential.gather(-1, index)
        possible = logits > -torch.inf
        rate = torch.where(possible, -logits, 0.0).exp()
        others = -(exponential * torch.where(possible, rate, 1.0) + first).log()
        return torch.where(drawn, -first.log(), torch.where(possible, others, -torch.inf))

    def noisy(self, seed: int) -> Tensor:
        """``perturbed`` as logits + noise, differentiable as if the noise had been there first."""
        logits = self.flat()
        possible = logits > -torch.inf
        noise = (self.perturbed(seed) - logits).detach()
        return torch.where(possible, torch.where(possible, logits, 0.0) + noise, -torch.inf)

    def log_prob(self) -> Tensor:
        """Of all choices together, (s, *b): the log-probability of the structure."""
        found = self.flat().gather(-1, self.chosen.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return torch.where(self.chosen >= 0, found, 0.0).sum(-1)

    def hard(self) -> Tensor:
        """Weights (s, *b, m, *c): 1 for what was chosen."""
        drawn = torch.arange(self.flat().shape[-1], device=self.chosen.device) == self.chosen.unsqueeze(-1)
        return drawn.to(self.logits.dtype).reshape(self.logits.shape)

    def relaxed(self, perturbed: Tensor, temperature: Tensor | float, alpha: float = 1.0) -> Tensor:
        """Weights (s, *b, m, *c) of the alternatives, in place of 1 for the chosen; 0 where is no choice.

        They are the alpha-entmax of the perturbed log-probabilities: the softmax at alpha = 1.
        """
        if isinstance(temperature, Tensor) and temperature.dim() > 0:
            temperature = temperature[..., None, None]
        possible = perturbed > -torch.inf  # there is no gradient of -inf / temperature
        cooled = torch.where(possible, perturbed, 0.0) / temperature
        if alpha == 1:
            weights = semiring.softmax(cooled.masked_fill(~possible, -torch.inf), -1)
        else:
            weights = _entmax(cooled, possible, alpha)
        weights = torch.where((self.chosen >= 0).unsqueeze(-1), weights, 0.0)
        return weights.reshape(self.logits.shape)


class Trace(NamedTuple):
    """The choices that a structure is made by, and the parts that weights of choices stand for."""

    choices: list[Choices]
    parts: Parts

    def relaxed(self, seed: int, temperature: Tensor | float, alpha: float = 1.0) -> Any:
        """Parts, each choice relaxed with noise that led to it."""
        noisy = [c.noisy(nth_seed(seed, 1 + i)) for i, c in enumerate(self.choices)]
        return self.weighed(noisy, temperature, alpha)

    def weighed(self, perturbed: list[Tensor], temperature: Tensor | float, alpha: float = 1.0) -> Any:
        pairs = zip(self.choices, perturbed, strict=True)
        return self.parts([c.relaxed(y, temperature, alpha) for c, y in pairs])


def _entmax(x: Tensor, possible: Tensor, alpha: float) -> Tensor:
    """Alpha-entmax over the last dimension, 0 for what is not possible.

    An alternative 1 / (alpha - 1) or more below the best has weight exactly 0, so that a finite score that
    low stands for -inf, of which the package's sums would make NaN.
    """
    package = require("entmax", "relaxations")
    best = x.detach().masked_fill(~possible, -torch.inf).amax(-1, keepdim=True)
    low = torch.where(best > -torch.inf, best, 0.0) - 1 / (alpha - 1) - 1
    x = torch.where(possible, x, low)
    if alpha == 2:
        found = package.sparsemax(x, dim=-1)
    elif alpha == 1.5:
        found = package.entmax15(x, dim=-1)
    else:
        found = package.entmax_bisect(x, alpha=alpha, dim=-1)
    return torch.where(possible, found, 0.0)


def require_memory(shape: Sequence[int], itemsize: int) -> None:
    """``ValueError`` where tables of ``shape`` would take more than ``MAX_BYTES``: before any is made."""
    needed = TABLES * itemsize * torch.Size(shape).numel()
    if needed > MAX_BYTES:
        raise ValueError(
            f"the alternatives of the choices are tables of {' x '.join(map(str, shape))} numbers, about "
            f"{needed / 2**30:.3g} GiB in all, and {MAX_BYTES / 2**30:.3g} GiB are allowed: take fewer "
            f"samples, or fewer or shorter sequences, at a time, or raise {__name__}.MAX_BYTES"
        )


def log_softmax(x: Tensor, dims: int = 1) -> Tensor:
    """Over the last dimensions; rows of nothing but -inf stay."""
    return semiring.log_normalize(x.flatten(-dims)).reshape(x.shape)


# ---- trees with dense rules ------------------------------------------------------------------------------


def tree_trace(event: Tensor, chart: Tensor, root: Tensor, rules: Tensor) -> Trace:
    """The trace of trees ``event (s, *b, 2n - 1, 3)``: the symbol at the top; at every inner node, where it
    splits, and into which pair of symbols.

    Args:
        chart: (*b, n, n, S) inside scores of symbols over the words i..j, -inf for i > j.
        root: (*b, NT), rules: (*b, NT, S, S). All are broadcast over ``event``.

    Its parts are (root (NT), rules (NT, S, S), chart (n, n, S)), after (*, s, *b). O(s b n^2 S^2).
    """
    n, size, above = chart.shape[-2], chart.shape[-1], root.shape[-1]
    if n < 2:  # no tree: as in a longer sentence
        more = 2 - n
        chart = torch.nn.functional.pad(chart, (0, 0, 0, more, 0, more), value=-torch.inf)
        event = torch.nn.functional.pad(event, (0, 0, 0, 3 - event.shape[-2]), value=-1)
        longer = tree_trace(event, chart, root, rules)

        def cut(weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            first, counts, nodes = longer.parts(weights)
            return first, counts, nodes[..., :n, :n, :]

        return Trace(longer.choices, cut)
    lead = event.shape[:-2]
    inner = (event[..., 0] < event[..., 1]).to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    inner = inner[..., : max(n - 1, 0)]  # the inner nodes in pre-order
    i, j, symbol = (event[..., q].gather(-1, inner) for q in range(3))
    used = i < j
    i, j, symbol = (torch.where(used, x, 0) for x in (i, j, symbol))
    last = torch.where(used.any(-1), event[..., 0, 1], 0)
    table = chart.flatten(-3, -2).expand(*lead, n * n, size)

    def look(place: Tensor) -> Tensor:
        rows = place.flatten(len(lead))
        return table.gather(-2, rows.unsqueeze(-1).expand(*rows.shape, size)).reshape(*place.shape, size)

    top_logits = root + look((last).unsqueeze(-1)).squeeze(-2)[..., :above]
    top = torch.where(used.any(-1), event[..., 0, 2], -1).unsqueeze(-1)
    split = torch.arange(max(n - 1, 0), device=event.device)  # words of the left child, less one
    middle = i.unsqueeze(-1) + split
    fits = used.unsqueeze(-1) & (middle < j.unsqueeze(-1))
    places = (
        torch.where(fits, i.unsqueeze(-1) * n + middle, 0),
        torch.where(fits, (middle + 1) * n + j.unsqueeze(-1), 0),
    )
    left, right = look(places[0]), look(places[1])
    grammar = rules.expand(*lead, *rules.shape[-3:])
    row = symbol[..., None, None].expand(*symbol.shape, size, size)
    pairs = left.unsqueeze(-1) + right.unsqueeze(-2) + grammar.gather(-3, row).unsqueeze(-3)
    logits = pairs.masked_fill(~fits[..., None, None], -torch.inf)
    # what was chosen: of a node, its first child is the next row, its second the one that begins after that
    rows = (inner + 1).clamp(max=max(event.shape[-2] - 1, 0))
    middle_word = event[..., 1].gather(-1, rows)
    second = (inner + 2 * (middle_word - i + 1)).clamp(0, max(event.shape[-2] - 1, 0))
    b, c = (event[..., 2].gather(-1, x) for x in (rows, second))
    chosen = torch.where(used, ((middle_word - i) * size + b) * size + c, -1)
    nodes = torch.nn.functional.one_hot(symbol, above).to(chart.dtype) * used.unsqueeze(-1)

    def parts(weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        first, node = weights[0].squeeze(-2), weights[1]
        counts = torch.einsum("...mu,...mbc->...ubc", nodes, node.sum(-3))
        whole = torch.nn.functional.pad(first, (0, size - above)).unsqueeze(-2)
        found = node.new_zeros(*node.shape[:-4], n * n, size)
        for place, mass in (
            (last.unsqueeze(-1), whole),
            (places[0].flatten(-2), node.sum(-1).flatten(-3, -2)),
            (places[1].flatten(-2), node.sum(-2).flatten(-3, -2)),
        ):
            found = found.scatter_add(-2, place.unsqueeze(-1).expand(mass.shape), mass)
        return first, counts, found.unflatten(-2, (n, n))

    choices = [
        Choices(log_softmax(top_logits).unsqueeze(-2), top),
        Choices(log_softmax(logits, 3), chosen, 3),
    ]
    return Trace(choices, parts)
