"""EM as a whole: it never descends, makes the textbook's updates of one chain, and can be interrupted."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("pytorch_lightning")

from structlv import (
    HMM,
    AdditiveGaussian,
    Exact,
    FactorialHMM,
    LogLinearCategorical,
    MeanField,
    StructuredMeanField,
)
from structlv.learning import Prior, Tied, fit_em, random_bernoulli, random_categorical, random_gaussian
from structlv.learning.em import factorial as em_module

F64 = torch.float64
LENGTHS = torch.tensor([7, 5, 1, 0])
ROUNDING = 1e-9


def symbols() -> Tensor:
    return torch.randint(4, (4, 7), generator=torch.Generator().manual_seed(1))


def start(kind: str, sizes: tuple[int, ...], seed: int = 0) -> tuple[FactorialHMM, Tensor]:
    """A random model and data of each kind of emission."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "categorical":
        return random_categorical(sizes, torch.ones(4), seed), symbols()
    if kind == "bernoulli":
        x = (torch.rand(4, 7, 3, generator=generator) < 0.4).double()
        return random_bernoulli(sizes, x.flatten(0, 1).mean(0), seed), x
    x = 5 + 2 * torch.randn(4, 7, 2, generator=generator, dtype=F64)
    return random_gaussian(sizes, x.flatten(0, 1), seed), x


def fit(model: Any, x: Tensor, **options: Any) -> Any:
    return fit_em(model, x, LENGTHS, **{"progress": False, "iterations": 25, "tolerance": 0.0, **options})


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
@pytest.mark.parametrize("method", [Exact(), StructuredMeanField(), MeanField(max_sweeps=3)], ids=repr)
@pytest.mark.parametrize("sizes", [(3,), (2, 3)])
@pytest.mark.parametrize("prior", [Prior(), Prior(0.1, 0.2, 0.3, 0.4, 0.5)], ids=["likelihood", "prior"])
def test_the_objective_never_falls(kind: str, method: Any, sizes: tuple[int, ...], prior: Prior) -> None:
    model, x = start(kind, sizes)
    if kind == "gaussian":
        prior = prior._replace(covariance=0.5)  # else it may fit the few points exactly
    mask = torch.ones(4, 7, dtype=torch.bool)
    mask[0, 2] = False
    result = fit(model, x, method=method, prior=prior, mask=mask)
    history = result.history
    assert all(b >= a - ROUNDING * abs(a) for a, b in pairwise(history))
    assert history[-1] > history[0] + 0.5
    bound = result.model.elbo(x, LENGTHS, mask, method).sum()
    if isinstance(method, Exact):
        assert result.log_likelihood == pytest.approx(float(bound), abs=1e-9)
    assert float(result.model.log_prob(x, LENGTHS, mask).sum()) >= result.log_likelihood - 1e-9


def test_one_chain_makes_the_updates_of_baum_and_welch() -> None:
    """Against expected counts summed over all paths of an ordinary HMM."""
    model, x = start("categorical", (2,))
    found = fit(model, x, iterations=1).model
    hmm = HMM(model.initial_logits[0], model.transition_logits[0], model.emission.logits[0])
    first, moves, emitted = (
        torch.zeros(2, dtype=F64),
        torch.zeros(2, 2, dtype=F64),
        torch.zeros(2, 4, dtype=F64),
    )
    for row, n in zip(x, LENGTHS.tolist(), strict=True):
        for path in torch.cartesian_prod(*[torch.arange(2)] * n).reshape(-1, n) if n else ():
            log_p = hmm.initial_logits[path[0]] + hmm.emission[path, row[:n]].sum()
            log_p = log_p + hmm.transition_logits[path[:-1], path[1:]].sum()
            p = (log_p - hmm.log_prob(row[:n])).exp()
            first[path[0]] += p
            moves.index_put_((path[:-1], path[1:]), p.expand(n - 1), accumulate=True)
            emitted.index_put_((path, row[:n]), p.expand(n), accumulate=True)
    assert torch.allclose(found.initial_logits[0].exp(), first / first.sum())
    assert torch.allclose(found.transition_logits[0].exp(), moves / moves.sum(-1, keepdim=True))
    assert torch.allclose(found.emission.logits[0].exp(), emitted / emitted.sum(-1, keepdim=True))


def test_one_chain_agrees_with_hmmlearn() -> None:
    """Twenty iterations of both from the same start: the same log-likelihood and emissions."""
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    model, x = start("categorical", (3,))
    x = torch.randint(4, (6, 12), generator=torch.Generator().manual_seed(3))
    peer = hmmlearn.CategoricalHMM(3, n_features=4, n_iter=20, tol=-1.0, init_params="")
    peer.startprob_ = model.initial_logits[0].exp().numpy()
    peer.transmat_ = model.transition_logits[0].exp().numpy()
    peer.emissionprob_ = model.emission.logits[0].softmax(-1).numpy()
    peer.fit(x.reshape(-1, 1).numpy(), [12] * 6)
    found = fit_em(model, x, iterations=20, tolerance=-1.0, progress=False)
    assert found.log_likelihood == pytest.approx(peer.score(x.reshape(-1, 1).numpy(), [12] * 6), abs=1e-6)
    assert torch.allclose(found.model.emission.logits[0].exp(), torch.tensor(peer.emissionprob_), atol=1e-6)


def test_means_of_two_appliances_are_found() -> None:
    """Sums of an on-off and a three-level source: the levels come out, whichever chain has them."""
    stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=F64).log()
    three = (torch.eye(3, dtype=F64) * 0.85 + 0.05).log()
    truth = FactorialHMM(
        [torch.zeros(2, dtype=F64), torch.zeros(3, dtype=F64)],
        [stay, three],
        AdditiveGaussian(
            [torch.tensor([[0.0], [1.0]], dtype=F64), torch.tensor([[0.0], [3.0], [7.0]], dtype=F64)],
            torch.tensor([[0.01]], dtype=F64),
        ),
    )
    x = truth.sample((8,), length=60, generator=torch.Generator().manual_seed(0))
    result = fit_em(
        partial(random_gaussian, (2, 3), x.flatten(0, 1), stay=2.0), x, seeds=range(4), progress=False
    )
    low, high = result.model.emission.means[0].flatten().sort().values
    assert float(high - low) == pytest.approx(1.0, abs=0.05)
    levels = result.model.emission.means[1].flatten().sort().values
    assert torch.allclose(levels.diff(), torch.tensor([3.0, 4.0], dtype=F64), atol=0.05)
    assert result.log_likelihood > float(truth.log_prob(x).sum())
    assert result.converged


def test_the_best_start_wins_and_says_which() -> None:
    _, x = start("categorical", (2, 2))
    begin = partial(random_categorical, (2, 2), torch.ones(4))
    each = [fit(begin, x, seeds=[seed]) for seed in (3, 4, 5)]
    best = max(each, key=lambda result: result.objective)
    found = fit(begin, x, seeds=[3, 4, 5])
    assert (found.objective, found.seed, found.history) == (best.objective, best.seed, best.history)
    assert len({result.objective for result in each}) > 1


def test_it_stops_by_itself() -> None:
    model, x = start("categorical", (2,))
    loose, tight = (fit(model, x, iterations=500, tolerance=t) for t in (1e-2, 1e-6))
    assert loose.converged
    assert tight.converged
    assert len(loose.history) < len(tight.history) < 500
    assert fit(model, x, iterations=3).converged is False
    assert len(fit(model, x, iterations=3).history) == 4


@pytest.mark.parametrize("method", [Exact(), StructuredMeanField(max_sweeps=2)], ids=["exact", "mean field"])
def test_interrupted_it_goes_on_to_the_same_bits(
    method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, x = start("categorical", (2, 2))
    begin = partial(random_categorical, (2, 2), torch.ones(4))
    options = {"method": method, "seeds": [0, 1], "iterations": 12}
    whole = fit(begin, x, **options)
    step, calls = em_module.m_step, 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (5, 19):  # in the first start, and, after going on, in the second
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(em_module, "m_step", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(begin, x, checkpoint=tmp_path / "em.ckpt", **options)
    found = fit(begin, x, checkpoint=tmp_path / "em.ckpt", **options)
    assert found.history == whole.history
    for a, b in zip(found.model.transition_logits, whole.model.transition_logits, strict=True):
        assert torch.equal(a, b)
    before = calls
    again = fit(begin, x, checkpoint=tmp_path / "em.ckpt", **options)  # finished: nothing is left to do
    assert calls == before
    assert again.history == whole.history


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    model, x = start("categorical", (2,))
    path = tmp_path / "em.ckpt"
    fit(model, x, checkpoint=path, iterations=2)
    with pytest.raises(ValueError, match="data"):
        fit(model, (x + 1) % 4, checkpoint=path, iterations=2)
    with pytest.raises(ValueError, match="iterations 2 -> 3"):
        fit(model, x, checkpoint=path, iterations=3)
    with pytest.raises(ValueError, match="data"):
        fit(model, x, checkpoint=path, iterations=2, prior=Prior(emission=1.0))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        fit(model, x, checkpoint=path, iterations=2)


def test_what_cannot_be_learned_is_refused() -> None:
    model, x = start("categorical", (2,))
    with pytest.raises(ValueError, match="nothing is observed"):
        fit_em(model, x, torch.zeros(4, dtype=torch.long), progress=False)
    with pytest.raises(ValueError, match=r"batch_shape \(\)"):
        fit(model.expand((4,)), x)
    with pytest.raises(ValueError, match="at least one start"):
        fit(partial(random_categorical, (2,), torch.ones(4)), x, seeds=())
    with pytest.raises(ValueError, match="N >= 2"):
        random_gaussian((2,), torch.zeros(1, 2), 0)


@pytest.mark.parametrize("name", ["initial", "transition", "emission"])
def test_what_is_fixed_stays(name: str) -> None:
    model, x = start("gaussian", (2, 3))
    found = fit(model, x, fixed=name, prior=Prior(covariance=0.5)).model
    pairs = {
        "initial": (model.initial_logits[1], found.initial_logits[1]),
        "transition": (model.transition_logits[1], found.transition_logits[1]),
        "emission": (model.emission.means[1], found.emission.means[1]),
    }
    for part, (before, after) in pairs.items():
        assert torch.allclose(before, after, atol=1e-12) == (part == name), part


def test_partial_labels_are_evidence() -> None:
    """The likelihood is that of the data with the labels; a chain with all labels is counted."""
    model, x = start("categorical", (2, 3))
    states = torch.randint(3, (4, 2, 7), generator=torch.Generator().manual_seed(2))
    states[:, 0] = -1
    result = fit(model, x, evidence={"states": states})
    assert all(b >= a - ROUNDING * abs(a) for a, b in pairwise(result.history))
    joint = result.model.posterior(x, LENGTHS).condition(states=states).log_partition().sum()
    assert result.log_likelihood == pytest.approx(float(joint), abs=1e-9)
    moves = torch.zeros(3, 3, dtype=F64)
    for row, n in zip(states[:, 1], LENGTHS.tolist(), strict=True):
        for a, b in pairwise(row[:n].tolist()):
            moves[a, b] += 1
    counted = moves / moves.sum(-1, keepdim=True)
    assert torch.allclose(
        result.model.transition_logits[1].exp()[moves.sum(-1) > 0], counted[moves.sum(-1) > 0]
    )
    with pytest.raises(ValueError, match="evidence needs method=Exact"):
        fit(model, x, evidence={"states": states}, method=MeanField())
    with pytest.raises(ValueError, match="EM of FactorialHMM knows no tied"):
        fit(model, x, tied=Tied())


def test_a_callable_emission_keeps_its_table_and_learns_the_rest() -> None:
    table = torch.randn(4, 2, 2, dtype=F64).log_softmax(0)
    model = FactorialHMM(
        [torch.randn(2, dtype=F64)] * 2, [torch.randn(2, 2, dtype=F64)] * 2, lambda x: table[x]
    )
    result = fit(model, symbols())
    assert result.history[-1] > result.history[0]
    assert result.model.emission.function is model.emission.function


@pytest.mark.parametrize("method", [StructuredMeanField(max_sweeps=2), MeanField(max_sweeps=2)], ids=repr)
def test_mean_field_that_begins_where_it_ended_is_no_worse(method: Any) -> None:
    model = random_categorical((3, 3), torch.ones(4), 0, spread=2.0)
    posterior, bound = model.infer(symbols(), LENGTHS, method=method)
    assert torch.equal(bound, model.elbo(symbols(), LENGTHS, method=method))
    before = posterior.marginals().unary
    _, better = model.infer(symbols(), LENGTHS, method=method, start=before)
    assert bool((better >= bound - 1e-12).all())
    assert bool((better > bound + 1e-9).any())
    assert torch.equal(model.infer(symbols(), LENGTHS)[1], model.log_prob(symbols(), LENGTHS))
    with pytest.raises(ValueError, match=r"start\[1\]"):
        model.infer(symbols(), LENGTHS, method=method, start=(before[0], before[1][..., :2]))


def test_random_starts_follow_their_seed() -> None:
    one, same, other = (random_categorical((2, 3), torch.tensor([5.0, 1.0]), s) for s in (0, 0, 1))
    assert torch.equal(one.emission.logits[1], same.emission.logits[1])
    assert not torch.equal(one.emission.logits[1], other.emission.logits[1])
    assert one.sizes == (2, 3)
    sticky = random_categorical((4,), torch.ones(3), 0, stay=20.0)
    assert float(sticky.transition_logits[0].diagonal().exp().min()) > 0.99
    calm = random_categorical((3,), torch.tensor([98.0, 0.0]), 0, spread=0.0)
    assert isinstance(calm.emission, LogLinearCategorical)
    assert torch.allclose(calm.emission.logits[0].exp(), torch.tensor([0.99, 0.01], dtype=F64))
