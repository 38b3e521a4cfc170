"""NeuralFactorialHMM against enumeration, its training, its queries, its folder."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from structlv.models import Model, NeuralFactorialHMM


def small(**options: int) -> NeuralFactorialHMM:
    torch.manual_seed(0)
    return NeuralFactorialHMM((2, 3), 5, dim=4, **options).double()


@torch.no_grad()
def enumerated(model: NeuralFactorialHMM, x: list[int]) -> float:
    """log p(x) as a sum over the states of both chains, straight from the definition."""
    initial = [row.softmax(-1) for row in model.initial_logits()]
    moves = [rows.softmax(-1) for rows in model.transition_logits()]
    first, second = model.emission_logits()
    total = 0.0
    for a in itertools.product(range(2), repeat=len(x)):
        for b in itertools.product(range(3), repeat=len(x)):
            p = float(initial[0][a[0]] * initial[1][b[0]])
            for t in range(len(x) - 1):
                p *= float(moves[0][a[t], a[t + 1]] * moves[1][b[t], b[t + 1]])
            for i, j, word in zip(a, b, x, strict=True):
                p *= float((first[i] + second[j]).softmax(-1)[word])
            total += p
    return math.log(total)


@pytest.mark.parametrize("layers", [0, 2])
def test_log_prob_equals_enumeration(layers: int) -> None:
    model = small(layers=layers)
    model.start_from_counts(torch.tensor([1, 0, 5, 2, 2]))
    x = torch.tensor([[0, 3, 1], [2, 0, 0]])
    found = model.log_prob(x, torch.tensor([3, 1])).tolist()
    assert found == pytest.approx([enumerated(model, [0, 3, 1]), enumerated(model, [2])], abs=1e-10)
    assert model(x).shape == (2,)


def test_every_parameter_has_a_gradient() -> None:
    model = small()
    model.log_prob(torch.tensor([[0, 3, 1, 4]])).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())


def test_queries_and_their_shapes() -> None:
    model = small()
    x, lengths = torch.tensor([[0, 3, 1], [2, 0, 0]]), torch.tensor([3, 1])
    best, each = model.tag(x, lengths), model.tag(x, lengths, method="posterior")
    assert best.shape == each.shape == (2, 2, 3)
    assert best[1, :, 1:].eq(-1).all()
    assert torch.equal(best, model.posterior(x, lengths).argmax())
    assert torch.equal(each, model.posterior(x, lengths).posterior_decode())
    with pytest.raises(ValueError, match="'viterbi' or 'posterior'"):
        model.tag(x, method="best")
    with pytest.raises(ValueError, match=r"counts must have shape \(5,\)"):
        model.start_from_counts(torch.ones(4))


@pytest.mark.parametrize("arguments", [((), 5), ((2, 0), 5), ((2,), 0)])
def test_sizes_that_make_no_sense(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="at least one chain"):
        NeuralFactorialHMM(*arguments)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = small(layers=2).float()
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert isinstance(loaded, NeuralFactorialHMM)
    assert loaded.num_states == (2, 3)
    x = torch.tensor([[0, 3, 1, 4]])
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))


def test_the_objective_trains_it(tmp_path: Path) -> None:
    """Symbols that are a fast parity and a slow level: far better than any unigram."""
    pytest.importorskip("pytorch_lightning")
    from structlv.data import Batches
    from structlv.learning import MarginalLikelihood, fit

    steps = torch.arange(24)
    sequences = [(steps + a) % 2 + 2 * (((steps + b) // 8) % 2) for a in range(2) for b in range(16)]
    torch.manual_seed(0)
    model = NeuralFactorialHMM((2, 2), 4, dim=16)
    objective = MarginalLikelihood(model, lr=0.03)
    fit(objective, Batches(sequences, 8), folder=tmp_path, epochs=30, progress=False)
    nats = -model.log_prob(torch.stack(sequences)).sum().item() / (len(sequences) * 24)
    assert nats < 0.75  # the unigram has log 4 = 1.39, the parity alone leaves log 2 = 0.69
