"""The hidden Markov model, against sums over all sequences of states."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor
from torch.autograd import gradcheck

from structlv.distributions import HMM, LinearChain
from tests.distributions.laws import chi_square, close

INF = float("inf")
K, V = 3, 4


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(**changes: Any) -> HMM:
    return HMM(
        **{
            "initial_logits": logits(K),
            "transition_logits": logits(K, K),
            "emission": logits(K, V),
            **changes,
        }
    )


def emit(hmm: HMM, x: Tensor) -> Tensor:
    """log p(x_t | z_t) (n, k) of one sequence under an unbatched HMM, one observation at a time."""
    if isinstance(hmm.emission, Tensor):
        return (
            torch.stack([hmm.emission[:, symbol] for symbol in x]) if len(x) else hmm.emission.new_zeros(0, K)
        )
    return torch.stack([hmm.emission.log_prob(value) for value in x])


def brute(hmm: HMM, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """log p(x) of one sequence: the sum over all sequences of states."""
    n, k = len(x), hmm.initial_logits.shape[-1]
    if n == 0:
        return torch.tensor(0.0).double()
    seen = torch.ones(n, dtype=torch.bool) if mask is None else mask
    scores = emit(hmm, x)
    total = []
    for z in itertools.product(range(k), repeat=n):
        score = hmm.initial_logits[z[0]]
        for t in range(n):
            score = score + scores[t, z[t]] if seen[t] else score
            if t + 1 < n:
                step = hmm.transition_logits if hmm.transition_logits.dim() == 2 else hmm.transition_logits[t]
                score = score + step[z[t], z[t + 1]]
        if hmm.final_logits is not None:
            stop = hmm.final_logits if hmm.final_logits.dim() == 1 else hmm.final_logits[n - 1]
            score = score + stop[z[-1]]
        total.append(score)
    return torch.stack(total).logsumexp(0)


EMISSIONS: dict[str, Callable[[], Any]] = {
    "symbols": lambda: logits(K, V),
    "Normal": lambda: td.Normal(logits(K), logits(K, seed=1).exp()),
    "Independent Normal": lambda: td.Independent(td.Normal(logits(K, 2), logits(K, 2, seed=1).exp()), 1),
    "MultivariateNormal": lambda: td.MultivariateNormal(logits(K, 2), torch.eye(2).double().expand(K, 2, 2)),
    "Poisson": lambda: td.Poisson(logits(K).exp()),
    "mixture": lambda: td.MixtureSameFamily(
        td.Categorical(logits=logits(K, 2)), td.Normal(logits(K, 2, seed=1), torch.ones(K, 2).double())
    ),
    "mixture of vectors": lambda: td.MixtureSameFamily(
        td.Categorical(logits=logits(K, 2)),
        td.Independent(td.Normal(logits(K, 2, 3, seed=1), torch.ones(K, 2, 3).double()), 1),
    ),
    "Categorical": lambda: td.Categorical(logits=logits(K, V)),
    "Bernoulli": lambda: td.Independent(td.Bernoulli(logits=logits(K, 4)), 1),
    "Gamma": lambda: td.Gamma(logits(K).exp(), logits(K, seed=1).exp()),
    "Dirichlet": lambda: td.Dirichlet(logits(K, 3).exp()),
    "Multinomial": lambda: td.Multinomial(5, logits=logits(K, 3)),
    "one-hot": lambda: td.OneHotCategorical(logits=logits(K, 3)),
    "VonMises": lambda: td.VonMises(logits(K), logits(K, seed=1).exp()),
    "LogNormal": lambda: td.LogNormal(logits(K), logits(K, seed=1).exp()),
    "Uniform of each state": lambda: td.Uniform(
        torch.tensor([0.0, 1, 2]).double(), torch.tensor([3.0, 4, 5]).double(), validate_args=False
    ),
    "NegativeBinomial": lambda: td.NegativeBinomial(3.0, logits=logits(K)),
}


@pytest.mark.parametrize("family", EMISSIONS)
def test_every_emission_family_equals_brute_force(family: str) -> None:
    hmm = plain(emission=EMISSIONS[family]())
    x, states = hmm.sample((4,), 4, with_states=True)
    assert x.shape == (4, 4, *hmm.event_shape)
    assert states.shape == (4, 4)
    for i in range(4):
        close(hmm.log_prob(x)[i], brute(hmm, x[i]))
        close(hmm.posterior(x).log_prob(states)[i], hmm.posterior(x[i]).log_prob(states[i]))


@pytest.mark.parametrize("family", EMISSIONS)
def test_what_is_missing_is_summed_over_whatever_is_stored_there(family: str) -> None:
    emission = EMISSIONS[family]()
    hmm = plain(emission=emission)
    x = hmm.sample((2,), 5)
    mask = torch.tensor([[True, False, True, True, True], [True] * 5])
    lengths = torch.tensor([4, 5])
    junk = x.clone()
    hidden = ~mask
    hidden[0, 4] = True
    junk[hidden] = -7 if not x.is_floating_point() else torch.nan
    leaves = [hmm.initial_logits.clone().requires_grad_(), hmm.transition_logits.clone().requires_grad_()]
    leaves += [p.requires_grad_() for p in _tensors(emission)]
    hmm = HMM(*leaves[:2], emission)
    found = hmm.log_prob(junk, lengths, mask)
    close(found[0], brute(hmm, x[0, :4], mask[0, :4]))
    close(found[1], brute(hmm, x[1]))
    for grad in torch.autograd.grad(found.sum(), leaves, allow_unused=True):
        assert grad is None or bool(grad.isfinite().all())


def _tensors(emission: Any) -> list[Tensor]:
    """The leaves of an emission."""
    if isinstance(emission, Tensor):
        return [emission]
    return [
        v for v in vars(emission).values() if isinstance(v, Tensor) and v.is_floating_point() and v.is_leaf
    ]


def test_an_observation_can_have_a_gradient_that_missing_ones_do_not() -> None:
    x = logits(3).requires_grad_()
    mask = torch.tensor([True, False, True])
    hmm = plain(emission=EMISSIONS["Normal"]())
    (grad,) = torch.autograd.grad(hmm.log_prob(x, mask=mask), x)
    assert grad[1] == 0
    assert bool((grad[[0, 2]] != 0).all())


def test_ragged_batches_equal_their_sequences() -> None:
    hmm = plain()
    x = torch.tensor([[0, 1, 2, 3], [3, 2, -1, 99], [1, -1, -1, -1], [-1, -1, -1, -1]])
    lengths = torch.tensor([4, 2, 1, 0])
    for i, length in enumerate(lengths.tolist()):
        close(hmm.log_prob(x, lengths)[i], brute(hmm, x[i, :length]))


@pytest.mark.parametrize("per_step", [False, True])
def test_stopping_is_one_more_outcome_of_every_row(per_step: bool) -> None:
    transition = logits(2, K, K) if per_step else logits(K, K)
    hmm = plain(transition_logits=transition, final_logits=logits(K, seed=2))
    x = torch.cartesian_prod(*[torch.arange(V)] * 3)
    for i in (0, 17, 63):
        close(hmm.log_prob(x)[i], brute(hmm, x[i]))
    rows = hmm.transition_logits.exp().sum(-1)
    stop = hmm.final_logits[:-1] if per_step else hmm.final_logits
    close(rows + stop.exp(), torch.ones_like(rows))
    if per_step:
        # after the last transition only stopping is left: sequences of 1 to 3 symbols are all there are
        total = hmm.log_prob(x).exp().sum()
        for n in (1, 2):
            total = (
                total + hmm.log_prob(torch.cartesian_prod(*[torch.arange(V)] * n).reshape(-1, n)).exp().sum()
            )
        close(total, torch.tensor(1.0))
        ragged = torch.tensor([[0, 1, 2], [0, 1, -1]])
        close(hmm.log_prob(ragged, torch.tensor([3, 2]))[1], hmm.log_prob(ragged[1, :2]))


def test_without_a_stop_the_sequences_of_each_length_sum_to_one() -> None:
    for n in (1, 2, 3):
        x = torch.cartesian_prod(*[torch.arange(V)] * n).reshape(-1, n)
        close(plain().log_prob(x).exp().sum(), torch.tensor(1.0))


def test_transitions_per_step() -> None:
    hmm = plain(transition_logits=logits(3, K, K))
    x = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 1]])
    for n in (4, 3, 1):
        close(hmm.log_prob(x[:, :n])[0], brute(hmm, x[0, :n]))
    with pytest.raises(ValueError, match=r"x: 5 observations need 4 transitions, but .* there are 3"):
        hmm.log_prob(torch.zeros(2, 5).long())
    batch = HMM(logits(2, K), logits(2, 3, K, K), logits(K, V))
    for i in range(2):
        close(batch.log_prob(x)[i], brute(batch[i], x[i]))
    shared = HMM(logits(2, K), logits(1, 3, K, K), logits(2, K, V))
    for i in range(2):
        close(shared.log_prob(x)[i], brute(shared[i], x[i]))


def test_batches_of_models_and_of_observations() -> None:
    hmm = HMM(logits(2, 1, K), logits(3, K, K), logits(2, 3, K, V), final_logits=logits(3, K))
    assert hmm.batch_shape == (2, 3)
    x = torch.randint(0, V, (5, 2, 3, 4))
    found = hmm.log_prob(x)
    assert found.shape == (5, 2, 3)
    for index in itertools.product(range(5), range(2), range(3)):
        close(found[index], brute(hmm[index[1:]], x[index]))
    close(hmm.log_prob(x[0, 0, 0]), torch.stack([hmm[i].log_prob(x[0, 0, 0]) for i in range(2)]))
    normal = HMM(logits(K), logits(K, K), td.Normal(logits(4, K), torch.ones(4, K).double()))
    series = logits(4, 5)
    for i in range(4):
        one = HMM(logits(K), logits(K, K), td.Normal(logits(4, K)[i], 1.0 + torch.zeros(K).double()))
        close(normal.log_prob(series)[i], brute(one, series[i]))


def test_parameters_are_normalised_and_impossible_rows_stay_impossible() -> None:
    transition, initial, table = logits(K, K), logits(K), logits(K, V)
    transition[1] = -INF
    table[2] = -INF
    initial[0] = -INF
    leaves = [t.requires_grad_() for t in (initial, transition, table)]
    hmm = HMM(*leaves)
    close(hmm.initial_logits.exp().sum(), torch.tensor(1.0))
    close(hmm.transition_logits.exp().sum(-1), torch.tensor([1.0, 0.0, 1.0]))
    close(hmm.emission.exp().sum(-1), torch.tensor([1.0, 1.0, 0.0]))
    x = torch.tensor([[0, 1, 2], [0, 3, 3]])
    close(hmm.log_prob(x)[0], torch.tensor(-INF))  # state 1 leads nowhere, state 2 emits nothing
    for grad in torch.autograd.grad(hmm.log_prob(x[:, :1]).sum() + hmm.log_prob(x).sum(), leaves):
        assert bool(grad.isfinite().all())


def test_gradients_reach_all_parameters() -> None:
    x, lengths = torch.tensor([[0, 1, 2], [3, 3, 0]]), torch.tensor([3, 2])
    point = tuple(t.requires_grad_() for t in (logits(K), logits(K, K), logits(K, V), logits(K, seed=5)))
    assert gradcheck(lambda i, t, e, f: HMM(i, t, e, final_logits=f).log_prob(x, lengths), point)
    series = logits(2, 3).requires_grad_()
    mean = logits(K, seed=6).requires_grad_()

    def gaussian(mean: Tensor, series: Tensor) -> Tensor:
        hmm = HMM(logits(K), logits(K, K), td.Normal(mean, 1.0))
        return hmm.log_prob(series, lengths, torch.tensor([[True, False, True], [True, True, True]]))

    assert gradcheck(gaussian, (mean, series))


# ---- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"transition_logits": logits(2, K, K)},
        {"final_logits": logits(K, seed=3)},
        {"emission": td.Categorical(logits=logits(K, V))},
    ],
    ids=["plain", "per step", "stops", "Distribution"],
)
def test_samples_have_the_joint_law(changes: dict[str, Any]) -> None:
    hmm = plain(**changes)
    x = hmm.sample((6000,), length=3, generator=torch.Generator().manual_seed(1))
    every = torch.cartesian_prod(*[torch.arange(V)] * 3)
    p = hmm.log_prob(every).softmax(0)
    counts = (x.long().unsqueeze(1) == every).all(-1).double().sum(0)
    chi_square(counts, p * len(x))


def test_samples_of_batches_are_of_their_own_models() -> None:
    table = torch.full((2, 2, 4), -INF).double()
    for item, state in itertools.product(range(2), range(2)):
        table[item, state, 2 * item + state] = 0.0  # the symbol says which item and state emitted it
    hmm = HMM(torch.zeros(2).double(), torch.zeros(2, 2).double(), table)
    x, states = hmm.sample((5, 3), 4, with_states=True)
    assert x.shape == states.shape == (5, 3, 2, 4)
    assert torch.equal(x, states + torch.tensor([0, 2]).reshape(2, 1))
    means = torch.tensor([[0.0, 100.0], [200.0, 300.0]]).double()
    y, states = HMM(torch.zeros(2).double(), torch.zeros(2, 2).double(), td.Normal(means, 0.1)).sample(
        (5, 3), 4, with_states=True
    )
    torch.testing.assert_close(
        y, (states * 100 + torch.tensor([0, 200]).reshape(2, 1)).double(), atol=1, rtol=0
    )


def test_a_generator_fixes_the_samples_and_nothing_else_is_disturbed() -> None:
    for hmm in (plain(), plain(emission=EMISSIONS["Normal"]())):
        before = torch.get_rng_state()
        draws = [hmm.sample((3,), 5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
        assert not torch.equal(hmm.sample((3,), 5), hmm.sample((3,), 5))
        assert hmm.sample((2,), 0).shape == (2, 0)


def test_the_length_of_a_sample() -> None:
    with pytest.raises(ValueError, match="needs length"):
        plain().sample()
    assert plain(transition_logits=logits(3, K, K)).sample().shape == (4,)
    with pytest.raises(ValueError, match="length 6 need 5 transitions"):
        plain(transition_logits=logits(3, K, K)).sample((), 6)
    with pytest.raises(ValueError, match="non-negative"):
        plain().sample((), -1)


# ---- arguments ------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"initial_logits": torch.zeros(()).double()}, ValueError, r"initial_logits must have shape \(\*b, k\)"),
    ({"initial_logits": torch.zeros(0).double()}, ValueError, "k >= 1"),
    (
        {"initial_logits": torch.zeros(3)},
        TypeError,
        "initial_logits torch.float32, transition_logits torch.float64",
    ),
    ({"transition_logits": logits(K, K + 1)}, ValueError, r"transition_logits must have shape \(\*b, k, k\)"),
    ({"transition_logits": logits(1, 1, 1, K, K)}, ValueError, "at most two dimensions more"),
    ({"final_logits": logits(K + 1)}, ValueError, "final_logits must have shape"),
    ({"emission": logits(K)}, ValueError, r"emission must have shape \(\*b, k, v\)"),
    ({"emission": logits(K + 1, V)}, ValueError, "with k = 3"),
    ({"emission": logits(K, 0)}, ValueError, "v >= 1"),
    ({"emission": td.Normal(logits(K + 1), 1.0)}, ValueError, r"batch shape \(\*b, k\), k = 3, found \(4,\)"),
    ({"emission": "words"}, TypeError, "emission must be a tensor of logits or a Distribution, found str"),
    (
        {"initial_logits": logits(2, K), "emission": logits(5, K, V)},
        ValueError,
        "batch shapes must broadcast",
    ),
    ({"transition_logits": logits(K, K) * torch.nan}, ValueError, "transition_logits must not be NaN"),
    ({"emission": logits(K, V) * torch.nan}, ValueError, "emission must not be NaN"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_parameters(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plain(**wrong)


X = torch.tensor([[0, 1, 2], [3, 0, 1]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.double(),), TypeError, "x must be a tensor of integers"),
        (([[0]],), TypeError, "x must be a torch.Tensor, found list"),
        ((torch.tensor(1),), ValueError, "x must have shape"),
        ((X + 1,), ValueError, "x must be in 0..3, found values from 1 to 4"),
        ((X, torch.tensor([3, 4])), ValueError, "lengths must be in 0..3"),
        ((X, torch.tensor([3.0, 2.0])), TypeError, "lengths must be a tensor of integers"),
        ((X, torch.tensor([3, 2, 1])), ValueError, "batch shapes must broadcast"),
        ((X, None, torch.ones(2, 3)), TypeError, "mask must be a bool tensor"),
        ((X, None, torch.ones(2, 2).bool()), ValueError, r"mask must have shape \(\*b, n\)"),
        ((X.to("meta"),), ValueError, "x must be on the device of initial_logits"),
    ],
)
def test_wrong_observations(arguments: Any, error: type[Exception], message: str) -> None:
    for query in (plain().log_prob, plain().filter, plain().posterior):
        with pytest.raises(error, match=message):
            query(*arguments)


def test_observations_of_a_distribution_are_checked_too() -> None:
    hmm = plain(emission=EMISSIONS["Independent Normal"]())
    with pytest.raises(ValueError, match=r"event_shape \(2,\), found \(4, 3\)"):
        hmm.log_prob(logits(4, 3))
    series = logits(4, 2)
    series[1, 0] = torch.nan
    with pytest.raises(ValueError, match="x must not be NaN where it is observed"):
        hmm.log_prob(series)
    assert hmm.log_prob(series, mask=torch.tensor([True, False, True, True])).isfinite()


# ---- as a distribution ----------------------------------------------------------------------------


def test_torch_distributions_grammar() -> None:
    hmm = HMM(logits(2, K), logits(K, K), logits(K, V))
    assert isinstance(hmm, td.Distribution)
    assert hmm.batch_shape == (2,)
    assert hmm.event_shape == ()
    assert isinstance(hmm.posterior(X), LinearChain)
    assert hmm.support.check(X).tolist() == [True, True]
    assert "HMM(batch_shape: (2,)" in repr(hmm)
    assert hmm.expand((4, 2)).batch_shape == (4, 2)
    close(hmm.expand((4, 2)).log_prob(X), hmm.log_prob(X).expand(4, 2))
    close(hmm[1].log_prob(X[1]), hmm.log_prob(X)[1])
    assert hmm.to(torch.float32).log_prob(X).dtype == torch.float32
    for other in (copy.deepcopy(hmm), pickle.loads(pickle.dumps(hmm)), hmm.detach()):
        assert torch.equal(other.log_prob(X), hmm.log_prob(X))


def test_moving_a_model_moves_its_emission_and_leaves_the_original_alone() -> None:
    mean = logits(K).requires_grad_()
    hmm = plain(emission=td.Normal(mean, 1.0), transition_logits=logits(3, K, K), final_logits=logits(K))
    single, cut = hmm.to(torch.float32), hmm.detach()
    series = logits(2, 4)
    assert single.emission.loc.dtype == torch.float32
    assert single.log_prob(series.float()).dtype == torch.float32
    assert not cut.log_prob(series).requires_grad
    assert hmm.emission.loc.dtype == torch.float64
    assert hmm.log_prob(series).requires_grad
    close(hmm.expand((2,)).log_prob(series), hmm.log_prob(series))


def test_indexing_needs_an_emission_that_can_be_indexed() -> None:
    shared = HMM(logits(2, K), logits(K, K), td.Normal(logits(K), 1.0))
    close(shared[1].log_prob(logits(5)), shared.log_prob(logits(5).expand(2, 5))[1])
    own = HMM(logits(2, K), logits(K, K), td.Normal(logits(2, K), 1.0))
    with pytest.raises(NotImplementedError, match="emission"):
        own[0]


def test_no_table_of_all_symbols_is_made_for_each_position() -> None:
    """60 thousand symbols, 4000 positions: (b, n, k, v) would be 4 GB."""
    hmm = HMM(torch.zeros(4), torch.zeros(4, 4), torch.zeros(4, 60_000).requires_grad_())
    x = torch.randint(0, 60_000, (8, 500))
    log_prob = hmm.log_prob(x)
    torch.testing.assert_close(log_prob, torch.full((8,), -500 * math.log(60_000)))
    log_prob.sum().backward()


def test_missing_observations_need_a_stand_in() -> None:
    class Odd(td.Normal):
        support = td.constraints.dependent

    hmm = plain(emission=Odd(logits(K), torch.ones(K).double(), validate_args=False))
    assert hmm.log_prob(logits(3)).isfinite()
    with pytest.raises(NotImplementedError, match="Odd"):
        hmm.log_prob(logits(3), mask=torch.tensor([True, False, True]))


def test_transforms_of_torch() -> None:
    x, tables, initial, emission = torch.tensor([0, 3, 1]), logits(4, K, K), logits(K), logits(K, V)
    for query in (lambda h: h.log_prob(x), lambda h: h.stationary(), lambda h: h.predict(x, 2)):

        def run(transition: Tensor, query: Callable[[HMM], Tensor] = query) -> Tensor:
            return query(HMM(initial, transition, emission))

        close(torch.vmap(run)(tables), torch.stack([run(t) for t in tables]))
        leaf = tables[0].clone().requires_grad_()
        grad = torch.func.grad(lambda t, run=run: run(t).sin().sum())(tables[0])
        close(grad, torch.autograd.grad(run(leaf).sin().sum(), leaf)[0])


def test_half_precision_is_computed_in_single() -> None:
    half = HMM(*(t.bfloat16() for t in (logits(K), logits(K, K), logits(K, V))))
    x = torch.randint(0, V, (2, 6))
    assert half.log_prob(x).dtype == torch.float32
    close(half.log_prob(x), half.to(torch.float32).log_prob(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            HMM(logits(K).float(), logits(K, K).float(), logits(K, V).bfloat16()).log_prob(x).isfinite().all()
        )
