"""Known states and excluded ones of a linear chain, against enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.distributions import LinearChain
from tests.distributions.examples import chain_scores, chain_structures
from tests.distributions.laws import close
from tests.distributions.test_linear_chain import INF, potentials


def matching(d: LinearChain, keep: Any) -> Tensor:
    """log p(evidence) by enumeration."""
    events = chain_structures(d)
    log_p = chain_scores(d, events).log_softmax(0)
    chosen = torch.tensor([keep(event.tolist()) for event in events])
    return log_p[chosen].logsumexp(0) if chosen.any() else torch.tensor(-INF).double()


def test_conditions_add_the_log_probability_of_the_evidence() -> None:
    d = LinearChain(potentials(4, 3), potentials(3, 3), final=potentials(3))
    allowed = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1]]).bool()
    pairs = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]]).bool()
    ends = torch.tensor([True, False, True])
    steps = torch.stack([pairs, ~pairs, pairs.mT])
    cases = [
        (d.condition(states=torch.tensor([2, -1, 0, -1])), lambda z: z[0] == 2 and z[2] == 0),
        (d.condition(allowed=allowed), lambda z: all(allowed[t, s] for t, s in enumerate(z))),
        (
            d.condition(allowed_transitions=pairs),
            lambda z: all(pairs[a, b] for a, b in itertools.pairwise(z)),
        ),
        (
            d.condition(allowed_transitions=steps),
            lambda z: all(steps[t, a, b] for t, (a, b) in enumerate(itertools.pairwise(z))),
        ),
        (d.condition(allowed_initial=ends, allowed_final=ends), lambda z: ends[z[0]] and ends[z[-1]]),
        (d.condition(), lambda z: True),
    ]
    for conditioned, keep in cases:
        assert isinstance(conditioned, LinearChain)
        close(conditioned.log_partition() - d.log_partition(), matching(d, keep))
        assert all(keep(z.tolist()) for z in conditioned.sample((200,)))
        assert keep(conditioned.argmax().tolist())


def test_conditions_on_per_step_chains_and_batches() -> None:
    d = LinearChain(potentials(2, 4, 2), potentials(2, 3, 2, 2), lengths=torch.tensor([4, 2]))
    pairs = torch.tensor([[True, False], [True, True]])
    conditioned = d.condition(
        allowed_transitions=pairs, states=torch.tensor([[-1, 1, -1, -1], [0, -1, 9, 9]])
    )
    close(
        (conditioned.log_partition() - d.log_partition())[1],
        matching(d[1], lambda z: z[0] == 0 and pairs[z[0], z[1]]),
    )
    one = LinearChain(potentials(4, 2), potentials(3, 2, 2))
    many = one.condition(states=torch.tensor([[0, -1, -1, -1], [-1, -1, -1, 1], [-1] * 4]))
    assert many.batch_shape == (3,)
    close(many.log_partition()[0] - one.log_partition(), matching(one, lambda z: z[0] == 0))


def test_contradictory_evidence_leaves_nothing() -> None:
    unary = potentials(3, 2).requires_grad_()
    d = LinearChain(unary, potentials(2, 2)).condition(allowed=torch.zeros(3, 2, dtype=torch.bool))
    assert d.log_partition() == -INF
    assert d.entropy() == 0
    assert bool((d.sample((2,)) == -1).all())
    assert bool((torch.autograd.grad(d.marginals().unary.sum() + d.entropy(), unary)[0] == 0).all())


@pytest.mark.parametrize(
    ("evidence", "error", "message"),
    [
        ({"states": torch.zeros(2).long()}, ValueError, r"states must have shape \(\*b, n\)"),
        ({"states": torch.zeros(3)}, TypeError, "states must be a tensor of integers"),
        ({"states": torch.tensor([0, 2, 0])}, ValueError, "states must be in -1..1"),
        ({"allowed": torch.ones(3, 2)}, TypeError, "allowed must be a bool tensor"),
        ({"allowed": torch.ones(2, 2).bool()}, ValueError, r"allowed must have shape \(\*b, n, k\)"),
        ({"allowed_transitions": torch.ones(3, 3).bool()}, ValueError, "allowed_transitions must have shape"),
        ({"allowed_initial": torch.ones(3).bool()}, ValueError, "allowed_initial must have shape"),
        ({"allowed_final": torch.ones(2)}, TypeError, "allowed_final must be a bool"),
    ],
)
def test_wrong_evidence(evidence: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LinearChain(torch.zeros(3, 2), torch.zeros(2, 2)).condition(**evidence)
