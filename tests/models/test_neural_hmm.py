"""NeuralHMM against enumeration, and its queries."""

import itertools
import math

import pytest
import torch

from structlv.models import NeuralHMM


def small(stop: bool = True, **options: int) -> NeuralHMM:
    torch.manual_seed(0)
    return NeuralHMM(3, 5, dim=4, stop=stop, **options).double()


@torch.no_grad()
def enumerated(model: NeuralHMM, x: list[int]) -> float:
    """log p(x) as a sum over every state sequence, straight from the definition."""
    k = model.num_states
    initial = model.initial_logits().softmax(-1)
    scores, stop = model.transition_logits()
    rows = (scores if stop is None else torch.cat([scores, stop[:, None]], -1)).softmax(-1)
    emission = model.emission_logits().softmax(-1)
    total = 0.0
    for path in itertools.product(range(k), repeat=len(x)):
        p = float(initial[path[0]])
        for i, j in itertools.pairwise(path):
            p *= float(rows[i, j])
        for z, word in zip(path, x, strict=True):
            p *= float(emission[z, word])
        total += p * (1.0 if stop is None else float(rows[path[-1], k]))
    return math.log(total)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("layers", [0, 2])
def test_log_prob_equals_enumeration(stop: bool, layers: int) -> None:
    model = small(stop, layers=layers)
    sentences = [[0, 3, 1, 4], [2], [1, 1]]
    x = torch.zeros(3, 4, dtype=torch.int64)
    for row, sentence in zip(x, sentences, strict=True):
        row[: len(sentence)] = torch.tensor(sentence)
    found = model.log_prob(x, torch.tensor([4, 1, 2]))
    torch.testing.assert_close(
        found.tolist(), [enumerated(model, s) for s in sentences], rtol=1e-10, atol=1e-10
    )
    assert model.scores_end is stop


@torch.no_grad()
def test_with_an_end_the_sentences_of_all_lengths_share_one() -> None:
    model = small()
    model.target_bias[-1] = 4.0  # stopping is likely, so that short sentences are nearly all
    mass = sum(
        float(model.log_prob(torch.tensor(list(itertools.product(range(5), repeat=n)))).exp().sum())
        for n in (1, 2, 3, 4)
    )
    assert 0.98 < mass < 1.0


@torch.no_grad()
def test_without_an_end_the_sentences_of_each_length_sum_to_one() -> None:
    model = small(stop=False)
    for n in (1, 3):
        every = torch.tensor(list(itertools.product(range(5), repeat=n)))
        assert math.isclose(float(model.log_prob(every).exp().sum()), 1.0, rel_tol=1e-10)


def test_every_parameter_is_trained() -> None:
    model = small()
    model.log_prob(torch.tensor([[0, 1, 2]])).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@torch.no_grad()
def test_tagging_is_the_best_path_or_the_best_states() -> None:
    x, lengths = torch.tensor([[0, 1, 2], [3, 4, 0]]), torch.tensor([3, 2])
    model = small()
    chain = model.posterior(x, lengths)
    assert model.tag(x, lengths).tolist() == chain.argmax().tolist()
    best = chain.marginals().unary.argmax(-1)
    found = model.tag(x, lengths, method="posterior")
    assert found[0].tolist() == best[0].tolist()
    assert found[1].tolist() == [*best[1, :2].tolist(), -1]
    with pytest.raises(ValueError, match="method must be 'viterbi' or 'posterior'"):
        model.tag(x, method="mean")


@torch.no_grad()
def test_start_from_counts_makes_a_unigram() -> None:
    model = small()
    counts = torch.tensor([9, 0, 4, 1, 1])
    model.words.zero_()
    model.start_from_counts(counts)
    expected = (counts.double() + 1) / 20
    torch.testing.assert_close(model.emission_logits().softmax(-1), expected.expand(3, 5))
    with pytest.raises(ValueError, match=r"counts must have shape \(5,\), found \(4,\)"):
        model.start_from_counts(counts[:4])


@torch.no_grad()
def test_typical_words_are_those_of_the_state() -> None:
    model = small()
    model.words.zero_()
    model.words[:, 0] = torch.tensor([0.0, 0.0, 0.0, 5.0, 0.0])
    model.emit.blocks = torch.nn.ModuleList()
    model.states.zero_()
    model.states[1, 0] = 1.0
    assert model.typical_words(1)[1].item() == 3


@pytest.mark.parametrize("sizes", [(0, 5, 4, 1), (3, 0, 4, 1), (3, 5, 0, 1), (3, 5, 4, -1)])
def test_sizes_that_make_no_sense(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected num_states, vocab_size, dim >= 1 and layers >= 0"):
        NeuralHMM(sizes[0], sizes[1], dim=sizes[2], layers=sizes[3])
