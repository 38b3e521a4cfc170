"""Any shape: the kernels agree with the reference, batch dimensions broadcast, shapes are as promised."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structlv import reference
from structlv.ops import chain as ops
from tests.cases import SHARINGS, chain
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")


@st.composite
def chains(draw):
    batch = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    return chain(
        batch=batch,
        n=draw(st.integers(0, 9)),
        k=draw(st.integers(1, 20)),
        sharing=draw(st.sampled_from(SHARINGS)),
        ends=draw(st.booleans()),
        ragged=draw(st.booleans()),
        holes=draw(st.sampled_from([0.0, 0.2, 0.7, 1.0])),
        scale=draw(st.sampled_from([0.1, 1.0, 50.0])),
        seed=draw(st.integers(0, 2**31)),
    )


@given(chains())
def test_values(case):
    assert_nats(ops.log_partition(*case), reference.chain.log_partition(*case))
    assert_nats(ops.filter(*case).exp(), reference.chain.filter(*case).exp())
    for edges in (False, True):
        pairs = zip(
            ops.marginals(*case, edges=edges), reference.chain.marginals(*case, edges=edges), strict=True
        )
        for found, expected in pairs:
            assert_probabilities(found, expected)
    assert_probabilities(ops.state_marginals(*case), reference.chain.marginals(*case)[0])
    for found, expected in zip(ops.max_marginals(*case), reference.chain.max_marginals(*case), strict=True):
        assert_nats(found, expected)


@given(chains(), st.integers(1, 4))
def test_events(case, k):
    *batch, n, _ = case.unary.shape
    best = ops.topk(*case, k=k)
    assert best.shape == (k, *batch, n)
    assert torch.equal(ops.argmax(*case), best[0])
    assert_nats(ops.score(best, *case), reference.chain.score(best, *case))
    drawn = ops.sample(*case, num_samples=k, seed=3)
    assert drawn.shape == (k, *batch, n)
    possible = ops.log_partition(*case).isfinite()
    assert ops.score(drawn, *case)[:, possible].isfinite().all()


@given(chains())
def test_gradients(case):
    leafy, leaves = case.leaves()
    found = torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves)
    expected = torch.autograd.grad(reference.chain.log_partition(*leafy).sum(), leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs)


@given(chains())
def test_fakes_tell_the_shapes(case):
    def meta(query):
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode() as mode:
            return query(*[None if x is None else mode.from_tensor(x) for x in case])

    for query in (ops.log_partition, ops.marginals, ops.argmax, ops.max_marginals, ops.filter):
        fake, real = meta(query), query(*case)
        pairs = zip(fake, real, strict=True) if isinstance(real, tuple) else [(fake, real)]
        assert all(f.shape == r.shape and f.dtype == r.dtype for f, r in pairs)
