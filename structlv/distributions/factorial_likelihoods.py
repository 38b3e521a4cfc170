"""What observations say about one chain of a factorial HMM, the others' states or probabilities, are
known.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Size, Tensor

from structlv.distributions.algebra import inner
from structlv.distributions.factorial_parts import along
from structlv.distributions.factorial_tables import combined, product_of, seen, sum_of
from structlv.distributions.parameters import Tensors
from structlv.reference.semiring import log_normalize, logsumexp

_TINY = 1e-30  # under it a normaliser belongs to padding, or to symbols that no state emits


class Likelihood(Tensors):
    """Abstract. Chains exchange messages: what they must know of one another's probabilities (*b, n, k_i)."""

    @abstractmethod
    def message(self, i: int, marginals: Tensor) -> Tensor:
        """What the other chains need of chain i's probabilities."""

    @abstractmethod
    def scores(self, i: int, messages: Sequence[Tensor], marginals: Tensor) -> Tensor:
        """The scores (*b, n, k_i) of chain i's states that are best given the messages of all chains.

        Args:
            marginals: those of chain i up to now, from which its message was made.
        """

    @abstractmethod
    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        """E log p(x | z), (*b), for independent chains with these marginals; or a lower bound of it."""

    @abstractmethod
    def conditional(self, i: int, states: Tensor) -> Tensor:
        """log p(x_t | z_t) as a function of chain i's state, (*b, n, k_i), the others' being ``states``
        (*b, m, n); up to a constant for each step.
        """


class AdditiveLikelihood(Likelihood):
    """log p(x_t | z_t) = constant[t] + sum_i own_i[t, z_i] - sum_{i<j} rows_i[z_i] . rows_j[z_j].

    A message is the probabilities themselves; the expectation is exact. O(b n sum_ij k_i k_j) for all chains.
    """

    def __init__(
        self,
        own: Sequence[Tensor],
        constant: Tensor,
        rows: Sequence[Tensor],
        observed: Tensor | None,
        batch: Size,
    ) -> None:
        n = constant.shape[-1]
        if observed is not None:
            own = [seen(x, observed) for x in own]
            constant = torch.where(observed, constant, 0.0)
        self.own = tuple(x.expand(*batch, n, x.shape[-1]) for x in own)
        self.constant, self.rows, self.observed = constant.expand(*batch, n), tuple(rows), observed
        self.couplings = tuple(_coupling(i, rows) for i in range(len(rows)))

    def message(self, i: int, marginals: Tensor) -> Tensor:
        return marginals

    def scores(self, i: int, messages: Sequence[Tensor], marginals: Tensor) -> Tensor:
        if len(messages) == 1:
            return self.own[0]
        others = torch.cat([*messages[:i], *messages[i + 1 :]], -1) @ self.couplings[i]
        return self.own[i] - seen(others, self.observed)

    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        batch_dims = self.constant.dim() - 1
        # every pair is in the couplings of both of its chains
        halves = [0.5 * (x + self.scores(i, marginals, marginals[i])) for i, x in enumerate(self.own)]
        return self.constant.sum(-1) + inner(marginals, halves, batch_dims)

    def conditional(self, i: int, states: Tensor) -> Tensor:
        chosen = [rows_of(x, states[..., j, :]) for j, x in enumerate(self.rows) if j != i]
        if not chosen:
            return self.own[i].expand(*states.shape[:-2], *self.own[i].shape[-2:])
        return self.own[i] - seen(sum_of(chosen) @ self.rows[i].transpose(-2, -1), self.observed)

    def pairs(self) -> Tensor | None:
        """What joint states add whatever x is, (*b, k_1, ..., k_m); None for one chain."""
        count = len(self.rows)
        terms = []
        for j in range(count):
            for i in range(j):
                product = self.rows[i] @ self.rows[j].transpose(-2, -1)  # (*b, k_i, k_j)
                spread = along(product, i, j, 1)  # (*b, 1, .., k_i, .., 1, k_j), of the chains up to j
                terms.append(-spread.reshape(*spread.shape, *(1,) * (count - j - 1)))
        return sum_of(terms) if terms else None


def _coupling(i: int, rows: Sequence[Tensor]) -> Tensor:
    """rows_j[z_j] . rows_i[z_i] for all j but i, one below the other: (*b, sum_j k_j, k_i)."""
    products = [x @ rows[i].transpose(-2, -1) for j, x in enumerate(rows) if j != i]
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in products))
    if not products:
        return rows[i].new_zeros(0, rows[i].shape[-2])
    return torch.cat([x.expand(batch + x.shape[-2:]) for x in products], -2)


def rows_of(table: Tensor, states: Tensor) -> Tensor:
    """The rows (*s, *b, n, d) of a table (*b, k, d) that states (*s, *b, n) choose; -1 chooses the first."""
    index = states.clamp_min(0).unsqueeze(-1).expand(*states.shape, table.shape[-1])
    return table.expand(*states.shape[:-1], *table.shape[-2:]).gather(-2, index)


class LogLinearLikelihood(Likelihood):
    """log p(x_t | z_t) = sum_i own_i[t, z_i] - log-normaliser, of a categorical or of independent bits.

    With eta_s = sum_i table_i[z_i, s], the normaliser is log sum_s exp(eta_s); each bit has one, s being
    unset (0) or set. It is bounded from above: E log y <= log zeta + E y / zeta - 1 for every zeta > 0, and
    E y is a product over chains, E exp(eta_s) = prod_i E_i exp(table_i[z_i, s]). zeta is put to its optimum
    E y before each chain's turn (a coordinate ascent too). What is subtracted from a row of a table changes
    no probability, but makes the bound tighter or looser: rows are normalised as if the other chains were
    at their average, so that y varies little (and not at all where there is one chain).

    A message is E_i exp(table_i[z_i, s]), relative to the chain's largest: (*b, n, v), or (*b, n, 2 d) of
    bits. O(b n v sum_i k_i) for all chains. Where a step has fewer combinations of the other chains' states
    than symbols, a message is the probabilities, and y is a table of joint states, the same for all steps:
    then v counts those combinations.
    """

    def __init__(
        self,
        own: Sequence[Tensor],
        logits: Sequence[Tensor],
        x: Tensor,
        observed: Tensor | None,
        batch: Size,
        *,
        categorical: bool,
    ) -> None:
        self.logits, self.x, self.observed, self.categorical = tuple(logits), x, observed, categorical
        if categorical:
            tables = [table.unsqueeze(-1) for table in logits]  # (*b, k, v, 1)
        else:
            tables = [torch.stack([torch.zeros_like(table), table], -2) for table in logits]  # (*b, k, 2, d)
        excess = [_excess(i, tables) for i in range(len(tables))]
        tables = [table - rest.unsqueeze(-2) for table, rest in zip(tables, excess, strict=True)]
        rows = [rest.sum(-1).unsqueeze(-2) for rest in excess]
        own = [mine - seen(rest, observed) for mine, rest in zip(own, rows, strict=True)]
        self.own = tuple(table.expand(*batch, *table.shape[-2:]) for table in own)
        self._scale(tables)
        self.together = self._together() if categorical else ()

    def _scale(self, tables: Sequence[Tensor]) -> None:
        """Sets ``factors``, exp(table_i) of each chain, (*b, k, v g), relative to the m-th root of the top
        product: products over all chains are relative to exp(``top``), (*b, 1, g).
        """
        tops = [table.detach().amax(-3, keepdim=True) for table in tables]
        scale = sum_of(tops)  # (*b, 1, v, g), the largest eta
        top = scale.amax(-2, keepdim=True)
        top = top.masked_fill(top == -torch.inf, 0.0)
        share = ((scale - top) / len(tables)).exp()
        self.top = top.squeeze(-2)
        self.factors = tuple(
            ((table - high.masked_fill(high == -torch.inf, 0.0)).exp() * share).flatten(-2)
            for table, high in zip(tables, tops, strict=True)
        )

    def _together(self) -> tuple[Tensor, ...]:
        """For each chain, y of the others' joint states and of its own: (*b, r, k_i); or nothing."""
        sizes = [x.shape[-2] for x in self.factors]
        if math.prod(sizes) > self.factors[0].shape[-1] * min(sizes):
            return ()
        found = []
        for i, factors in enumerate(self.factors):
            others = [x for j, x in enumerate(self.factors) if j != i]
            rest = combined(others, -2) if others else torch.ones_like(factors[..., :1, :])
            found.append(rest @ factors.transpose(-2, -1))
        return tuple(found)

    def message(self, i: int, marginals: Tensor) -> Tensor:
        return marginals if self.together else marginals @ self.factors[i]

    def scores(self, i: int, messages: Sequence[Tensor], marginals: Tensor) -> Tensor:
        others = [message for j, message in enumerate(messages) if j != i]
        if self.together:
            rest = combined(others) if others else torch.ones_like(marginals[..., :1])
        else:
            rest = product_of(others) if others else torch.ones_like(messages[i])
        factors = self.together[i] if self.together else self.factors[i].transpose(-2, -1)
        if self.categorical:
            share = rest @ factors
            share = share / (marginals * share).sum(-1, keepdim=True).clamp_min(_TINY)
        else:
            total = (rest * messages[i]).unflatten(-1, (2, -1)).sum(-2, keepdim=True).clamp_min(_TINY)
            share = (rest.unflatten(-1, (2, -1)) / total).flatten(-2) @ factors
        return self.own[i] - seen(share, self.observed)

    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        product = product_of([x @ factors for x, factors in zip(marginals, self.factors, strict=True)])
        total = product.unflatten(-1, (-1, self.top.shape[-1])).sum(-2)
        normaliser = (self.top + total.clamp_min(_TINY).log()).sum(-1)
        if self.observed is not None:
            normaliser = torch.where(self.observed, normaliser, 0.0)
        return inner(marginals, self.own, normaliser.dim() - 1) - normaliser.sum(-1)

    def conditional(self, i: int, states: Tensor) -> Tensor:
        others = [rows_of(x, states[..., j, :]).unsqueeze(-2) for j, x in enumerate(self.logits) if j != i]
        eta = sum_of([self.logits[i].unsqueeze(-3), *others])  # (*b, n, k_i, v)
        if self.categorical:
            index = self.x[..., None, None].expand(*eta.shape[:-1], 1)
            found = log_normalize(eta.expand(*index.shape[:-1], eta.shape[-1])).gather(-1, index).squeeze(-1)
        else:
            found = log_odds(self.x.unsqueeze(-2), eta)
        return seen(found.expand(*states.shape[:-2], *found.shape[-2:]), self.observed)


def _excess(i: int, tables: Sequence[Tensor]) -> Tensor:
    """The log-normalisers (*b, k, g) of chain i's rows, the other chains being at their average."""
    table = tables[i]
    for j, other in enumerate(tables):
        if j != i:
            table = table + logsumexp(other, -3).unsqueeze(-3) - math.log(other.shape[-3])
    found = logsumexp(table, -2)
    return torch.where(found == -torch.inf, 0.0, found)


def log_odds(bits: Tensor, eta: Tensor) -> Tensor:
    """The sum over bits of log p(bit), the log-odds being eta: (*, d) to (*)."""
    return -torch.nn.functional.softplus(torch.where(bits == 1, -eta, eta), threshold=40).sum(-1)


class TableLikelihood(Likelihood):
    """A table (*b, n, k_1, ..., k_m): exact conditionals, and no messages."""

    def __init__(self, table: Tensor, count: int, batch: Size) -> None:
        self.table, self.count = table.expand(batch + table.shape[-count - 1 :]), count

    def message(self, i: int, marginals: Tensor) -> Tensor:
        raise ValueError(
            "mean field needs an AdditiveGaussian, LogLinearCategorical or IndependentBernoulli emission; a "
            "callable has a joint table only, for method=Exact()"
        )

    def scores(self, i: int, messages: Sequence[Tensor], marginals: Tensor) -> Tensor:
        return self.message(i, messages[i])

    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        return self.message(0, marginals[0])

    def conditional(self, i: int, states: Tensor) -> Tensor:
        table = self.table.movedim(i - self.count, -1)
        found = table.expand(*states.shape[:-2], *table.shape[-self.count - 1 :])
        at = states.dim() - 1  # the first of the other chains that are left
        for j in range(self.count):
            if j != i:
                index = states[..., j, :].clamp_min(0)
                index = index.reshape(index.shape + (1,) * (found.dim() - index.dim()))
                found = found.take_along_dim(index, at).squeeze(at)
        return found
