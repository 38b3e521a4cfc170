"""`structlv bench`: do the kernels of this machine compute what they should, and how fast?"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from torch import Tensor

from structlv.cli.info import facts, show
from structlv.cli.show import new_table, print_table
from structlv.distributions import LinearChain, TreePosterior

ROUNDS, SAMPLE_SECONDS = 7, 0.02
TOLERANCE = 1e-9


def run(console: Console, quick: bool) -> bool:
    """Print what this machine is, whether it is right, and how fast; returns whether it is right."""
    show(facts(), console)
    wrong = [name for name, error in errors().items() if not error <= TOLERANCE]
    console.print(
        f"\n[bold red]WRONG[/bold red]: {', '.join(wrong)}"
        if wrong
        else "\nChecked against sums over all structures: right.",
        highlight=False,
    )
    table = new_table("Milliseconds of a call, float32", "query", "size", "ms", right="ms")
    for query, size, call in cases(quick):
        table.add_row(query, size, f"{1e3 * seconds(call):.3f}")
    print_table(console, table)
    return not wrong


def errors() -> dict[str, float]:
    """Largest errors on small problems in float64, against sums over all sequences; and a count of trees."""
    generator = torch.Generator().manual_seed(0)
    unary, transition = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 3), (3, 3))
    )
    unary.requires_grad_()
    chain = LinearChain(unary, transition)
    paths = torch.tensor(list(itertools.product(range(3), repeat=5)))
    scores = unary.detach()[torch.arange(5), paths].sum(-1) + transition[paths[:, :-1], paths[:, 1:]].sum(-1)
    log_z = scores.logsumexp(0)
    share = (scores - log_z).exp()
    marginals = torch.einsum("p,ptk->tk", share, torch.nn.functional.one_hot(paths, 3).double())
    found = chain.log_partition()
    (gradient,) = torch.autograd.grad(found, unary)
    chain = chain.detach()
    trees = TreePosterior(
        torch.zeros(1).double(), torch.zeros(1, 2, 2).double(), torch.zeros(6, 1).double()
    ).log_count()
    return {
        "log Z of a chain": float((found.detach() - log_z).abs()),
        "its gradient": float((gradient - marginals).abs().max()),
        "its marginals": float((chain.marginals().unary - marginals).abs().max()),
        "its best sequence": float((chain.argmax() != paths[scores.argmax()]).sum()),
        "the number of trees": abs(float(trees.exp()) - 42.0),  # Catalan's, of 6 words
    }


def cases(quick: bool) -> list[tuple[str, str, Callable[[], object]]]:
    """Queries, sizes in words, calls."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(32, 50, 16)] if quick else [(32, 100, 32), (32, 100, 128), (1, 10000, 64)]
    found: list[tuple[str, str, Callable[[], object]]] = []
    for b, n, k in sizes:
        unary, transition = (torch.randn(*s, generator=generator) for s in ((b, n, k), (k, k)))
        size = f"{b} x {n} steps, {k} states"
        found += _chain_cases(size, unary, transition)
    return found


def _chain_cases(size: str, unary: Tensor, transition: Tensor) -> list[tuple[str, str, Callable[[], object]]]:
    chain = LinearChain(unary, transition)
    leaves = [x.clone().requires_grad_() for x in (unary, transition)]
    recorded = LinearChain(*leaves)
    return [
        ("log Z", size, chain.log_partition),
        ("and gradient", size, lambda: torch.autograd.grad(recorded.log_partition().sum(), leaves)),
        ("Viterbi", size, chain.argmax),
        ("sample", size, chain.sample),
    ]


def seconds(call: Callable[[], object]) -> float:
    """The median of a few samples, each of enough calls to last."""
    call()
    begun = time.perf_counter()
    call()
    count = max(1, int(SAMPLE_SECONDS / max(time.perf_counter() - begun, 1e-9)))
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(count):
            call()
        taken.append((time.perf_counter() - begun) / count)
    return statistics.median(taken)
