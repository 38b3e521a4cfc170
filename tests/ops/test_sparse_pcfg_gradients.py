"""Derivatives of the sparse PCFG's queries, their transforms, layouts, and what is refused."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from structlv import reference
from structlv.ops import sparse_pcfg as ops
from structlv.ops.sparse_pcfg import SparseRules
from structlv.reference._sparse import inside, prepare
from tests.cases import GRAMMARS, SPANS, sparse_pcfg
from tests.ops.queries import (
    assert_exact_derivatives,
    assert_same_bits,
    assert_vmap_is_the_loop,
    same,
    scattered,
)
from tests.tolerance import assert_nats, assert_probabilities

grammars = pytest.mark.parametrize("grammar", GRAMMARS)
between = pytest.mark.parametrize("spans", SPANS)


def calls(query, case, **options):
    """``query`` as a function of the tensors of ``case.leaves()``."""

    def f(*leaves):
        rest = iter(leaves)
        given = [next(rest) if x is not None and x.is_floating_point() else x for x in case]
        return query(*given, **options)

    return f, case.leaves()[1]


@grammars
@between
def test_log_partition(grammar, spans, native):
    case = sparse_pcfg(batch=(2,), n=3, grammar=grammar, spans=spans, seed=3)
    f, leaves = calls(lambda *x: ops.log_partition(*x).nan_to_num(neginf=0.0), case)
    assert gradcheck(f, leaves, check_forward_ad=True)
    assert gradgradcheck(f, leaves)


@grammars
@between
@pytest.mark.parametrize(("holes", "scale"), [(0.0, 1.0), (0.15, 100.0)])
def test_inside_scores(grammar, spans, holes, scale):
    """Values and gradients, whose terms are formed again, are those of the plain recursion."""
    case = sparse_pcfg(batch=(2, 2), n=4, grammar=grammar, spans=spans, holes=holes, scale=scale, seed=5)

    def plain(*potentials):
        return torch.cat(inside(prepare(*potentials)), -2)

    found, wanted = [], []
    for query, results in ((reference.sparse_pcfg.inside_scores, found), (plain, wanted)):
        f, leaves = calls(query, case)
        chart = f(*leaves)
        weights = torch.arange(chart.numel(), dtype=chart.dtype).reshape(chart.shape).cos()
        total = torch.where(chart > -torch.inf, chart, 0.0).mul(weights).sum()
        results += [chart, *torch.autograd.grad(total, leaves[1:])]  # the root is not in it
    assert_nats(found[0], wanted[0])
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert_probabilities(a, b)


def test_inside_scores_under_transforms():
    case = sparse_pcfg(batch=(3,), n=4, seed=6)
    scores = case.scores.detach()

    def total(unary):
        return reference.sparse_pcfg.inside_scores(case.root, case.index, scores, unary).exp().sum()

    leaf = case.unary.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(total(leaf), leaf)
    assert_probabilities(torch.func.grad(total)(case.unary.detach()), wanted)
    each = torch.stack([total(x) for x in case.unary])
    assert_nats(torch.func.vmap(total)(case.unary), each)
    (gradient,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("labelled", [False, True])
@between
def test_marginals(labelled, spans, native):
    case = sparse_pcfg(batch=(2,), n=3, spans=spans, seed=4)
    f, leaves = calls(ops.marginals, case, labelled=labelled)
    forward = spans is None or (spans != "one") == labelled
    assert gradcheck(f, leaves, check_forward_ad=forward)


def test_score(native):
    case = sparse_pcfg(batch=(2,), n=3, spans="label", ragged=False)
    event = ops.topk(*case, k=2)
    f, leaves = calls(lambda *x: ops.score(event, *x), case)
    assert gradcheck(f, leaves, check_forward_ad=True)
    assert gradgradcheck(f, leaves)


@grammars
@between
@pytest.mark.parametrize("holes", [0.0, 0.15])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_against_the_reference(grammar, spans, holes, scale, native):
    options = {"n": 5, "symbols": (5, 3), "rules": (25, 10), "seed": 1}
    assert_exact_derivatives(
        ops.log_partition,
        reference.sparse_pcfg.log_partition,
        sparse_pcfg(grammar=grammar, spans=spans, holes=holes, scale=scale, **options),
    )


def test_what_is_not_differentiable_says_so(native):
    case, leaves = sparse_pcfg().leaves()
    with pytest.raises(NotImplementedError, match="max_marginals is not differentiable"):
        ops.max_marginals(*case)[0].sum().backward()
    z = ops.log_partition(*case)
    first = torch.autograd.grad(z[z.isfinite()].sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative"):
        second[0].sum().backward()


# ---- layouts ---------------------------------------------------------------------------------------------


def everything(case):
    potentials, leaves = case.leaves()
    z = ops.log_partition(*potentials)
    gradients = torch.autograd.grad(z[z.isfinite()].sum(), leaves)
    chosen = [ops.argmax(*case), *ops.topk(*case, k=3), *ops.sample(*case, num_samples=2, seed=5)]
    return [z.detach(), *gradients, *ops.marginals(*case), *ops.max_marginals(*case), *chosen]


@grammars
def test_bits_do_not_depend_on_layout_or_threads(grammar, native):
    case = sparse_pcfg(batch=(9,), n=7, grammar=grammar, spans="label", rules=(40, 12))
    expected = everything(case)
    assert_same_bits(everything(case.map(scattered)), expected)
    torch.set_num_threads(2)
    assert_same_bits(everything(case), expected)


def test_an_item_does_not_depend_on_the_batch(native):
    case = sparse_pcfg(batch=(3,), n=6, grammar="item", rules=(40, 12))
    for b, length in enumerate(case.lengths.tolist()):
        alone = (case.root[b], case.index, case.scores[b], case.unary[b, :length])
        assert torch.equal(ops.log_partition(*alone), ops.log_partition(*case)[b])
        assert torch.equal(ops.marginals(*alone)[1], ops.marginals(*case)[1][b])


def test_more_batch_dimensions_and_none(backend):
    wide = sparse_pcfg(batch=(2, 3), n=3, grammar="item", spans="one")
    flat = [x.flatten(0, 1) if i != 1 else x for i, x in enumerate(wide)]
    assert torch.equal(ops.log_partition(*wide).flatten(), ops.log_partition(*flat))
    assert torch.equal(ops.argmax(*wide).flatten(0, 1), ops.argmax(*flat))
    none = sparse_pcfg(batch=(0,), n=3)
    assert ops.log_partition(*none).shape == (0,)
    assert ops.argmax(*none).shape[0] == 0


# ---- transforms ------------------------------------------------------------------------------------------

QUERIES = {
    "log_partition": ops.log_partition,
    "marginals": ops.marginals,
    "argmax": ops.argmax,
    "max_marginals": ops.max_marginals,
    "topk": lambda *x: ops.topk(*x, k=2),
    "sample": lambda *x: ops.sample(*x, num_samples=2, seed=3),
    "score": lambda root, index, scores, unary, *x: ops.score(
        torch.zeros(2, *unary.shape[:-2], 5, 3, dtype=torch.long), root, index, scores, unary, *x
    ),
}
queries = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


@queries
@pytest.mark.parametrize("mapped", [(0, None, 0, 0, 0, 0), (None, None, None, 1, None, None)], ids=str)
def test_vmap_is_the_loop(query, mapped, native):
    case = sparse_pcfg(batch=(2,), n=3, grammar="item", spans="label")
    assert_vmap_is_the_loop(query, case, mapped, shapes_alone=query is QUERIES["sample"])


def test_vmap_of_the_gradient(native):
    case = sparse_pcfg(batch=(3,), n=3, ragged=False, grammar="item")

    def gradient(root, scores, unary):
        return torch.func.grad(lambda s: ops.log_partition(root, case.index, s, unary))(scores)

    found = torch.vmap(gradient)(case.root, case.scores, case.unary)
    assert_probabilities(found, ops.marginals(*case)[1])


def test_vmap_over_the_rules_is_refused(native):
    case = sparse_pcfg(batch=(), n=3, ragged=False)
    with pytest.raises(NotImplementedError, match="cannot be mapped by vmap"):
        torch.vmap(ops.log_partition, in_dims=(None, 0, None, None))(
            case.root, case.index.expand(2, -1, -1), case.scores, case.unary
        )


@queries
def test_compile(query, native):
    case = sparse_pcfg(n=3, spans="label")
    depth = reference.sparse_pcfg.depth(case.index)
    if query in (QUERIES["argmax"], QUERIES["topk"], QUERIES["sample"]):
        name, options = next(
            (n, o)
            for n, o in (("argmax", {}), ("topk", {"k": 2}), ("sample", {"num_samples": 2, "seed": 3}))
            if QUERIES[n] is query
        )
        found = torch.compile(getattr(ops, name), backend="aot_eager", fullgraph=True)
        same(found(*case, **options, depth=depth), query(*case))
    else:
        same(torch.compile(query, backend="aot_eager", fullgraph=True)(*case), query(*case))


def test_compile_the_gradient(native):
    case, leaves = sparse_pcfg(n=3, ragged=False).leaves()
    z = torch.compile(ops.log_partition, backend="aot_eager", fullgraph=True)(*case)
    expected = torch.autograd.grad(ops.log_partition(*case).sum(), leaves)
    same(torch.autograd.grad(z.sum(), leaves), expected)


@pytest.mark.parametrize("spans", [None, "label", "one"])
def test_opcheck(spans, native):
    case, _ = sparse_pcfg(batch=(2,), n=3, spans=spans).leaves()
    potentials = (case.root, case.scores, case.unary, case.spans, case.index, case.lengths)
    depth = reference.sparse_pcfg.depth(case.index)
    flags = {"log_partition": (False,), "inside": (True,), "marginals": (True, 1), "max_marginals": (1,)}
    flags |= {"argmax": (depth,), "topk": (2, depth), "sample": (2, 7, depth)}
    for query, options in flags.items():
        given = [x.detach() if x is not None and query == "max_marginals" else x for x in potentials]
        torch.library.opcheck(getattr(torch.ops.structlv, f"sparse_pcfg_{query}").default, (*given, *options))


# ---- errors ----------------------------------------------------------------------------------------------


def expect(error, match, **changes):
    case = sparse_pcfg(n=3)._replace(**changes)
    for query in (ops.log_partition, ops.argmax, ops.marginals):
        with pytest.raises(error, match=match):
            query(*case)


def test_wrong_arguments(backend):
    case = sparse_pcfg(n=3)
    expect(
        ValueError,
        "without a cycle",
        index=torch.tensor([[0, 1, -1], [1, 0, -1]]),
        scores=torch.zeros(2).double(),
    )
    expect(ValueError, "without a cycle", index=torch.tensor([[2, 2, -1]]), scores=torch.zeros(1).double())
    expect(ValueError, "parents in 0..3", index=torch.tensor([[4, 0, 1]]), scores=torch.zeros(1).double())
    expect(ValueError, "children in 0..6", index=torch.tensor([[0, 7, 1]]), scores=torch.zeros(1).double())
    expect(ValueError, "children in 0..6", index=torch.tensor([[0, 1, -2]]), scores=torch.zeros(1).double())
    expect(ValueError, r"index: expected \(r, 3\)", index=case.index[:, :2])
    expect(TypeError, "index: expected dtype torch.int64", index=case.index.int())
    expect(ValueError, "scores: expected", scores=case.scores[1:])
    expect(TypeError, "scores: expected the dtype of unary", scores=case.scores.float())
    expect(ValueError, "root: expected", root=case.root[:0])
    expect(ValueError, "unary: expected", unary=case.unary[..., :0])
    expect(ValueError, "spans: expected", spans=torch.zeros(3, 3, 2).double())
    expect(ValueError, "lengths: expected", lengths=torch.tensor([1]))


def test_operators_check_for_themselves(native):
    root, scores, unary, spans, index, lengths = (sparse_pcfg(n=3)[i] for i in (0, 2, 3, 4, 1, 5))
    op = torch.ops.structlv.sparse_pcfg_log_partition
    for bad in (
        [[0, 1, -1], [1, 0, -1]],
        [[9, 0, 0], [0, 0, 0]],
        [[0, 0, -5], [0, 0, 0]],
        [[0, 2**40, 0], [0, 0, 0]],
    ):
        with pytest.raises(RuntimeError, match="index: expected"):
            op(root, scores[:2], unary, spans, torch.tensor(bad), lengths, False)
    argmax = torch.ops.structlv.sparse_pcfg_argmax
    with pytest.raises(RuntimeError, match="depth: expected"):
        argmax(root, scores, unary, spans, index, lengths, 99)


def test_rules_are_checked_when_they_are_made():
    zeros = torch.zeros(2)
    assert SparseRules(torch.tensor([[0, 1, -1], [1, 2, 2]]), zeros).depth == 1
    for rows, match in (
        ([[0, 1, 1], [0, 1, 1]], "every rule once"),
        ([[0, 1, -1], [1, 0, -1]], "without a cycle"),
        ([[0, 1, -1], [-1, 0, 0]], "symbols of 0 or more"),
    ):
        with pytest.raises(ValueError, match=match):
            SparseRules(torch.tensor(rows), zeros)
    with pytest.raises(ValueError, match="scores: expected"):
        SparseRules(torch.tensor([[0, 1, 1]]), zeros)
    with pytest.raises(TypeError, match="index: expected dtype"):
        SparseRules(torch.tensor([[0.0, 1.0, 1.0]]), torch.zeros(1))
