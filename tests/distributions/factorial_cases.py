"""Examples of factorial chains, and what enumeration needs of them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from structlv.distributions import FactorialChain, FactorialHMM, LogLinearCategorical

INF = float("inf")


def factorial_chain(lengths: Tensor | None = None, **named: Tensor) -> FactorialChain:
    """Of ``unary`` or ``unary_0``, ``unary_1``, ..; ``transition_0``, ..; ``initial_0``, .."""

    def group(name: str) -> list[Tensor]:
        return [named[key] for key in sorted(named) if key.startswith(f"{name}_")]

    unary: Any = named["unary"] if "unary" in named else group("unary")
    return FactorialChain(unary, group("transition"), initial=group("initial") or None, lengths=lengths)


def factorial_posterior(**named: Tensor) -> FactorialChain:
    """Of a factorial HMM with symbols, from ragged observations of which some are missing."""
    x = torch.tensor([[0, 3, 1], [2, 2, -1]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    parts = [[named[f"{name}_{i}"] for i in range(2)] for name in ("initial", "transition", "logits")]
    hmm = FactorialHMM(parts[0], parts[1], LogLinearCategorical(parts[2]))
    return hmm.posterior(x, torch.tensor([3, 2]), mask)


def factorial_structures(d: FactorialChain) -> Tensor:
    """All states (., m, n) of an item: joint states in lexicographic order of the steps, padded with -1."""
    n = d.event_shape[-1]
    length = n if d.lengths is None else int(d.lengths)
    joint = list(itertools.product(*(range(k) for k in d.sizes)))
    rows = [
        [[*(step[i] for step in steps), *[-1] * (n - length)] for i in range(len(d.sizes))]
        for steps in itertools.product(joint, repeat=length)
    ]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), len(d.sizes), n)


def factorial_scores(d: FactorialChain, events: Tensor) -> Tensor:
    total = torch.zeros(len(events), dtype=torch.float64)
    length = int((events[0, 0] >= 0).sum())
    for t in range(length):
        now = tuple(events[:, :, t].unbind(-1))
        if isinstance(d.unary, Tensor):
            total = total + d.unary[(t, *now)].double()
        for i, state in enumerate(now):
            if not isinstance(d.unary, Tensor):
                total = total + d.unary[i][t, state].double()
            if t == 0 and d.initial is not None:
                total = total + d.initial[i][state].double()
            if t + 1 < length:
                total = total + d.transition[i][state, events[:, i, t + 1]].double()
    return total


def forbid_jointly(made: dict[str, Any]) -> None:
    """Some parts are impossible; item 1 has one structure only, item 2 none; padding is NaN."""
    made["transition_1"][0, 1] = made["initial_0"][1] = -INF
    made["unary"][0, 1, 0, 1] = -INF
    made["unary"][1, :, 1:] = made["unary"][1, :, :, 1:] = -INF
    made["unary"][2, 1] = -INF
    made["unary"][0, 2] = float("nan")
    made["lengths"] = torch.tensor([2, 3, 3])


def forbid_separately(made: dict[str, Any]) -> None:
    """Some parts are impossible; item 1 has one structure only, item 2 none, for its last chain; padding is
    NaN.
    """
    made["transition_1"][0, 1] = made["initial_0"][1] = -INF
    made["unary_0"][0, 1, 0] = -INF
    made["unary_0"][1, :, 1:] = made["unary_1"][1, :, 1:] = -INF
    made["unary_1"][2, 1] = -INF
    made["unary_0"][0, 2] = float("nan")
    made["lengths"] = torch.tensor([2, 3, 3])
