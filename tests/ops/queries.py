"""Every query under one name for each family, and helpers to call queries and to compare what they return."""

import torch

from structlv.ops import chain as ops
from structlv.ops import factorial, lowrank, pcfg
from tests.cases import PCFG, Factorial, LowRank
from tests.tolerance import assert_probabilities, assert_second_order

QUERIES = {
    "log_partition": ops.log_partition,
    "marginals": ops.marginals,
    "edges": lambda *x: ops.marginals(*x, edges=True),
    "state_marginals": ops.state_marginals,
    "argmax": ops.argmax,
    "max_marginals": ops.max_marginals,
    "topk": lambda *x: ops.topk(*x, k=2),
    "sample": lambda *x: ops.sample(*x, num_samples=2, seed=3),
    "filter": ops.filter,
    "score": lambda u, *x: ops.score(torch.zeros(2, *u.shape[:-1], dtype=torch.long), u, *x),
}


def sized(query):
    """A query of the factorial chain as a function of the fields of a case, sizes among them."""
    return lambda unary, transition, initial, sizes, lengths, **options: query(
        unary, transition, initial, lengths, sizes=sizes, **options
    )


def factorial_score(states, *case):
    """The score of ``states`` by the potentials of a factorial chain."""
    return sized(lambda *x, **y: factorial.score(states, *x, **y))(*case)


FACTORIAL_QUERIES = {
    "log_partition": sized(factorial.log_partition),
    "marginals": sized(factorial.marginals),
    "edges": lambda *x: sized(factorial.marginals)(*x, edges=True),
    "argmax": sized(factorial.argmax),
    "sample": lambda *x: sized(factorial.sample)(*x, num_samples=2, seed=3),
    "score": lambda u, *x: factorial_score(torch.zeros(2, *u.shape[:-1], dtype=torch.long), u, *x),
}
PCFG_QUERIES = {
    "log_partition": pcfg.log_partition,
    "marginals": pcfg.marginals,
    "argmax": pcfg.argmax,
    "max_marginals": pcfg.max_marginals,
    "topk": lambda *x: pcfg.topk(*x, k=2),
    "sample": lambda *x: pcfg.sample(*x, num_samples=2, seed=3),
    "score": lambda root, rules, unary, *x: pcfg.score(
        right_branching(unary, root.shape[-1]), root, rules, unary, *x
    ),
}
LOWRANK_QUERIES = {
    "log_partition": lowrank.log_partition,
    "marginals": lambda *x: tuple(y for y in lowrank.marginals(*x) if y is not None),
    "sample": lambda *x: lowrank.sample(*x, num_samples=2, seed=3),
    "score": lambda *x: lowrank.score(right_branching(x[4], x[0].shape[-1]), *x),
}


def right_branching(unary, nonterminals):
    """The tree that always splits behind the first word, with the lowest symbols: ``(2, *b, 2n - 1, 3)``."""
    n = unary.shape[-2]
    rows = [row for i in range(n - 1) for row in ((i, n - 1, 0), (i, i, nonterminals))]
    rows += [(n - 1, n - 1, nonterminals)] if n else []
    event = torch.tensor(rows, dtype=torch.long).view(-1, 3)
    return event.expand(2, *unary.shape[:-2], *event.shape)


def same(found, expected):
    """The same values up to float64 rounding, infinities included; a NaN fails."""
    found, expected = (x if isinstance(x, tuple) else (x,) for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isinf(), b.isinf())
        finite = a.isfinite()
        assert torch.allclose(a[finite].double(), b[finite].double(), atol=1e-12, rtol=1e-12)
        assert not a.isnan().any()


def assert_same_bits(found, expected):
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(a, b), f"result {index} differs"


def flatten(x):
    """The tensors of nested tuples."""
    return [x] if isinstance(x, torch.Tensor) else [z for y in x for z in flatten(y)]


def dot(xs, ys):
    return sum((x * y).sum() for x, y in zip(xs, ys, strict=True))


def assert_exact_derivatives(log_partition, oracle, case):
    """Gradients and Hessian-vector products, where something is possible, are those of ``oracle``."""
    case, leaves = case.leaves()
    z, exact = log_partition(*case), oracle(*case)
    possible = exact.isfinite()
    assert possible.any()
    first = torch.autograd.grad(z[possible].sum(), leaves, create_graph=True)
    expected = torch.autograd.grad(exact[possible].sum(), leaves, create_graph=True)
    weights = [torch.randn_like(x) for x in first]
    second = torch.autograd.grad(dot(first, weights), leaves)
    expected_second = torch.autograd.grad(dot(expected, weights), leaves)
    for mine, theirs in zip(first, expected, strict=True):
        assert_probabilities(mine, theirs)
    for mine, theirs in zip(second, expected_second, strict=True):
        assert_second_order(mine, theirs)


def gradient(case, leaves):
    """The gradient of the summed log-partition."""
    own = {
        PCFG: pcfg.log_partition,
        LowRank: lowrank.log_partition,
        Factorial: sized(factorial.log_partition),
    }
    return torch.autograd.grad(own.get(type(case), ops.log_partition)(*case).sum(), leaves)


def is_score(x):
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def call(query, case, **options):
    """``query`` as a function of the tensors that ``case.leaves()`` gives."""

    def f(*leaves):
        rest = iter(leaves)
        return query(*[next(rest) if is_score(x) else x for x in case], **options)

    return f, case.leaves()[1]


def stack(x, dim, salt):
    """Three variations of ``x`` along a new dimension ``dim``."""
    if x is None or dim is None:
        return x
    if not x.is_floating_point():
        return torch.stack([x, (x - 1).clamp(min=0), torch.full_like(x, 2)], dim)
    return torch.stack([x, torch.roll(x, 1, -1), x * 0.5 + salt], dim)


def assert_vmap_is_the_loop(query, case, mapped, shapes_alone=False):
    """``query`` of three variations of ``case``, stacked at the dimensions ``mapped``, and one by one."""
    stacked = [stack(x, dim, i) for i, (x, dim) in enumerate(zip(case, mapped, strict=True))]
    found = torch.vmap(query, in_dims=mapped)(*stacked)
    rows = [
        query(*[x if d is None else x.select(d, i) for x, d in zip(stacked, mapped, strict=True)])
        for i in range(3)
    ]
    if shapes_alone:
        assert found.shape == (3, *rows[0].shape)
    elif isinstance(rows[0], tuple):
        same(found, tuple(torch.stack(x) for x in zip(*rows, strict=True)))
    else:
        same(found, torch.stack(rows))


def scattered(x):
    """The same values, neither contiguous nor in row-major order."""
    if x.dim() > 1:
        wide = x.new_zeros(*x.shape[:-2], 2 * x.shape[-1], 3 * x.shape[-2]).transpose(-1, -2)
        view = wide[..., ::3, ::2]
    else:
        view = x.new_zeros(2 * len(x))[::2]
    return view.copy_(x)


def chi_square_p(counts, probabilities):
    """p-value of Pearson's test; cells expected fewer than five times are pooled."""
    expected = probabilities * counts.sum()
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    keep = expected > 0
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    freedom = keep.sum().double() - 1
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))


class Module(torch.nn.Module):
    """A module whose forward is one query."""

    def __init__(self, query):
        super().__init__()
        self.query = query

    def forward(self, *potentials):
        return self.query(*potentials)
