"""The laws of ``laws.py`` that are not about numbers: layout, range, isolation, torch's transforms."""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import Tensor

from tests.distributions.examples import Example, cast
from tests.distributions.laws import (
    DIFFERENTIABLE,
    LAWS,
    QUERIES,
    close,
    compare,
    finite_sums,
    floats,
    function,
    law,
)
from tests.distributions.oracle import items, tensors
from tests.tolerance import assert_probabilities

__all__ = ["LAWS"]  # those of ``laws.py`` and these

# ---- 5: layout -----------------------------------------------------------------------------------


@law
def a_batch_is_its_items(example: Example) -> None:
    d, other = example.make(), example.make(1)
    for index in items(d):
        item, its = (d[index], other[index]) if index else (d, other)
        assert item.batch_shape == ()
        for name, query in QUERIES.items():
            if name not in ("sample", "without_replacement"):  # of which each item has its own
                for found, whole in zip(tensors(query(item)), tensors(query(d)), strict=True):
                    rank = (slice(None),) if name == "topk" else ()
                    close(found, whole[(*rank, *index)])
        close(item.kl(its), d.kl(other)[index])
    if d.batch_shape:
        assert sum(1 for _ in d) == d.batch_shape[0]


@law
def broadcast_parameters_are_copies_that_are_not_made(example: Example) -> None:
    d = example.make()
    full = d._derived(
        lambda name, v: (
            v.expand(d.batch_shape + v.shape[v.dim() - d._event_dims(name) :]).clone()
            if v.is_floating_point() or name in d._full
            else v
        )  # a list of rules has no batch dimensions
    )
    for name, query in QUERIES.items():
        compare(name, query(full), query(d))
    grown = d.expand((2, *d.batch_shape))
    close(grown.log_partition(), d.log_partition().expand(2, *d.batch_shape))
    shared = [n for n in d._parameters if n not in d._full and getattr(d, n) is not None]
    for name in shared:
        for mine, its in zip(tensors(getattr(grown, name)), tensors(getattr(d, name)), strict=True):
            assert mine.untyped_storage().data_ptr() == its.untyped_storage().data_ptr()


@law
def strides_do_not_matter(example: Example) -> None:
    parameters = example.parameters(0)
    spread = {n: None if v is None else torch.stack([v, v], -1)[..., 0] for n, v in parameters.items()}
    d, other = example.make(), example.build(**spread)
    for query in QUERIES.values():
        for found, want in zip(tensors(query(other)), tensors(query(d)), strict=True):
            assert torch.equal(found, want)


# ---- 6: infinities and range ---------------------------------------------------------------------


@law
def nothing_is_nan(example: Example) -> None:
    for seed in (0, 1):
        parameters = example.parameters(seed)
        names = floats(parameters)
        leaves = {n: parameters[n].clone().requires_grad_() for n in names}
        d = example.build(**{**parameters, **leaves})
        for name, query in QUERIES.items():
            for result in tensors(query(d)):
                assert not bool(result.isnan().any()), name
                if name in DIFFERENTIABLE and result.requires_grad:
                    for grad in torch.autograd.grad(
                        result.sum(), list(leaves.values()), retain_graph=True, allow_unused=True
                    ):
                        assert grad is None or bool(grad.isfinite().all()), name


@law
def single_precision_is_within_rounding(example: Example) -> None:
    for scale in (1.0, 1e4):
        parameters = example.parameters(0)
        scaled = {n: v * scale if n in floats(parameters) else v for n, v in parameters.items()}
        single = example.build(**cast(scaled, torch.float32))
        double = single.to(torch.float64)
        for name in ("log_partition", "max", "entropy", "log_prob", "kl", "marginals"):
            assert {r.dtype for r in tensors(QUERIES[name](single))} == {torch.float32}
            compare(name, QUERIES[name](single), QUERIES[name](double))


@law
def enormous_spreads_are_exact(example: Example) -> None:
    parameters = example.parameters(0)
    scaled = {n: v * 1e30 if n in floats(parameters) else v for n, v in parameters.items()}
    single = example.build(**cast(scaled, torch.float32))
    double = single.to(torch.float64)
    for name in ("log_partition", "max", "marginals", "entropy"):
        compare(name, QUERIES[name](single), QUERIES[name](double))
    assert torch.equal(single.argmax(), double.argmax())


# ---- 7: isolation --------------------------------------------------------------------------------


@law
def the_callers_tensors_are_untouched(example: Example) -> None:
    parameters = example.parameters(0)
    before = copy.deepcopy(parameters)
    versions = {n: v._version for n, v in parameters.items() if v is not None}
    d = example.build(**parameters)
    for query in QUERIES.values():
        query(d)
    d.detach(), d.to(torch.float32), d.with_temperature(3.0), d.expand((2, *d.batch_shape))
    for name, value in parameters.items():
        if value is not None:
            assert value._version == versions[name], name
            assert not value.requires_grad
            assert value.grad is None
            assert torch.equal(value.nan_to_num(0.5), before[name].nan_to_num(0.5)), name


@law
def nothing_is_built_under_no_grad(example: Example) -> None:
    parameters = example.parameters(0)
    leaves = {n: parameters[n].requires_grad_() for n in floats(parameters)}
    for built in (False, True):
        d = example.build(**{**parameters, **leaves}) if built else None
        with torch.no_grad():
            d = d or example.build(**{**parameters, **leaves})
            for name, query in QUERIES.items():
                for result in tensors(query(d)):
                    assert result.grad_fn is None, name
                    assert not result.requires_grad, name


@law
def two_objects_never_influence_each_other(example: Example) -> None:
    first = example.make(0)
    before = {name: [t.clone() for t in tensors(query(first))] for name, query in QUERIES.items()}
    shared = {kind: dict(vars(kind)) for kind in type(first).__mro__}
    second = example.make(1)
    second._validate_args = False
    for query in QUERIES.values():
        query(second)
    assert {kind: dict(vars(kind)) for kind in type(first).__mro__} == shared
    for name, query in QUERIES.items():
        for found, want in zip(tensors(query(first)), before[name], strict=True):
            assert torch.equal(found, want), name


# ---- 8: torch's transforms -----------------------------------------------------------------------


@law
def copies_and_pickles_are_the_same_distribution(example: Example) -> None:
    d = example.make()
    stream = io.BytesIO()
    torch.save(d, stream)
    stream.seek(0)
    copies = (
        copy.deepcopy(d),
        copy.copy(d),
        pickle.loads(pickle.dumps(d)),
        torch.load(stream, weights_only=False),
    )
    for other in copies:
        for name in ("log_partition", "entropy", "sample"):
            assert torch.equal(QUERIES[name](other), QUERIES[name](d)), name
        assert repr(other) == repr(d)


@law
def func_grad_is_the_gradient(example: Example) -> None:
    fn, point = function(example, lambda d: finite_sums(d.log_partition())[0].sum())
    if not point:
        return
    everything = tuple(range(len(point)))
    found = torch.func.grad(fn, argnums=everything)(*[p.detach() for p in point])
    for a, b in zip(found, torch.autograd.grad(fn(*point), point), strict=True):
        close(a, b)


@law
def vmap_is_a_loop(example: Example) -> None:
    made = [example.parameters(seed) for seed in (0, 1)]
    names = [n for n, v in made[0].items() if v is not None]
    stacked = [torch.stack([m[n] for m in made]) for n in names]
    for name in ("log_partition", "marginals", "argmax", "entropy", "max"):

        def run(*values: Tensor, name: str = name) -> tuple[Tensor, ...]:
            return tuple(tensors(QUERIES[name](example.build(**dict(zip(names, values, strict=True))))))

        mapped = torch.vmap(run)(*stacked)
        for i, m in enumerate(made):
            compare(name, [found[i] for found in mapped], QUERIES[name](example.build(**m)))


@law
def autocast_changes_no_meaning(example: Example) -> None:
    d = example.make(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = example.make(dtype=torch.float32)
        for name in ("log_partition", "entropy", "max", "log_prob"):
            found = QUERIES[name](inside)
            assert found.dtype == torch.float32, name
            compare(name, found, QUERIES[name](d))
        assert torch.equal(inside.argmax(), d.argmax())


@law
def half_precision_is_computed_in_single(example: Example) -> None:
    half = example.make(dtype=torch.bfloat16)
    single = half.to(torch.float32)
    for name in ("log_partition", "entropy", "max", "log_prob"):
        assert QUERIES[name](half).dtype == torch.float32
        compare(name, QUERIES[name](half), QUERIES[name](single))
    for found, want in zip(tensors(half.marginals()), tensors(single.marginals()), strict=True):
        assert found.dtype == torch.bfloat16
        assert_probabilities(found, want.to(torch.bfloat16))
