"""The operators that draw without replacement: kernels against the reference, meta answers, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from structlv import reference
from structlv.ops import chain, pcfg, sparse_pcfg
from tests import cases
from tests.tolerance import assert_perturbed

raw = torch.ops.structlv
SEED = 2**62 + 5
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
some = pytest.mark.parametrize(
    ("count", "dtype"), [(8, torch.float64), (2, torch.float32)], ids=["f64", "f32"]
)
FAMILIES: dict[str, Any] = {
    "chain": (chain, reference.chain, cases.chain),
    "pcfg": (pcfg, reference.pcfg, cases.pcfg),
    "sparse_pcfg": (sparse_pcfg, reference.sparse_pcfg, cases.sparse_pcfg),
}
families = pytest.mark.parametrize("family", FAMILIES)


def assert_same(found: Any, expected: Any, dtype: torch.dtype = torch.float64) -> None:
    assert_perturbed(found[1], expected[1], dtype)
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("sharing", cases.SHARINGS)
@pytest.mark.parametrize(("n", "k", "count"), [(1, 3, 5), (9, 1, 3), (6, 2, 80), (6, 17, 8)])
@dtypes
def test_chain(sharing: str, n: int, k: int, count: int, dtype: torch.dtype, native: None) -> None:
    case = cases.chain(batch=(2,), n=n, k=k, sharing=sharing, holes=0.1, dtype=dtype, seed=n + k)
    given = {"k": count, "seed": SEED}
    assert_same(chain.sample_distinct(*case, **given), reference.chain.sample_distinct(*case, **given))


@pytest.mark.parametrize("options", cases.SMALL_PCFGS, ids=cases.name)
@some
def test_pcfg(options: Any, count: int, dtype: torch.dtype, native: None) -> None:
    case, given = cases.pcfg(**options, dtype=dtype), {"k": count, "seed": SEED}
    assert_same(pcfg.sample_distinct(*case, **given), reference.pcfg.sample_distinct(*case, **given), dtype)


@pytest.mark.parametrize("options", cases.SMALL_SPARSE, ids=cases.name)
@some
def test_sparse_pcfg(options: Any, count: int, dtype: torch.dtype, native: None) -> None:
    case = cases.sparse_pcfg(**options, dtype=dtype)
    given = {"k": count, "seed": SEED}
    found = sparse_pcfg.sample_distinct(*case, **given)
    assert_same(found, reference.sparse_pcfg.sample_distinct(*case, **given))


@families
def test_fewer_are_the_first_of_more(family: str, backend: None) -> None:
    ops, _, make = FAMILIES[family]
    case = make()
    most = ops.sample_distinct(*case, k=12, seed=3)
    assert bool((most[1][1:] <= most[1][:-1]).all())
    for k in (0, 1, 5):
        assert_same(ops.sample_distinct(*case, k=k, seed=3), [x[:k] for x in most])
    assert not torch.equal(ops.sample_distinct(*case, k=12, seed=4)[1], most[1])


@families
def test_opcheck(family: str, native: None) -> None:
    case = FAMILIES[family][2](ragged=False)
    potentials: tuple = tuple(case)
    if family == "sparse_pcfg":
        root, index, scores, unary, spans, lengths = case
        potentials = (root, scores, unary, spans, index, lengths)
    depth = (reference.sparse_pcfg.depth(case.index),) if family == "sparse_pcfg" else ()
    operator = getattr(raw, f"{family}_sample_distinct").default
    torch.library.opcheck(operator, (*potentials, 3, 5, *depth))
    leaves = tuple(
        x.clone().requires_grad_() if x is not None and x.is_floating_point() else x for x in potentials
    )
    assert not operator(*leaves, 3, 5, *depth)[1].requires_grad
    with pytest.raises(RuntimeError, match="k: expected a number of"):
        operator(*potentials, -1, 5, *depth)


@families
@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"k": -1, "seed": 0}, ValueError, "k: expected 0 or more"),
        ({"k": 1.5, "seed": 0}, TypeError, "k: expected an int"),
        ({"k": True, "seed": 0}, TypeError, "k: expected an int"),
        ({"k": 1, "seed": -1}, ValueError, "seed: expected"),
        ({"k": 1, "seed": 2**63}, ValueError, "seed: expected"),
    ],
)
def test_bad_options(family: str, options: Any, error: Any, sentence: str, backend: None) -> None:
    ops, _, make = FAMILIES[family]
    with pytest.raises(error, match=sentence):
        ops.sample_distinct(*make(), **options)


@families
def test_vmap_compile_and_forward_mode(family: str, native: None) -> None:
    ops, _, make = FAMILIES[family]
    case = make(ragged=False)
    options = {"depth": reference.sparse_pcfg.depth(case.index)} if family == "sparse_pcfg" else {}

    def query(unary: torch.Tensor) -> Any:
        return ops.sample_distinct(*case._replace(unary=unary), k=2, seed=3, **options)

    expected = query(case.unary)
    assert_same(torch.compile(query, fullgraph=True, backend="eager")(case.unary), expected)
    mapped = torch.vmap(query)(torch.stack([case.unary, case.unary]))
    for x, y in zip(mapped, expected, strict=True):
        assert x.shape == (2, *y.shape)
        assert torch.equal(x[0], y)  # the first items have the same places
    assert not torch.equal(mapped[1][1], expected[1])
    _, tangent = torch.func.jvp(lambda u: query(u)[1] + 0 * u.sum(), (case.unary,), (case.unary,))
    assert not tangent.any()


def test_more_than_there_are_take_no_memory(native: None) -> None:
    """Three states at four positions: 81 structures out of a million that are asked for."""
    events, perturbed = raw.chain_sample_distinct(
        torch.zeros(2, 4, 3), torch.zeros(3, 3), *[None] * 3, 10**6, 0
    )
    assert bool((events[:81] >= 0).all())
    assert bool((events[81:] == -1).all())
    assert bool(perturbed[:81].isfinite().all())
    assert bool((perturbed[81:] == -torch.inf).all())
