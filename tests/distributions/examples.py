"""One table of structured distributions. A new one adds a line to ``EXAMPLES``, and every law runs on it.

An example says how to make its parameters (from a seed), how to build the distribution from them, and, for
the oracle, what the structures of one item are and how they are scored: by indexing, without the library.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from structlv.distributions import (
    HMM,
    PCFG,
    BinaryTree,
    LinearChain,
    LowRankRules,
    StructuredDistribution,
    TreePosterior,
)
from tests.distributions.choice import Choice, choice_scores, choice_structures
from tests.distributions.factorial_cases import (
    factorial_chain,
    factorial_posterior,
    factorial_scores,
    factorial_structures,
    forbid_jointly,
    forbid_separately,
)
from tests.distributions.tree_cases import (
    BINARY_RULES,
    RULES,
    UNARY_RULES,
    binary_scores,
    binary_structures,
    lowrank_scores,
    sparse_scores,
    sparse_structures,
    sparse_trees,
    tree_scores,
    tree_structures,
)

INF = float("inf")
Parameters = dict[str, Tensor | None]


@dataclass(frozen=True)
class Example:
    """One structured distribution, small enough to enumerate.

    Attributes:
        name: of the example.
        parameters: float64 tensors (and integer ones) from a seed.
        build: the distribution over them.
        structures: all events (m, *event) of an unbatched distribution.
        scores: float64 scores (m) of events of an unbatched distribution, differentiable.
        invertible: whether the parts of a structure say which it is.
    """

    name: str
    parameters: Callable[[int], Parameters]
    build: Callable[..., StructuredDistribution]
    structures: Callable[[Any], Tensor]
    scores: Callable[[Any, Tensor], Tensor]
    invertible: bool = True

    def make(
        self, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any
    ) -> StructuredDistribution:
        return self.build(**cast(self.parameters(seed), dtype), **options)


def cast(parameters: Parameters, dtype: torch.dtype) -> Parameters:
    return {
        name: value.to(dtype) if value is not None and value.is_floating_point() else value
        for name, value in parameters.items()
    }


def chain_structures(d: LinearChain) -> Tensor:
    """Every sequence of states of one chain, in lexicographic order, padded with -1."""
    n, k = d.unary.shape
    length = n if d.lengths is None else int(d.lengths)
    rows = [(*z, *[-1] * (n - length)) for z in itertools.product(range(k), repeat=length)]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), n)


def chain_scores(d: LinearChain, events: Tensor) -> Tensor:
    total = torch.zeros(len(events), dtype=torch.float64)
    length = int((events[0] >= 0).sum())
    for t in range(length):
        total = total + d.unary[t, events[:, t]].double()
        if t + 1 < length:
            matrix = d.transition[t] if d.transition.dim() == 3 else d.transition
            total = total + matrix[events[:, t], events[:, t + 1]].double()
    if length and d.initial is not None:
        total = total + d.initial[events[:, 0]].double()
    if length and d.final is not None:
        total = total + d.final[events[:, length - 1]].double()
    return total


def randoms(seed: int, **shapes: tuple[int, ...]) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()
    }


def chain(
    name: str, edit: Callable[[Parameters], None] = lambda _: None, **shapes: tuple[int, ...]
) -> Example:
    def parameters(seed: int) -> Parameters:
        made = randoms(seed, **shapes)
        edit(made)
        return made

    return Example(name, parameters, LinearChain, chain_structures, chain_scores)


def with_lengths(*lengths: int) -> Callable[[Parameters], None]:
    def edit(made: Parameters) -> None:
        made["lengths"] = torch.tensor(lengths)

    return edit


def forbid(made: Parameters) -> None:
    """Some parts are impossible; item 1 has one structure only, item 2 none."""
    made["transition"][0, 1] = -INF  # type: ignore[index]
    made["unary"][0, 1, 2] = -INF  # type: ignore[index]
    made["unary"][1, :, 1:] = -INF  # type: ignore[index]
    made["unary"][2, 2] = -INF  # type: ignore[index]
    made["initial"][1] = -INF  # type: ignore[index]


def forbid_steps(made: Parameters) -> None:
    made["transition"][0, 1, 0] = -INF  # type: ignore[index]
    made["transition"][1, 0, :, 0] = -INF  # type: ignore[index]
    made["lengths"] = torch.tensor([4, 3])


def padding_of_nan(made: Parameters) -> None:
    """Whatever is stored past the end of a chain changes nothing."""
    made["lengths"] = torch.tensor([2, 4, 0])
    made["unary"][0, 2:] = float("nan")  # type: ignore[index]
    made["unary"][2] = float("nan")  # type: ignore[index]
    made["transition"][0, 1:] = float("nan")  # type: ignore[index]
    made["transition"][2] = INF  # type: ignore[index]


def posterior(
    initial: Tensor, transition: Tensor, emission: Tensor, final: Tensor | None = None
) -> LinearChain:
    """Of an HMM with symbols, from ragged observations of which some are missing."""
    x = torch.tensor([[0, 3, 1, 2], [2, 2, -1, -1]])
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    hmm = HMM(initial, transition, emission, final_logits=final)
    return hmm.posterior(x, torch.tensor([4, 2]), mask)


def hmm(name: str, **shapes: tuple[int, ...]) -> Example:
    return Example(name, lambda seed: randoms(seed, **shapes), posterior, chain_structures, chain_scores)


def choice(made: Parameters) -> Parameters:
    made["options"][0, 1] = -INF  # type: ignore[index]
    made["options"][1] = -INF  # type: ignore[index]
    return made


def trees(
    name: str, edit: Callable[[Parameters], None] = lambda _: None, **shapes: tuple[int, ...]
) -> Example:
    def parameters(seed: int) -> Parameters:
        made = randoms(seed, **shapes)
        edit(made)
        return made

    return Example(name, parameters, TreePosterior, tree_structures, tree_scores)


def listed(
    name: str,
    edit: Callable[[Parameters], None] = lambda _: None,
    rules: Any = RULES,
    **shapes: tuple[int, ...],
) -> Example:
    def parameters(seed: int) -> Parameters:
        made = randoms(seed, **shapes)
        edit(made)
        return made

    return Example(name, parameters, sparse_trees(rules), sparse_structures, sparse_scores, invertible=False)


def forbid_listed(made: Parameters) -> None:
    """Some rules and spans are impossible; item 1 has no tree; its padding is NaN."""
    made["scores"][0, 3] = -INF  # type: ignore[index]
    made["spans"][0, 0, 1] = -INF  # type: ignore[index]
    made["unary"][1, 1] = -INF  # type: ignore[index]
    made["unary"][1, 2] = float("nan")  # type: ignore[index]
    made["lengths"] = torch.tensor([3, 2])


def forbid_symbols(made: Parameters) -> None:
    """Some rules, and nonterminals over some spans, are impossible; what no tree looks at is NaN."""
    made["lengths"] = torch.tensor([3, 2, 0])
    made["scores"][0, 3] = made["root"][1, 2] = -INF  # type: ignore[index]
    made["spans"][0, 0, 1, 0] = made["spans"][0, 1, 2, 1] = -INF  # type: ignore[index]
    made["spans"].diagonal(dim1=1, dim2=2)[:] = float("nan")  # type: ignore[union-attr]
    for name in ("unary", "spans"):
        made[name][2] = float("nan")  # type: ignore[index]


def parses(root: Tensor, rules: Tensor, emission: Tensor) -> TreePosterior:
    """Of a PCFG, from ragged sentences with a missing word."""
    x = torch.tensor([[0, 3, 1], [2, 2, -1]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    return PCFG(root, rules, emission).posterior(x, torch.tensor([3, 2]), mask)


def forbid_trees(made: Parameters) -> None:
    """Some parts are impossible; item 1 has one tree only, item 2 none."""
    made["rules"][0, 1, 2] = -INF  # type: ignore[index]
    made["spans"][0, 0, 1] = -INF  # type: ignore[index]
    made["unary"][0, 1, 1] = -INF  # type: ignore[index]
    made["root"][1, 1] = made["spans"][1, 1, 2] = -INF  # type: ignore[index]
    made["unary"][1, :, 1] = -INF  # type: ignore[index]
    made["spans"][1, 0, 1, 0] = -INF  # type: ignore[index]
    made["unary"][2, 2] = -INF  # type: ignore[index]


def sentences_of_nan(made: Parameters) -> None:
    """Whatever is stored past the end of a sentence, or where no span is, changes nothing."""
    made["lengths"] = torch.tensor([2, 3, 1])
    made["unary"][0, 2:] = float("nan")  # type: ignore[index]
    made["unary"][2, 1:] = float("nan")  # type: ignore[index]
    made["spans"][0, :, 2] = INF  # type: ignore[index]
    made["spans"][2] = float("nan")  # type: ignore[index]
    made["spans"].diagonal(dim1=1, dim2=2)[:] = float("nan")  # type: ignore[union-attr]


def low_rank(
    name: str, edit: Callable[[Parameters], None] = lambda _: None, **shapes: tuple[int, ...]
) -> Example:
    """Of rules ``head``, ``left``, ``right``; or, without a head, of independent children."""

    def parameters(seed: int) -> Parameters:
        made = randoms(seed, **shapes)
        edit(made)
        return made

    def build(
        root: Tensor, left: Tensor, right: Tensor, unary: Tensor, head: Tensor | None = None, **options: Any
    ) -> TreePosterior:
        return TreePosterior(root, LowRankRules(head, left, right), unary, **options)

    return Example(name, parameters, build, tree_structures, lowrank_scores)


def forbid_ranks(made: Parameters) -> None:
    """Some parts are impossible; item 1 has one tree only, item 2 none."""
    made["head"][0, 1] = made["left"][2, 0] = made["right"][1, 3] = -INF  # type: ignore[index]
    made["spans"][0, 0, 1, 0] = -INF  # type: ignore[index]
    made["root"][1, 1] = made["spans"][1, 1, 2] = -INF  # type: ignore[index]
    made["unary"][1, :, 1] = -INF  # type: ignore[index]
    made["spans"][1, 0, 1, 0] = -INF  # type: ignore[index]
    made["unary"][2, 2] = -INF  # type: ignore[index]


def binary(
    name: str, *shape: int, edit: Callable[[Parameters], None] = lambda _: None, labelled: bool = False
) -> Example:
    def parameters(seed: int) -> Parameters:
        made = randoms(seed, span_scores=shape)
        edit(made)
        return made

    build = functools.partial(BinaryTree, labelled=labelled)
    return Example(name, parameters, build, binary_structures, binary_scores)


def forbid_spans(made: Parameters) -> None:
    """Item 1 has one tree only, item 2 none; what lies below the diagonal changes nothing."""
    made["span_scores"][0, 0, 1] = -INF  # type: ignore[index]
    made["span_scores"][1, 1, 2] = -INF  # type: ignore[index]
    made["span_scores"][2, 0, 2] = -INF  # type: ignore[index]
    made["span_scores"][:, 2, 0] = float("nan")  # type: ignore[index]


def forbid_labels(made: Parameters) -> None:
    """Some labels are impossible, in item 2 all of the one word; padding is NaN."""
    made["lengths"] = torch.tensor([3, 2, 1])
    made["span_scores"][0, 0, 1, 0] = made["span_scores"][1, 0, 0, 1] = -INF  # type: ignore[index]
    made["span_scores"][2, 0, 0] = -INF  # type: ignore[index]
    made["span_scores"][1, :, 2] = float("nan")  # type: ignore[index]


def factorial(
    name: str, edit: Callable[[Parameters], None] = lambda _: None, **shapes: tuple[int, ...]
) -> Example:
    def parameters(seed: int) -> Parameters:
        made = randoms(seed, **shapes)
        edit(made)
        return made

    return Example(name, parameters, factorial_chain, factorial_structures, factorial_scores)


EXAMPLES = [
    Example(
        "choice", lambda seed: choice(randoms(seed, options=(3, 4))), Choice, choice_structures, choice_scores
    ),
    chain("one chain", unary=(4, 3), transition=(3, 3)),
    chain("shared transition", unary=(3, 4, 3), transition=(3, 3)),
    chain("transition of each item", unary=(2, 4, 3), transition=(2, 3, 3), initial=(3,), final=(2, 3)),
    chain("ragged", with_lengths(4, 2, 0, 1), unary=(4, 4, 2), transition=(2, 2), initial=(2,), final=(4, 2)),
    chain("per step", with_lengths(4, 3), unary=(2, 4, 3), transition=(2, 3, 3, 3), initial=(2, 3)),
    chain("per step, shared", unary=(2, 4, 2), transition=(1, 3, 2, 2), final=(2,)),
    chain("two batch dimensions", unary=(2, 2, 3, 2), transition=(2, 1, 2, 2), initial=(1, 2, 2)),
    chain("unary shared over the batch", unary=(4, 2), transition=(2, 2), initial=(3, 2)),
    chain("length 1", unary=(2, 1, 3), transition=(3, 3), initial=(3,), final=(3,)),
    chain("length 1, per step", unary=(2, 1, 3), transition=(2, 0, 3, 3)),
    chain("length 0", unary=(2, 0, 3), transition=(3, 3), initial=(3,)),
    chain("one state", unary=(2, 4, 1), transition=(1, 1)),
    chain("forbidden parts", forbid, unary=(3, 4, 3), transition=(3, 3), initial=(3,)),
    chain("forbidden steps", forbid_steps, unary=(2, 4, 2), transition=(2, 3, 2, 2)),
    chain("padding of NaN", padding_of_nan, unary=(3, 4, 2), transition=(3, 3, 2, 2)),
    hmm("HMM posterior", initial=(3,), transition=(3, 3), emission=(3, 4)),
    hmm("HMM posterior that stops", initial=(2,), transition=(3, 2, 2), emission=(2, 4), final=(2,)),
    trees("one sentence", root=(1,), rules=(1, 3, 3), unary=(4, 2)),
    trees("shared rules", root=(2,), rules=(2, 4, 4), unary=(3, 3, 2)),
    trees("rules of each item", root=(2, 2), rules=(2, 2, 3, 3), unary=(2, 4, 1)),
    trees(
        "sentences of several lengths", with_lengths(3, 2, 0, 1), root=(2,), rules=(2, 4, 4), unary=(4, 3, 2)
    ),
    trees("spans", with_lengths(3, 2), root=(2,), rules=(2, 4, 4), unary=(2, 3, 2), spans=(2, 3, 3, 2)),
    trees("spans of any symbol", root=(2,), rules=(1, 2, 3, 3), unary=(2, 3, 1), spans=(3, 3, 1)),
    trees("forbidden trees", forbid_trees, root=(3, 2), rules=(2, 4, 4), unary=(3, 3, 2), spans=(3, 3, 3, 2)),
    trees(
        "sentences of NaN", sentences_of_nan, root=(2,), rules=(2, 3, 3), unary=(3, 3, 1), spans=(3, 3, 3, 2)
    ),
    trees("grammars in two batch dimensions", root=(2, 1, 2), rules=(2, 2, 3, 3), unary=(1, 2, 2, 1)),
    trees("sentences of one word", root=(2,), rules=(2, 4, 4), unary=(2, 1, 2), spans=(1, 1, 2)),
    trees("no words", root=(2,), rules=(2, 4, 4), unary=(2, 0, 2)),
    low_rank("rank 2", root=(1,), head=(1, 2), left=(2, 3), right=(2, 3), unary=(4, 2)),
    low_rank(
        "shared ranks, several lengths",
        with_lengths(3, 2, 0, 1),
        root=(2,),
        head=(2, 3),
        left=(3, 4),
        right=(3, 4),
        unary=(4, 3, 2),
    ),
    low_rank(
        "ranks of each item, spans",
        root=(2, 2),
        head=(2, 2, 3),
        left=(2, 3, 3),
        right=(1, 3, 3),
        unary=(2, 3, 1),
        spans=(3, 3, 2),
    ),
    low_rank(
        "forbidden ranks",
        forbid_ranks,
        root=(3, 2),
        head=(2, 3),
        left=(3, 4),
        right=(3, 4),
        unary=(3, 3, 2),
        spans=(3, 3, 3, 2),
    ),
    low_rank(
        "independent children",
        with_lengths(3, 2),
        root=(2,),
        left=(2, 2, 4),
        right=(2, 4),
        unary=(2, 3, 2),
        spans=(3, 3, 1),
    ),
    low_rank(
        "ranks of NaN",
        sentences_of_nan,
        root=(2,),
        head=(2, 2),
        left=(2, 3),
        right=(2, 3),
        unary=(3, 3, 1),
        spans=(3, 3, 3, 2),
    ),
    low_rank("ranks without words", root=(2,), head=(2, 1), left=(1, 4), right=(1, 4), unary=(2, 1, 2)),
    Example(
        "PCFG posterior",
        lambda seed: randoms(seed, root=(2,), rules=(2, 4, 4), emission=(2, 2, 4)),
        parses,
        tree_structures,
        tree_scores,
    ),
    listed("listed rules", root=(3,), scores=(9,), unary=(4, 2)),
    listed("listed rules, ragged", with_lengths(3, 1, 0), root=(3, 3), scores=(9,), unary=(3, 3, 2)),
    listed("listed rules of each item", root=(3,), scores=(2, 9), unary=(2, 3, 2), spans=(2, 3, 3, 3)),
    listed(
        "listed binary rules", rules=BINARY_RULES, root=(1,), scores=(4,), unary=(2, 4, 2), spans=(4, 4, 1)
    ),
    listed(
        "forbidden listed rules", forbid_listed, root=(3,), scores=(2, 9), unary=(2, 3, 2), spans=(2, 3, 3, 1)
    ),
    listed(
        "listed rules, forbidden symbols",
        forbid_symbols,
        root=(3, 3),
        scores=(3, 9),
        unary=(3, 3, 2),
        spans=(3, 3, 3, 3),
    ),
    listed(
        "mostly unary rules",
        with_lengths(3, 1),
        rules=UNARY_RULES,
        root=(3,),
        scores=(1, 8),
        unary=(2, 3, 2),
        spans=(2, 3, 3, 1),
    ),
    listed("listed rules over one word", root=(3,), scores=(2, 9), unary=(2, 1, 2), spans=(1, 1, 3)),
    listed("listed rules without words", root=(3,), scores=(9,), unary=(2, 0, 2), spans=(0, 0, 1)),
    binary("binary tree", 4, 4),
    binary("ragged binary trees", 4, 4, 4, edit=with_lengths(4, 2, 0, 1)),
    binary("forbidden spans", 3, 3, 3, edit=forbid_spans),
    binary("labelled binary tree", 3, 3, 2, labelled=True),
    binary("ragged labelled binary trees", 4, 3, 3, 2, edit=with_lengths(3, 1, 0, 2), labelled=True),
    binary("forbidden labels", 3, 3, 3, 2, edit=forbid_labels, labelled=True),
    binary("binary trees of one word", 2, 1, 1, 3, labelled=True),
    binary("binary trees of no words", 2, 0, 0),
    factorial("two chains", unary=(3, 2, 3), transition_0=(2, 2), transition_1=(3, 3)),
    factorial(
        "three chains, ragged",
        with_lengths(2, 0, 1),
        unary=(3, 2, 2, 3, 2),
        transition_0=(3, 2, 2),
        transition_1=(1, 3, 3),
        transition_2=(2, 2),
        initial_0=(2,),
        initial_1=(3, 3),
        initial_2=(2,),
    ),
    factorial(
        "joint scores shared over the batch", unary=(2, 2, 2), transition_0=(2, 2), transition_1=(2, 2, 2)
    ),
    factorial(
        "forbidden joint scores",
        forbid_jointly,
        unary=(3, 3, 2, 2),
        transition_0=(2, 2),
        transition_1=(2, 2),
        initial_0=(2,),
        initial_1=(2,),
    ),
    Example(
        "factorial HMM posterior",
        lambda seed: randoms(
            seed,
            initial_0=(2,),
            initial_1=(2, 2),
            transition_0=(2, 2),
            transition_1=(2, 2),
            logits_0=(2, 4),
            logits_1=(2, 2, 4),
        ),
        factorial_posterior,
        factorial_structures,
        factorial_scores,
    ),
    factorial("one factorial chain", unary=(2, 3, 3), transition_0=(3, 3), initial_0=(2, 3)),
    factorial("factorial chains of no steps", unary=(2, 0, 2, 3), transition_0=(2, 2), transition_1=(3, 3)),
    factorial(
        "scores of each chain",
        with_lengths(3, 1, 0),
        unary_0=(3, 3, 2),
        unary_1=(3, 3),
        transition_0=(2, 2),
        transition_1=(3, 3, 3),
        initial_0=(3, 2),
        initial_1=(3,),
    ),
    factorial(
        "forbidden scores of each chain",
        forbid_separately,
        unary_0=(3, 3, 2),
        unary_1=(3, 3, 2),
        transition_0=(2, 2),
        transition_1=(2, 2),
        initial_0=(2,),
        initial_1=(2,),
    ),
    factorial(
        "three separate chains",
        **{f"unary_{i}": (2, 2) for i in range(3)},
        **{f"transition_{i}": (2, 2) for i in range(3)},
    ),
    factorial(
        "separate chains of no steps",
        unary_0=(2, 0, 2),
        unary_1=(2, 0, 3),
        transition_0=(2, 2),
        transition_1=(3, 3),
    ),
]
BY_NAME = {example.name: example for example in EXAMPLES}
