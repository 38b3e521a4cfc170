"""One table of laws that every structured distribution obeys (see ``examples.py`` for the distributions).

A law is a function of an example. They come in eight groups: 1 enumeration, 2 derivatives, 3 samples and
4 algebra are here; 5 layout, 6 infinities and range, 7 isolation and 8 torch's transforms in
``laws_of_form.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import kl_divergence

from structlv.distributions.algebra import mapped
from tests.distributions.chances import assert_without_replacement, chi_square
from tests.distributions.examples import Example, Parameters
from tests.distributions.oracle import items, oracles, tensors
from tests.tolerance import assert_nats, assert_probabilities

LAWS: dict[str, Callable[[Example], None]] = {}


def law(fn: Callable[[Example], None]) -> Callable[[Example], None]:
    LAWS[fn.__name__] = fn
    return fn


def close(found: Tensor, expected: Tensor) -> None:
    """Quantities in nats, or probabilities in float64; events are equal."""
    if found.is_floating_point():
        assert_nats(found, expected.to(found.dtype))
    else:
        assert torch.equal(found, expected)


def compare(name: str, found: Any, expected: Any) -> None:
    """Results of the query ``name``."""
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        assert a.shape == b.shape, name
        (assert_probabilities if name == "marginals" else close)(a, b.to(a.dtype))


def floats(parameters: Parameters) -> list[str]:
    return [n for n, v in parameters.items() if v is not None and v.is_floating_point() and v.numel()]


def function(
    example: Example, query: Callable[[Any], Any], seed: int = 0
) -> tuple[Callable[..., Any], tuple]:
    """``query`` as a function of the finite entries of the potentials, and a point to look at it."""
    parameters = example.parameters(seed)
    names = floats(parameters)
    finite = {name: parameters[name].isfinite() for name in names}
    fixed = {name: parameters[name].clone() for name in names}

    def fn(*values: Tensor) -> Any:
        given = {
            name: torch.where(finite[name], value, fixed[name])
            for name, value in zip(names, values, strict=True)
        }
        return query(example.build(**{**parameters, **given}))

    start = [torch.where(finite[name], fixed[name], 0.0).requires_grad_() for name in names]
    return fn, tuple(start)


QUERIES: dict[str, Callable[[Any], Any]] = {
    "log_partition": lambda d: d.log_partition(),
    "marginals": lambda d: d.marginals(),
    "max_marginals": lambda d: d.max_marginals(),
    "max": lambda d: d.max(),
    "argmax": lambda d: d.argmax(),
    "topk": lambda d: d.topk(3),
    "entropy": lambda d: d.entropy(),
    "cross_entropy": lambda d: d.cross_entropy(d.with_temperature(2.0)),
    "kl": lambda d: d.kl(d.with_temperature(2.0)),
    "log_count": lambda d: d.log_count(),
    "log_prob": lambda d: d.log_prob(d.argmax()),
    "score": lambda d: d.score(d.argmax()),
    "expectation": lambda d: d.expectation(d.marginals()),
    "sample": lambda d: d.sample((2,), generator=torch.Generator().manual_seed(3)),
    "without_replacement": lambda d: d.sample_without_replacement(
        3, generator=torch.Generator().manual_seed(3)
    ),
}
DIFFERENTIABLE = (
    "log_partition",
    "marginals",
    "max",
    "entropy",
    "cross_entropy",
    "kl",
    "log_prob",
    "score",
    "expectation",
)


# ---- 1: enumeration ------------------------------------------------------------------------------


@law
def log_partition_is_the_sum_over_structures(example: Example) -> None:
    d = example.make()
    for index, oracle in oracles(example, d).items():
        close(d.log_partition()[index], oracle.log_partition)


@law
def probabilities_sum_to_one(example: Example) -> None:
    d = example.make()
    for index, oracle in oracles(example, d).items():
        item = d[index] if index else d
        log_prob = item.log_prob(oracle.events)
        close(log_prob.exp(), oracle.probabilities)
        close(item.score(oracle.events), oracle.scores)
        assert bool(oracle.possible.any()) == math.isclose(float(log_prob.exp().sum()), 1.0, rel_tol=1e-9)


@law
def marginals_are_expected_parts(example: Example) -> None:
    d = example.make()
    for index, oracle in oracles(example, d).items():
        for found, expected in zip(tensors(d.marginals()), oracle.marginals, strict=True):
            close(found[index], expected)
        parts = mapped(oracle.item.to_parts(oracle.events), lambda part: part.amax(0) * 0.7 - 0.2)
        expected = sum((a * b).sum() for a, b in zip(oracle.marginals, tensors(parts), strict=True))
        close((d[index] if index else d).expectation(parts), expected)


@law
def max_marginals_are_the_best_that_use_a_part(example: Example) -> None:
    d = example.make()
    for index, oracle in oracles(example, d).items():
        for found, expected in zip(tensors(d.max_marginals()), oracle.max_marginals, strict=True):
            close(found[index], expected)


@law
def best_structures_are_the_best(example: Example) -> None:
    d = example.make()
    scores, events = d.topk(5)
    for index, oracle in oracles(example, d).items():
        best, ranked = oracle.ranked()
        found = min(5, len(best))
        close(scores[(slice(None), *index)][:found], best[:5])
        assert torch.equal(events[(slice(None), *index)][:found], ranked[:5])
        assert bool((scores[(slice(None), *index)][found:] == -torch.inf).all())
        assert bool((events[(slice(None), *index)][found:] == -1).all())
        top = ranked[0] if len(ranked) else torch.full_like(events[(0, *index)], -1)
        assert torch.equal(d.argmax()[index], top)
        close(d.max()[index], best[0] if len(best) else oracle.log_partition)


@law
def entropy_and_divergences_equal_enumeration(example: Example) -> None:
    d, other = example.make(), example.make(1)
    theirs = oracles(example, other)
    for index, oracle in oracles(example, d).items():
        close(d.entropy()[index], oracle.entropy)
        if not bool(oracle.possible.any()):
            close(d.kl(other)[index], torch.tensor(0.0))
            continue
        close(d.cross_entropy(other)[index], oracle.cross_entropy(theirs[index]))
        close(d.kl(other)[index], oracle.cross_entropy(theirs[index]) - oracle.entropy)


@law
def log_count_counts(example: Example) -> None:
    d = example.make(dtype=torch.float32)
    assert d.log_count().dtype == torch.float64
    for index, oracle in oracles(example, d).items():
        close(d.log_count()[index], oracle.possible.sum().double().log())


@law
def parts_and_events_are_two_ways_of_saying_it(example: Example) -> None:
    d = example.make()
    for event in (d.argmax(), d.sample((3,))):
        parts = d.to_parts(event)
        if example.invertible:
            assert torch.equal(d.from_parts(parts), event)
        assert [p.shape[event.dim() - d.argmax().dim() :] for p in tensors(parts)] == [
            m.shape for m in tensors(d.marginals())
        ]
        some = d.log_partition().expand(event.shape[: event.dim() - len(d.event_shape)]) > -torch.inf
        assert bool(d.support.check(event)[some].all())


# ---- 2: derivatives ------------------------------------------------------------------------------


@law
def gradients_of_the_log_partition_are_marginals(example: Example) -> None:
    fn, point = function(
        example, lambda d: d.log_partition().masked_fill(d.log_partition() == -torch.inf, 0).sum()
    )
    if not point:
        return
    expected = torch.autograd.functional.jacobian(lambda *v: fn(*v), point)
    fn, point = function(
        example, lambda d: sum(o.log_partition for o in oracles(example, d).values() if o.possible.any())
    )
    total = fn(*point) + 0 * sum(p.sum() for p in point)
    for found, want in zip(expected, torch.autograd.grad(total, point), strict=True):
        close(found, want)


@law
def first_derivatives(example: Example) -> None:
    for name in DIFFERENTIABLE:
        fn, point = function(example, lambda d, name=name: finite_sums(QUERIES[name](d)))
        if point:
            assert gradcheck(fn, point, fast_mode=name != "log_partition"), name


@law
def second_derivatives(example: Example) -> None:
    for name in ("log_partition", "log_prob"):
        fn, point = function(example, lambda d, name=name: finite_sums(QUERIES[name](d)))
        if point:
            assert gradgradcheck(fn, point), name


def finite_sums(result: Any) -> tuple[Tensor, ...]:
    return tuple(torch.where(r == -torch.inf, 0.0, r) for r in tensors(result))


@law
def second_order_operators_are_symmetric(example: Example) -> None:
    fn, point = function(example, lambda d: finite_sums(d.log_partition())[0].sum())
    if not point:
        return
    u, v = ([torch.randn_like(p) for p in point] for _ in range(2))
    gradient = torch.autograd.grad(fn(*point), point, create_graph=True)
    products = []
    for direction in (u, v):
        slope = sum((g * w + 0 * p).sum() for g, w, p in zip(gradient, direction, point, strict=True))
        products.append(torch.autograd.grad(slope, point, retain_graph=True))
    left = sum((a * b).sum() for a, b in zip(u, products[1], strict=True))
    right = sum((a * b).sum() for a, b in zip(v, products[0], strict=True))
    close(left, right)


# ---- 3: samples ----------------------------------------------------------------------------------


@law
def samples_have_the_joint_law(example: Example) -> None:
    d = example.make()
    draws = d.sample((3000,), generator=torch.Generator().manual_seed(11))
    for index, oracle in oracles(example, d).items():
        mine = draws[(slice(None), *index)]
        if not bool(oracle.possible.any()):
            assert bool((mine == -1).all())
            continue
        counts = (mine.unsqueeze(1) == oracle.events).flatten(2).all(-1).double().sum(0)
        assert counts.sum() == len(mine)
        chi_square(counts, oracle.probabilities * len(mine))


@law
def a_seed_fixes_the_samples(example: Example) -> None:
    d = example.make()

    def draw(d: Any) -> Tensor:
        return d.sample((4, 2), generator=torch.Generator().manual_seed(5))

    expected = draw(d)
    assert expected.shape == (4, 2, *d.batch_shape, *d.event_shape)
    assert torch.equal(draw(d), expected)
    if d.batch_shape:
        first = d[(slice(0, 1),) * len(d.batch_shape)]
        assert torch.equal(
            draw(first), expected[(slice(None), slice(None), *[slice(0, 1)] * len(d.batch_shape))]
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert torch.equal(draw(d), expected)
    finally:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    one = d.sample((20,))
    two = d.sample((20,))
    torch.manual_seed(0)
    assert torch.equal(d.sample((20,)), one)
    assert d.log_count().max() < 1 or not torch.equal(one, two)


@law
def items_are_sampled_independently(example: Example) -> None:
    d = example.make()
    index = max(items(d), key=lambda i: float(d.entropy()[i]))
    pair = (d[index] if index else d).expand((2,))
    draws = pair.sample((2000,), generator=torch.Generator().manual_seed(7))
    p = oracles(example, d)[index]
    if not bool(p.possible.any()):
        return
    codes = (draws.unsqueeze(2) == p.events).flatten(3).all(-1).double()  # (s, 2, m)
    counts = torch.einsum("si,sj->ij", codes[:, 0], codes[:, 1])
    expected = p.probabilities.outer(p.probabilities) * len(draws)
    chi_square(counts.flatten(), expected.flatten())


@law
def samples_without_replacement_have_the_joint_law(example: Example) -> None:
    d = example.make()
    index = max(items(d), key=lambda i: float(d.entropy()[i]))
    p = oracles(example, d)[index]
    if bool(p.possible.any()):
        many = (d[index] if index else d).expand((400,))
        assert_without_replacement(
            many.sample_without_replacement(3, torch.Generator().manual_seed(7)), p.events, p.probabilities
        )


@law
def without_replacement_all_structures_are_found_once(example: Example) -> None:
    d = example.make()
    k = int(d.log_count().exp().max().round()) + 2
    draws = d.sample_without_replacement(k, torch.Generator().manual_seed(3))
    assert bool((draws.perturbed[1:] <= draws.perturbed[:-1]).all())
    for index, oracle in oracles(example, d).items():
        events, perturbed, log_prob = (x[(slice(None), *index)] for x in draws)
        count = int(oracle.possible.sum())
        found, wanted = events[:count].tolist(), oracle.events[oracle.possible].tolist()
        assert sorted(found) == sorted(wanted)
        assert bool(perturbed[:count].isfinite().all())
        if count:
            close(log_prob[:count].exp().sum(), torch.tensor(1.0))
        assert bool((events[count:] == -1).all())
        assert bool((perturbed[count:] == -torch.inf).all())
        assert bool((log_prob[count:] == -torch.inf).all())


@law
def a_seed_fixes_what_is_drawn_without_replacement(example: Example) -> None:
    d = example.make()

    def draw(d: Any, k: int = 4) -> Any:
        return d.sample_without_replacement(k, torch.Generator().manual_seed(5))

    expected = draw(d)
    assert [x.shape for x in expected] == [(4, *d.batch_shape, *d.event_shape)] + [(4, *d.batch_shape)] * 2
    for a, b in zip(draw(d, 2), expected, strict=True):
        close(a, b[:2])  # fewer are the first of more
    if d.batch_shape:
        first = (slice(0, 1),) * len(d.batch_shape)
        for a, b in zip(draw(d[first]), expected, strict=True):
            close(a, b[(slice(None), *first)])
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        for a, b in zip(draw(d), expected, strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)
    other = d.sample_without_replacement(4, torch.Generator().manual_seed(6))
    possible = expected.perturbed > -torch.inf
    assert not torch.equal(other.perturbed[possible], expected.perturbed[possible]) or not possible.any()


# ---- 4: algebra ----------------------------------------------------------------------------------


@law
def temperatures_divide_scores(example: Example) -> None:
    d = example.make()
    cold, each = (
        d.with_temperature(0.5),
        d.with_temperature(torch.full(d.batch_shape, 0.5, dtype=torch.float64)),
    )
    for index, oracle in oracles(example, d).items():
        want = (
            (2 * oracle.scores[oracle.possible]).logsumexp(0)
            if oracle.possible.any()
            else oracle.log_partition
        )
        close(cold.log_partition()[index], want)
        close(each.log_partition()[index], want)
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: finite_sums(d.with_temperature(t).log_partition()), (t,))


@law
def divergences_are_divergences(example: Example) -> None:
    d, other = example.make(), example.make(1)
    assert bool((d.kl(d) == 0).all())
    assert bool((d.kl(other) >= -1e-12).all())
    assert torch.equal(kl_divergence(d, other), d.kl(other))
    close(d.cross_entropy(d), d.entropy())


@law
def entropy_is_the_mean_surprise(example: Example) -> None:
    d = example.make()
    for index, oracle in oracles(example, d).items():
        log_prob = (d[index] if index else d).log_prob(oracle.events)
        surprise = torch.where(oracle.possible, -log_prob * oracle.probabilities, 0.0).sum()
        close(d.entropy()[index], surprise)


@law
def k_best_are_sorted_distinct_and_consistent(example: Example) -> None:
    d = example.make()
    scores, events = d.topk(7)
    assert bool((scores[1:] <= scores[:-1]).all())
    for k in (1, 3):
        assert torch.equal(d.topk(k)[1], events[:k])
        assert torch.equal(d.topk(k)[0], scores[:k])
    for index in items(d):
        mine = events[(slice(None), *index)][scores[(slice(None), *index)] > -torch.inf]
        assert len({str(event.tolist()) for event in mine}) == len(mine)
