"""Known constituents and excluded ones, against enumeration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.distributions import BinaryTree, TreePosterior
from tests.distributions.laws import close
from tests.distributions.test_trees import INF, NT, T, grammar, potentials
from tests.distributions.tree_cases import binary_scores, binary_structures, tree_scores, tree_structures

Rows = set[tuple[int, int, int]]


def spans_of(rows: Rows) -> set[tuple[int, int]]:
    return {(i, j) for i, j, _ in rows}


def matching(d: Any, keep: Callable[[Rows], bool]) -> Tensor:
    """log p(evidence) by enumeration."""
    binary = isinstance(d, BinaryTree)
    events = (binary_structures if binary else tree_structures)(d)
    log_p = (binary_scores if binary else tree_scores)(d, events).log_softmax(0)
    chosen = torch.tensor([keep({tuple(row) for row in event}) for event in events.tolist()])
    return log_p[chosen].logsumexp(0) if chosen.any() else torch.tensor(-INF).double()


ALLOWED = torch.rand(4, 4, generator=torch.Generator().manual_seed(3)) < 0.7
LABELLED = torch.rand(4, 4, NT, generator=torch.Generator().manual_seed(5)) < 0.8
ALLOWED[0, 3] = LABELLED[0, 3, 0] = True

CASES: list[tuple[dict[str, Tensor], Callable[[Rows], bool]]] = [
    ({"spans": torch.tensor([[1, 2]])}, lambda z: (1, 2) in spans_of(z)),
    ({"spans": torch.tensor([[1, 3], [2, 3], [-1, -1]])}, lambda z: {(1, 3), (2, 3)} <= spans_of(z)),
    ({"spans": torch.tensor([[0, 3], [2, 2]])}, lambda z: True),
    ({"spans": torch.tensor([[0, 1, 1], [-1, 9, 9]])}, lambda z: (0, 1, 1) in z),
    ({"spans": torch.tensor([[0, 2, -1], [0, 3, 0]])}, lambda z: (0, 2) in spans_of(z) and (0, 3, 0) in z),
    ({"spans": torch.tensor([[1, 1, 3], [0, 0, 2]])}, lambda z: {(1, 1, 3), (0, 0, 2)} <= z),
    ({"spans": torch.tensor([[0, 1], [1, 2]])}, lambda z: False),
    ({"spans": torch.tensor([[0, 1, 2]])}, lambda z: False),  # a preterminal over two words
    ({"spans": torch.tensor([[1, 1, 0]])}, lambda z: False),  # a nonterminal over one
    ({"spans": torch.tensor([[0, 1, 0], [0, 1, 1]])}, lambda z: False),
    ({"allowed": ALLOWED}, lambda z: all(ALLOWED[i, j] for i, j in spans_of(z) if i < j)),
    ({"allowed": LABELLED}, lambda z: all(LABELLED[i, j, a] for i, j, a in z if i < j)),
    (
        {"spans": torch.tensor([[2, 3]]), "allowed": LABELLED},
        lambda z: (2, 3) in spans_of(z) and all(LABELLED[i, j, a] for i, j, a in z if i < j),
    ),
    ({}, lambda z: True),
]


@pytest.mark.parametrize("scored", [None, True])
@pytest.mark.parametrize(("evidence", "keep"), CASES, ids=range(len(CASES)))
def test_evidence_adds_its_log_probability(
    evidence: dict[str, Tensor], keep: Callable[[Rows], bool], scored: bool | None
) -> None:
    d = grammar(spans=scored)
    conditioned = d.condition(**evidence)
    assert isinstance(conditioned, TreePosterior)
    close(conditioned.log_partition() - d.log_partition(), matching(d, keep))
    if conditioned.log_partition() > -INF:
        for event in (conditioned.argmax(), *conditioned.sample((50,))):
            assert keep({tuple(row) for row in event.tolist()})  # type: ignore[misc]


BINARY: list[tuple[dict[str, Tensor], Callable[[Rows], bool]]] = [
    ({"spans": torch.tensor([[1, 2]])}, lambda z: (1, 2) in spans_of(z)),
    ({"spans": torch.tensor([[0, 1, 1], [2, 2, 0]])}, lambda z: {(0, 1, 1), (2, 2, 0)} <= z),
    ({"spans": torch.tensor([[0, 1], [1, 2]])}, lambda z: False),
    (
        {"allowed": ALLOWED[:3, :3] | torch.eye(3).bool()},
        lambda z: all(ALLOWED[i, j] or i == j for i, j in spans_of(z)),
    ),
    ({"allowed": LABELLED[:3, :3]}, lambda z: all(LABELLED[i, j, a] for i, j, a in z)),
]


@pytest.mark.parametrize(("evidence", "keep"), BINARY, ids=range(len(BINARY)))
def test_evidence_on_labelled_binary_trees(evidence: dict[str, Tensor], keep: Callable[[Rows], bool]) -> None:
    d = BinaryTree(potentials(3, 3, NT))
    conditioned = d.condition(**evidence)
    close(conditioned.log_partition() - d.log_partition(), matching(d, keep))
    assert conditioned.log_partition() == -INF or keep({tuple(r) for r in conditioned.argmax().tolist()})  # type: ignore


def test_evidence_on_binary_trees_without_labels() -> None:
    d = BinaryTree(potentials(4, 4))
    close(
        d.condition(spans=torch.tensor([[1, 3]])).log_partition() - d.log_partition(),
        matching(d, lambda z: (1, 3) in spans_of(z)),
    )
    one = BinaryTree(potentials(1, 1)).condition(allowed=torch.zeros(1, 1, dtype=torch.bool))
    assert one.log_partition() == -INF
    assert bool((one.sample((3,)) == -1).all())


def test_evidence_of_each_item_makes_a_batch() -> None:
    one = grammar()
    rows = torch.tensor([[[1, 2]], [[0, 1]], [[-1, -1]]])
    many = one.condition(spans=rows)
    assert many.batch_shape == (3,)
    close(many.log_partition()[2], one.log_partition())
    close(many.log_partition()[1] - one.log_partition(), matching(one, lambda z: (0, 1) in spans_of(z)))
    ragged = grammar(2, lengths=torch.tensor([4, 3]))
    known = ragged.condition(spans=torch.tensor([[[2, 3]], [[1, 2]]]), allowed=torch.ones(2, 4, 4).bool())
    close(
        known.log_partition()[1] - ragged.log_partition()[1],
        matching(ragged[1], lambda z: (1, 2) in spans_of(z)),
    )


def test_rules_stay_shared_and_gradients_finite() -> None:
    unary = potentials(2, 4, T).requires_grad_()
    d = grammar(unary=unary)
    known = d.condition(spans=torch.tensor([[1, 2, 0]]))
    assert known.rules.data_ptr() == d.rules.data_ptr()  # type: ignore[attr-defined]
    nothing = d.condition(spans=torch.tensor([[0, 1], [1, 2]]))
    for value in (known.log_partition(), known.entropy(), nothing.entropy(), nothing.span_marginals()):
        (grad,) = torch.autograd.grad(value.sum(), unary, retain_graph=True)
        assert bool(grad.isfinite().all())
    assert bool((nothing.span_marginals() == 0).all())


@pytest.mark.parametrize(
    ("evidence", "error", "message"),
    [
        ({"spans": torch.zeros(1, 4).long()}, ValueError, r"spans must have shape \(\*b, m, 2\)"),
        ({"spans": torch.zeros(1, 2)}, TypeError, "spans must be a tensor of integers"),
        ({"spans": torch.tensor([[2, 1]])}, ValueError, "spans must be rows 0 <= i <= j < length"),
        ({"spans": torch.tensor([[2, 4]])}, ValueError, "spans must be rows"),
        ({"spans": torch.tensor([[-2, 1]])}, ValueError, "spans must be rows"),
        ({"spans": torch.tensor([[1, 2, 4]])}, ValueError, "symbols of spans must be in -1..3"),
        ({"allowed": torch.ones(4, 4)}, TypeError, "allowed must be a bool tensor"),
        ({"allowed": torch.ones(3, 3).bool()}, ValueError, r"allowed must have shape \(\*b, 4, 4\)"),
        ({"allowed": torch.ones(2, 4, 4).bool()}, ValueError, r"\(\*b, 4, 4, 2\).*found \(2, 4, 4\)"),
    ],
)
def test_wrong_evidence(evidence: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grammar().condition(**evidence)


def test_unchecked_spans_out_of_place_leave_nothing() -> None:
    d = grammar(2, lengths=torch.tensor([4, 2]), validate_args=False)
    known = d.condition(spans=torch.tensor([[[1, 2]], [[1, 2]]]))
    assert known.log_partition()[0].isfinite()
    assert known.log_partition()[1] == -INF
