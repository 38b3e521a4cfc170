"""What is particular to the linear chain; the laws are in ``test_laws.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from structlv.distributions import LinearChain, StateSequence
from tests.distributions.choice import Choice
from tests.distributions.examples import chain_scores, chain_structures
from tests.distributions.laws import close

INF = float("inf")


def potentials(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- arguments ------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"unary": torch.zeros(3)}, ValueError, r"unary must have shape \(\*b, n, k\), found \(3,\)"),
    ({"unary": torch.zeros(2, 3, 0)}, ValueError, "at least one state"),
    ({"unary": [[0.0]]}, TypeError, "unary must be a torch.Tensor, found list"),
    ({"unary": torch.zeros(2, 3, 2).long()}, TypeError, "unary must be a floating-point tensor, found dtype"),
    (
        {"transition": torch.zeros(3, 3)},
        ValueError,
        r"transition must have shape \(\*b, k, k\).*found \(3, 3\)",
    ),
    ({"transition": torch.zeros(2)}, ValueError, r"transition must have shape .*found \(2,\)"),
    ({"transition": torch.zeros(2, 3, 2, 2)}, ValueError, r"transition must have shape \(\*b, n-1, k, k\)"),
    ({"transition": torch.zeros(1, 2, 2, 2, 2)}, ValueError, "at most one dimension more than unary"),
    ({"transition": torch.zeros(5, 2, 2)}, ValueError, r"batch shapes.*transition \(5,\)"),
    ({"transition": torch.zeros(2, 2).double()}, TypeError, "float32.*float64"),
    ({"initial": torch.zeros(3)}, ValueError, r"initial must have shape \(\*b, k\)"),
    ({"final": torch.zeros(())}, ValueError, "final must have shape"),
    (
        {"final": torch.zeros(2, device="meta")},
        ValueError,
        "final must be on the device of unary, cpu, found meta",
    ),
    ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, "lengths must be a tensor of integers"),
    ({"lengths": [3, 3]}, TypeError, "lengths must be a torch.Tensor, found list"),
    ({"lengths": torch.tensor([3, 4])}, ValueError, r"lengths must be in 0..3, found values from 3 to 4"),
    ({"lengths": torch.tensor([-1, 3])}, ValueError, "lengths must be in 0..3"),
    ({"lengths": torch.tensor([1, 2, 3])}, ValueError, r"batch shapes.*lengths \(3,\)"),
    ({"unary": torch.full((2, 3, 2), torch.nan)}, ValueError, "NaN in unary"),
    ({"transition": torch.full((2, 2), torch.nan)}, ValueError, "NaN in transition"),
    ({"initial": torch.full((2,), torch.nan)}, ValueError, "NaN in initial"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"unary": torch.zeros(2, 3, 2), "transition": torch.zeros(2, 2)}
    with pytest.raises(error, match=message):
        LinearChain(**{**good, **wrong})


def test_values_are_not_checked_when_told_not_to() -> None:
    unary = torch.zeros(2, 3, 2)
    d = LinearChain(unary, torch.zeros(2, 2), lengths=torch.tensor([7, -2]), validate_args=False)
    close(d.log_partition(), torch.tensor([8.0, 1.0]).log())
    LinearChain(unary * torch.nan, torch.zeros(2, 2), validate_args=False)


def test_the_default_of_validation_is_our_own() -> None:
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with pytest.raises(ValueError, match="NaN"):
            LinearChain(torch.full((2, 2), torch.nan), torch.zeros(2, 2))
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)
    LinearChain.set_default_validate_args(False)
    try:
        LinearChain(torch.full((2, 2), torch.nan), torch.zeros(2, 2))
        assert torch.distributions.Distribution._validate_args
    finally:
        LinearChain.set_default_validate_args(True)
    with pytest.raises(ValueError, match="True or False"):
        LinearChain.set_default_validate_args(3)  # type: ignore[arg-type]


def test_lengths_of_any_integer_type() -> None:
    d = LinearChain(torch.zeros(2, 3, 2), torch.zeros(2, 2), lengths=torch.tensor([3, 1], dtype=torch.int32))
    assert d.lengths is not None
    assert d.lengths.dtype == torch.int64


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        (torch.zeros(2, 4).long(), ValueError, "event must have shape"),
        (torch.zeros(3, 3).long(), ValueError, "batch shapes"),
        (torch.zeros(2, 3), TypeError, "tensor of integers"),
        (torch.full((2, 3), 2), ValueError, r"states must be in -1..1, found values from 2 to 2"),
        (torch.full((2, 3), -2), ValueError, "states must be in"),
        ([[0, 0, 0]], TypeError, "torch.Tensor"),
    ],
)
def test_wrong_events(event: Any, error: type[Exception], message: str) -> None:
    d = LinearChain(torch.zeros(2, 3, 2), torch.zeros(2, 2))
    for query in (d.log_prob, d.score, d.to_parts):
        with pytest.raises(error, match=message):
            query(event)


def test_other_wrong_arguments() -> None:
    d = LinearChain(torch.zeros(2, 3, 2), torch.zeros(2, 2))
    for k in (0, -1, 1.5):
        with pytest.raises(ValueError, match="k must be a positive integer"):
            d.topk(k)  # type: ignore[arg-type]
    for t in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            d.with_temperature(t)
        with pytest.raises(ValueError, match="temperature must be positive"):
            d.with_temperature(torch.tensor([1.0, t]))
    with pytest.raises(TypeError, match="LinearChain"):
        d.kl(torch.distributions.Normal(0.0, 1.0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected another LinearChain, found Choice"):
        torch.distributions.kl_divergence(d, Choice(torch.zeros(3)))
    with pytest.raises(ValueError, match="event shape"):
        d.kl(LinearChain(torch.zeros(2, 4, 2), torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="number of states"):
        d.kl(LinearChain(torch.zeros(2, 3, 3), torch.zeros(3, 3)))
    with pytest.raises(ValueError, match="same lengths"):
        d.kl(LinearChain(torch.zeros(2, 3, 2), torch.zeros(2, 2), lengths=torch.tensor([3, 2])))
    with pytest.raises(ValueError, match="parts"):
        d.expectation((torch.zeros(2, 3, 2),))


def test_torch_distributions_grammar() -> None:
    d = LinearChain(potentials(2, 1, 5, 3), potentials(4, 3, 3))
    assert isinstance(d, torch.distributions.Distribution)
    assert d.batch_shape == (2, 4)
    assert d.event_shape == (5,)
    assert d.sample().shape == (2, 4, 5)
    assert d.sample((3, 2)).shape == (3, 2, 2, 4, 5)
    assert d.sample(torch.Size([0])).shape == (0, 2, 4, 5)
    assert d.log_prob(d.sample((3,))).shape == (3, 2, 4)
    assert d.has_rsample
    assert isinstance(d.support, StateSequence)
    assert d.arg_constraints["unary"].check(d.unary).all()
    close(d.perplexity(), d.entropy().exp())
    assert "LinearChain(batch_shape: (2, 4), event_shape: (5,), unary: (2, 4, 5, 3)" in repr(d)


# ---- layout ---------------------------------------------------------------------------------------


def test_indexing() -> None:
    d = LinearChain(
        potentials(2, 3, 4, 2),
        potentials(2, 2),
        initial=potentials(3, 2),
        lengths=torch.tensor([[4, 1, 0], [2, 3, 4]]),
    )
    log_z = d.log_partition()
    for index in (
        1,
        -1,
        (0, 2),
        slice(1),
        (slice(None), 1),
        (..., 0),
        (None, 0),
        [1, 0],
        torch.tensor([1, 1, 0]),
    ):
        close(d[index].log_partition(), log_z[index])
    mask = torch.tensor([[True, False, True], [False, True, True]])
    close(d[mask].log_partition(), log_z[mask])
    assert d[0].transition is not None
    assert d[0].transition.data_ptr() == d.transition.data_ptr()
    for wrong in ((0, 0, 0), 5, (0, 3)):
        with pytest.raises(IndexError):
            d[wrong]
    with pytest.raises(IndexError):
        d[0, 0][0]
    assert [x.batch_shape for x in d] == [(3,), (3,)]


def test_moving_and_detaching() -> None:
    unary = potentials(2, 3, 2).requires_grad_()
    d = LinearChain(unary, potentials(2, 2), lengths=torch.tensor([3, 2]))
    single = d.to(torch.float32)
    assert single.unary.dtype == single.transition.dtype == torch.float32
    assert single.lengths is not None
    assert single.lengths.dtype == torch.int64
    assert single.log_partition().requires_grad
    assert not d.detach().log_partition().requires_grad
    assert d.unary is unary
    assert d.to("cpu").unary.device.type == "cpu"
    meta = d.to("meta")
    assert meta.unary.device.type == "meta"


def test_derived_distributions_keep_their_validation() -> None:
    d = LinearChain(potentials(2, 3, 2), potentials(2, 2), validate_args=False)
    for other in (
        d[0],
        d.expand((2, 2)),
        d.detach(),
        d.to(torch.float32),
        d.with_temperature(2.0),
        d.condition(),
    ):
        assert other._validate_args is False


def test_expand_keeps_per_step_transitions_per_step() -> None:
    d = LinearChain(potentials(4, 2), potentials(3, 2, 2), final=potentials(2))
    grown = d.expand((3, 2))
    close(grown.log_partition(), d.log_partition().expand(3, 2))
    assert grown.marginals().transition.shape == (3, 2, 3, 2, 2)
    close(grown[1, 0].log_partition(), d.log_partition())


def test_a_batch_that_comes_from_another_argument() -> None:
    """Unary (n, k) with a batch in initial: a per-step transition stays per step."""
    d = LinearChain(potentials(3, 2), potentials(2, 2, 2), initial=potentials(5, 2))
    assert d.batch_shape == (5,)
    for i in range(5):
        alone = LinearChain(d.unary[0], potentials(2, 2, 2), initial=potentials(5, 2)[i])
        close(d[i].log_partition(), alone.log_partition())
        close(d.log_partition()[i], alone.log_partition())


@pytest.mark.parametrize("per_step", [False, True])
def test_padding_changes_nothing(per_step: bool) -> None:
    n, k, extra = 4, 3, 3
    unary, final = potentials(2, n, k), potentials(k)
    transition = potentials(2, n - 1, k, k) if per_step else potentials(k, k)
    short = LinearChain(unary, transition, final=final)
    padded = torch.cat([unary, torch.full((2, extra, k), torch.nan, dtype=torch.float64)], 1)
    if per_step:
        junk = torch.full((2, extra, k, k), INF, dtype=torch.float64)
        transition = torch.cat([transition, junk], 1)
    long = LinearChain(padded, transition, final=final, lengths=torch.tensor([n, n]))
    close(long.log_partition(), short.log_partition())
    close(long.entropy(), short.entropy())
    close(long.kl(long.with_temperature(2.0)), short.kl(short.with_temperature(2.0)))
    close(long.marginals().unary[:, :n], short.marginals().unary)
    assert bool((long.marginals().unary[:, n:] == 0).all())
    assert torch.equal(long.argmax()[:, :n], short.argmax())
    assert bool((long.argmax()[:, n:] == -1).all())
    draws = [d.sample((50,), generator=torch.Generator().manual_seed(1)) for d in (long, short)]
    assert torch.equal(draws[0][..., :n], draws[1])
    close(long.log_prob(draws[0]), short.log_prob(draws[1]))
    junk_event = draws[0].masked_fill(draws[0] == -1, 77)
    close(long.log_prob(junk_event), short.log_prob(draws[1]))


def test_the_other_items_of_a_batch_change_nothing() -> None:
    one = LinearChain(potentials(1, 4, 3), potentials(3, 3))
    many = LinearChain(torch.cat([one.unary, potentials(5, 4, 3, seed=1) * 50]), one.transition)
    assert torch.equal(one.log_partition(), many.log_partition()[:1])
    generator = torch.Generator()
    draws = [d.sample((30,), generator=generator.manual_seed(2))[:, :1] for d in (one, many)]
    assert torch.equal(*draws)


def test_permuting_states_permutes_everything() -> None:
    unary, transition, initial = potentials(2, 4, 3), potentials(3, 3), potentials(3)
    order = torch.tensor([2, 0, 1])
    d = LinearChain(unary, transition, initial=initial)
    p = LinearChain(unary[..., order], transition[order][:, order], initial=initial[order])
    close(p.log_partition(), d.log_partition())
    close(p.marginals().unary, d.marginals().unary[..., order])
    assert torch.equal(order[p.argmax()], d.argmax())


@pytest.mark.parametrize("shift", [1e5, -1e5])
def test_shifts_move_the_log_partition_alone(shift: float) -> None:
    unary, transition = potentials(2, 5, 3), potentials(3, 3)
    d, moved = LinearChain(unary, transition), LinearChain(unary + shift, transition)
    close(moved.log_partition(), d.log_partition() + 5 * shift)
    torch.testing.assert_close(moved.marginals().unary, d.marginals().unary, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.entropy(), d.entropy(), rtol=0, atol=1e-8)


def test_reversing_a_chain_transposes_it() -> None:
    unary, transition, initial, final = (
        potentials(5, 3),
        potentials(3, 3),
        potentials(3),
        potentials(3, seed=1),
    )
    d = LinearChain(unary, transition, initial=initial, final=final)
    r = LinearChain(unary.flip(0), transition.mT, initial=final, final=initial)
    close(r.log_partition(), d.log_partition())
    close(r.marginals().unary.flip(0), d.marginals().unary)
    close(r.marginals().transition.mT, d.marginals().transition)


# ---- queries --------------------------------------------------------------------------------------


def test_edge_marginals_are_always_per_step() -> None:
    d = LinearChain(potentials(2, 4, 3), potentials(3, 3), lengths=torch.tensor([4, 2]))
    edges = d.edge_marginals()
    assert edges.shape == (2, 3, 3, 3)
    close(edges.sum(1), d.marginals().transition)
    close(edges[0].sum(-1), d.marginals().unary[0, :-1])
    stepwise = LinearChain(d.unary, d.transition.expand(1, 3, 3, 3), lengths=d.lengths)
    close(stepwise.marginals().transition, edges)


def test_state_marginals_are_the_first_of_the_marginals() -> None:
    d = LinearChain(potentials(2, 4, 3), potentials(3, 3), lengths=torch.tensor([4, 2]))
    close(d.state_marginals(), d.marginals().unary)
    weights = potentials(2, 4, 3, seed=1)
    d.unary.requires_grad_()
    both = d.state_marginals(), d.marginals().unary
    alone, among = (torch.autograd.grad((weights * x).sum(), d.unary)[0] for x in both)
    close(alone, among)


def test_layouts_can_be_compared() -> None:
    shared = LinearChain(potentials(2, 4, 3), potentials(3, 3), initial=potentials(3))
    steps = LinearChain(potentials(2, 4, 3, seed=1), potentials(2, 3, 3, 3))
    same = LinearChain(shared.unary, shared.transition.expand(1, 3, 3, 3), initial=shared.initial)
    assert bool((shared.kl(same).abs() < 1e-12).all())
    for p, q in ((shared, steps), (steps, shared)):
        for i in range(2):
            events = chain_structures(p[i])
            a, b = chain_scores(p[i], events).log_softmax(0), chain_scores(q[i], events).log_softmax(0)
            close(p.kl(q)[i], (a.exp() * (a - b)).sum())
    one = LinearChain(potentials(4, 3, seed=2), potentials(3, 3))
    close(shared.kl(one)[1], shared[1].kl(one))
    close(one.kl(shared)[1], one.kl(shared[1]))


def test_divergence_is_infinite_without_gradient_where_q_forbids() -> None:
    unary, transition = potentials(2, 3, 2).requires_grad_(), potentials(2, 2).requires_grad_()
    theirs = potentials(2, 3, 2, seed=1)
    theirs[0, 1, 1] = -INF
    theirs.requires_grad_()
    p, q = LinearChain(unary, transition), LinearChain(theirs, transition)
    for divergence in (p.kl(q), p.cross_entropy(q)):
        assert divergence[0] == INF
        assert divergence[1].isfinite()
        for grad in torch.autograd.grad(divergence[0], (unary, theirs), retain_graph=True):
            assert bool((grad == 0).all())
    assert q.kl(p).isfinite().all()


def test_divergence_sees_what_underflows() -> None:
    """p gives e^-2000 to what q forbids: probability 0 in float64, yet possible."""
    p = LinearChain(torch.tensor([[0.0, -2000.0], [0.0, 0.0]]).double(), torch.zeros(2, 2).double())
    q = p.condition(states=torch.tensor([0, -1]))
    assert p.kl(q) == INF
    assert q.kl(p).isfinite()


def test_infinite_parts_make_infinite_expectations_only_where_they_can_occur() -> None:
    d = LinearChain(potentials(2, 3, 2), potentials(2, 2)).condition(states=torch.tensor([0, -1, -1]))
    rewards = torch.zeros(3, 2).double()
    rewards[0, 1] = -INF
    assert bool((d.expectation((rewards, None)) == 0).all())
    rewards[1, 1] = -INF
    assert bool((d.expectation((rewards, None)) == -INF).all())
    with pytest.raises(ValueError, match="only None"):
        d.expectation((None, None))


def test_a_product_of_independent_steps_has_the_sum_of_their_entropies() -> None:
    unary = potentials(6, 4)
    d = LinearChain(unary, torch.zeros(4, 4).double())
    steps = torch.distributions.Categorical(logits=unary)
    close(d.entropy(), steps.entropy().sum())
    other = potentials(6, 4, seed=1)
    kl = torch.distributions.kl_divergence(steps, torch.distributions.Categorical(logits=other)).sum()
    close(d.kl(LinearChain(other, d.transition)), kl)


def test_differences_of_large_numbers_survive_single_precision() -> None:
    """Potentials of 1e4 and one sequence that has it all: entropy and log_prob 0, not the rounding of 1e6."""
    unary = torch.zeros(100, 2)
    unary[:, 0] = 1e4
    d = LinearChain(unary, torch.zeros(2, 2))
    close(d.entropy(), torch.tensor(0.0))
    close(d.log_prob(d.argmax()), torch.tensor(0.0))
    assert d.kl(d) == 0


def test_posterior_decoding_minimises_expected_errors() -> None:
    unary, transition = potentials(2, 4, 3) * 2, potentials(3, 3) * 2
    d = LinearChain(unary, transition, lengths=torch.tensor([4, 2]))
    decoded = d.posterior_decode()
    for i in range(2):
        events = chain_structures(d[i])
        p = d[i].log_prob(events).exp()
        risk = ((events.unsqueeze(0) != events.unsqueeze(1)).sum(-1) * p).sum(1)
        assert torch.equal(events[risk.argmin()], decoded[i])
    impossible = LinearChain(torch.full((3, 2), -INF), torch.zeros(2, 2))
    assert bool((impossible.posterior_decode() == -1).all())


def test_filtering_does_not_look_ahead() -> None:
    unary, transition, initial = potentials(2, 5, 3), potentials(3, 3), potentials(3)
    d = LinearChain(unary, transition, initial=initial, final=potentials(3, seed=3))
    filtered = d.filter()
    for t in range(5):
        prefix = LinearChain(unary[:, : t + 1], transition, initial=initial)
        close(filtered[:, t].exp(), prefix.marginals().unary[:, -1])


def test_ties_go_to_the_lowest_index() -> None:
    d = LinearChain(torch.zeros(3, 4, 3), torch.zeros(3, 3))
    assert bool((d.argmax() == 0).all())
    assert bool((d.posterior_decode() == 0).all())


def test_states_of_minus_one_are_no_structure() -> None:
    d = LinearChain(potentials(3, 2), potentials(2, 2))
    assert d.log_prob(torch.tensor([0, -1, 1])) == -INF
    assert d.score(torch.tensor([-1, -1, -1])) == -INF


def test_maxima_have_the_best_structure_as_gradient() -> None:
    unary = potentials(2, 4, 3).requires_grad_()
    d = LinearChain(unary, potentials(3, 3))
    (grad,) = torch.autograd.grad(d.max().sum(), unary)
    close(grad, d.to_parts(d.argmax()).unary)
    scores, events = d.topk(3)
    (grad,) = torch.autograd.grad(scores[2].sum(), unary)
    close(grad, d.to_parts(events[2]).unary)


@pytest.mark.parametrize("query", ["max_marginals"])
def test_what_is_not_differentiable_says_so(query: str) -> None:
    unary = potentials(3, 2).requires_grad_()
    result = getattr(LinearChain(unary, potentials(2, 2)), query)()[0]
    if result.requires_grad:
        with pytest.raises(NotImplementedError, match="differentia"):
            result.sum().backward()


def test_lengths_zero_and_one_and_no_steps() -> None:
    empty = LinearChain(torch.zeros(2, 0, 3), torch.zeros(3, 3), initial=torch.ones(3))
    assert bool((empty.log_partition() == 0).all())
    assert bool((empty.entropy() == 0).all())
    assert bool((empty.log_count() == 0).all())
    assert empty.argmax().shape == (2, 0)
    assert bool((empty.log_prob(empty.argmax()) == 0).all())
    scores, events = empty.topk(2)
    assert scores.tolist() == [[0, 0], [-INF, -INF]]
    assert events.shape == (2, 2, 0)
    one = LinearChain(potentials(1, 3), potentials(3, 3), initial=potentials(3), final=potentials(3))
    close(one.log_partition(), (potentials(1, 3)[0] + 2 * potentials(3)).logsumexp(-1))
    assert LinearChain(torch.zeros(0, 3, 2), torch.zeros(2, 2)).log_partition().shape == (0,)
