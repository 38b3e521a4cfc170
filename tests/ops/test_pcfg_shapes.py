"""Any shape: the kernels agree with the reference, batch dimensions broadcast, shapes are as promised."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structlv import reference
from structlv.ops import pcfg as ops
from tests.cases import GRAMMARS, SPANS, pcfg
from tests.tolerance import assert_nats, assert_probabilities

pytestmark = pytest.mark.usefixtures("native")


@st.composite
def grammars(draw):
    batch = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    return pcfg(
        batch=batch,
        n=draw(st.integers(0, 7)),
        symbols=(draw(st.integers(1, 6)), draw(st.integers(1, 9))),
        grammar=draw(st.sampled_from(GRAMMARS)),
        spans=draw(st.sampled_from(SPANS)),
        ragged=draw(st.booleans()),
        holes=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        scale=draw(st.sampled_from([0.1, 1.0, 50.0])),
        seed=draw(st.integers(0, 2**31)),
    )


@given(grammars())
def test_values(case):
    assert_nats(ops.log_partition(*case), reference.pcfg.log_partition(*case))
    for found, expected in zip(ops.marginals(*case), reference.pcfg.marginals(*case), strict=True):
        assert_probabilities(found, expected)
    for found, expected in zip(ops.max_marginals(*case), reference.pcfg.max_marginals(*case), strict=True):
        assert_nats(found, expected)


@given(grammars(), st.integers(1, 3))
def test_events(case, k):
    *batch, n, _ = case.unary.shape
    best = ops.topk(*case, k=k)
    assert best.shape == (k, *batch, max(2 * n - 1, 0), 3)
    assert torch.equal(ops.argmax(*case), best[0])
    scores = ops.score(best, *case)
    assert_nats(scores, reference.pcfg.score(best, *case))
    assert_nats(scores[0], reference.pcfg.score(reference.pcfg.argmax(*case), *case))
    drawn = ops.sample(*case, num_samples=k, seed=3)
    assert drawn.shape == best.shape
    possible = ops.log_partition(*case).isfinite()
    assert ops.score(drawn, *case)[:, possible].isfinite().all()


@given(grammars())
def test_gradients(case):
    leafy, leaves = case.leaves()
    found = torch.autograd.grad(ops.log_partition(*leafy).sum(), leaves)
    expected = torch.autograd.grad(reference.pcfg.log_partition(*leafy).sum(), leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert_probabilities(mine, theirs)


@given(grammars())
def test_fakes_tell_the_shapes(case):
    def meta(query):
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode() as mode:
            return query(*[None if x is None else mode.from_tensor(x) for x in case])

    for query in (ops.log_partition, ops.marginals, ops.argmax, ops.max_marginals):
        fake, real = meta(query), query(*case)
        pairs = zip(fake, real, strict=True) if isinstance(real, tuple) else [(fake, real)]
        assert all(f.shape == r.shape and f.dtype == r.dtype for f, r in pairs)


@pytest.mark.parametrize("lead", [(), (1,), (1, 1), (3, 1), (1, 2), (2,), (3, 2)])
def test_broadcasting_is_that_of_expanded_potentials(lead):
    batch, n, s = (3, 2), 4, 5
    g = torch.Generator().manual_seed(3)
    root, rules, unary, spans = (
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in ((2, 2), (*lead, 2, s, s), (*batch, n, 3), (*lead, n, n, 2))
    )
    lengths = torch.tensor([[4, 0], [1, 2], [3, 4]])
    short = root, rules, unary, spans, lengths
    full = root.expand(3, 2, 2), rules.expand(3, 2, 2, s, s), unary, spans.expand(3, 2, n, n, 2)
    long = *(x.contiguous() for x in full), lengths
    for query in (ops.marginals, ops.max_marginals):
        for a, b in zip(query(*short), query(*long), strict=True):
            assert torch.equal(a, b)
    grad = torch.randn(batch, dtype=torch.float64)
    for query in (ops.log_partition, lambda *x: ops.score(ops.argmax(*x), *x)):
        gradients = []
        for potentials in (short, long):
            leaves = [x.clone().requires_grad_() for x in potentials[:4]]
            z = query(*leaves, lengths)
            gradients.append(torch.autograd.grad(z, leaves, grad))
        for x, y, like in zip(*gradients, short, strict=False):
            assert_probabilities(x, y.sum_to_size(like.shape))
