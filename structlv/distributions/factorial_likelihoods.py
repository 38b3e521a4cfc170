"""What observations say about one chain of a factorial HMM when the others' states, or their probabilities, are
known.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor

from structlv.distributions.algebra import inner
from structlv.distributions.factorial_parts import along
from structlv.distributions.parameters import Tensors
from structlv.reference.semiring import log_normalize

_TINY = 1e-30  # under it a normaliser belongs to padding, or to symbols that no state emits


class Likelihood(Tensors):
    """Abstract. Chains exchange messages, whatever they must know of one another's probabilities (*b, n, k_i)."""

    @abstractmethod
    def message(self, i: int, marginals: Tensor) -> Tensor:
        """What the other chains need of chain i's probabilities."""

    @abstractmethod
    def scores(self, i: int, messages: Sequence[Tensor]) -> Tensor:
        """The scores (*b, n, k_i) of chain i's states that are best given the messages of all chains."""

    @abstractmethod
    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        """E log p(x | z), (*b), for independent chains with these marginals; or a lower bound of it."""

    @abstractmethod
    def conditional(self, i: int, states: Tensor) -> Tensor:
        """log p(x_t | z_t) as a function of chain i's state, (*b, n, k_i), the others' being ``states`` (*b, m,
        n); up to a constant for each step.
        """


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors that broadcast against one another."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def joint_table(
    own: Sequence[Tensor], constant: Tensor | None, joint: Tensor | None, observed: Tensor | None
) -> Tensor:
    """constant[t] + sum_i own_i[t, z_i] + joint[z], (*b, n, k_1, ..., k_m); 0 where not observed.

    Args:
        own: for each chain (*b, n, k_i).
        constant: (*b, n) or None.
        joint: (*b, k_1, ..., k_m) or None.
        observed: (*b, n) bool, or None where everything is.
    """
    count = len(own)
    terms = [along(x, i, count) for i, x in enumerate(own)]
    if constant is not None:
        terms[0] = terms[0] + constant.reshape(*constant.shape, *(1,) * count)
    if joint is not None:
        terms.append(joint.unsqueeze(-count - 1))
    return masked_table(sum_of(terms), observed, count)


def masked_table(table: Tensor, observed: Tensor | None, count: int) -> Tensor:
    """A table (*b, n, k_1, ..., k_m), m = ``count``, with 0 where not observed."""
    if observed is None:
        return table
    return torch.where(observed.reshape(*observed.shape, *(1,) * count), table, 0.0)


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
            own = [torch.where(observed.unsqueeze(-1), x, 0.0) for x in own]
            constant = torch.where(observed, constant, 0.0)
        self.own = tuple(x.expand(*batch, n, x.shape[-1]) for x in own)
        self.constant, self.rows, self.observed = constant.expand(*batch, n), tuple(rows), observed
        self.couplings = tuple(_coupling(i, rows) for i in range(len(rows)))

    def message(self, i: int, marginals: Tensor) -> Tensor:
        return marginals

    def scores(self, i: int, messages: Sequence[Tensor]) -> Tensor:
        if len(messages) == 1:
            return self.own[0]
        others = torch.cat([*messages[:i], *messages[i + 1 :]], -1) @ self.couplings[i]
        return self.own[i] - self._seen(others)

    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        batch_dims = self.constant.dim() - 1
        # every pair is in the couplings of both of its chains
        halves = [0.5 * (x + self.scores(i, marginals)) for i, x in enumerate(self.own)]
        return self.constant.sum(-1) + inner(marginals, halves, batch_dims)

    def conditional(self, i: int, states: Tensor) -> Tensor:
        chosen = [rows_of(x, states[..., j, :]) for j, x in enumerate(self.rows) if j != i]
        if not chosen:
            return self.own[i].expand(*states.shape[:-2], *self.own[i].shape[-2:])
        return self.own[i] - self._seen(sum_of(chosen) @ self.rows[i].transpose(-2, -1))

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

    def _seen(self, x: Tensor) -> Tensor:
        return x if self.observed is None else torch.where(self.observed.unsqueeze(-1), x, 0.0)


def _coupling(i: int, rows: Sequence[Tensor]) -> Tensor:
    """rows_j[z_j] . rows_i[z_i] for all j but i, one below the other: (*b, sum_j k_j, k_i)."""
    products = [x @ rows[i].transpose(-2, -1) for j, x in enumerate(rows) if j != i]
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in products))
    if not products:
        return rows[i].new_zeros(0, rows[i].shape[-2])
    return torch.cat([x.expand(batch + x.shape[-2:]) for x in products], -2)


def rows_of(table: Tensor, states: Tensor) -> Tensor:
    """The rows (*s, *b, n, d) of a table (*b, k, d) that ``states`` (*s, *b, n) choose; -1 chooses the first."""
    index = states.clamp_min(0).unsqueeze(-1).expand(*states.shape, table.shape[-1])
    return table.expand(*states.shape[:-1], *table.shape[-2:]).gather(-2, index)


class LogLinearLikelihood(Likelihood):
    """log p(x_t | z_t) = sum_i own_i[t, z_i] - log-normaliser, of a categorical or of independent bits.

    With eta_s = sum_i logits_i[z_i, s], a categorical's normaliser is log sum_s exp(eta_s), that of bits
    sum_s log(1 + exp(eta_s)). Its expectation is bounded from above: E log y <= log zeta + E y / zeta - 1
    for every zeta > 0, and E y is a product over chains, E exp(eta_s) = prod_i E_i exp(logits_i[z_i, s]).
    zeta is put to its optimum E y before each chain's turn (a coordinate ascent too). A message is E_i
    exp(logits_i[z_i, s]), relative to the chain's largest: (*b, n, v). O(b n v sum_i k_i) for all chains.
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
        n = own[0].shape[-2]
        self.own = tuple(table.expand(*batch, n, table.shape[-1]) for table in own)
        self.logits, self.x, self.observed, self.categorical = tuple(logits), x, observed, categorical
        tops = [table.detach().amax(-2, keepdim=True) for table in logits]
        self.factors = tuple(
            (table - top.masked_fill(top == -torch.inf, 0.0)).exp()
            for table, top in zip(logits, tops, strict=True)
        )
        scale = sum_of(tops)  # (*b, 1, v), the largest eta
        top = scale.amax(-1, keepdim=True) if categorical else scale.clamp_min(0.0)
        self.top = top.masked_fill(top == -torch.inf, 0.0)  # everything below is relative to exp(top)
        self.weights, self.unset = (scale - self.top).exp(), (-self.top).exp()

    def message(self, i: int, marginals: Tensor) -> Tensor:
        return marginals @ self.factors[i]

    def scores(self, i: int, messages: Sequence[Tensor]) -> Tensor:
        rest = self.weights
        for j, message in enumerate(messages):
            if j != i:
                rest = rest * message
        ratio = rest / self._total(rest * messages[i])
        if self.observed is not None:
            ratio = torch.where(self.observed.unsqueeze(-1), ratio, 0.0)
        return self.own[i] - ratio @ self.factors[i].transpose(-2, -1)

    def expected(self, marginals: Sequence[Tensor]) -> Tensor:
        product = self.weights
        for i, x in enumerate(marginals):
            product = product * self.message(i, x)
        normaliser = (self.top + self._total(product).log()).sum(-1)
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
        found = found.expand(*states.shape[:-2], *found.shape[-2:])
        return found if self.observed is None else torch.where(self.observed.unsqueeze(-1), found, 0.0)

    def _total(self, product: Tensor) -> Tensor:
        """What exp(-top) times the normaliser is on average: (*b, n, 1), or (*b, n, v) of bits."""
        total = product.sum(-1, keepdim=True) if self.categorical else product + self.unset
        return total.clamp_min(_TINY)


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

    def scores(self, i: int, messages: Sequence[Tensor]) -> Tensor:
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
