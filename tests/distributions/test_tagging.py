"""BIO, BILOU and IOBES: what may follow what."""

from __future__ import annotations

import itertools

import pytest
import torch

from structlv.distributions import LinearChain, tagging_constraints

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
BILOU = ["O", *(f"{p}-{t}" for t in ("PER", "LOC") for p in "BILU")]
IOBES = ["O", *(f"{p}-{t}" for t in ("PER", "LOC") for p in "BIES")]


def well_formed(tags: tuple[str, ...], scheme: str) -> bool:
    """By reading the segments off, left to right."""
    open_type: str | None = None
    last = {"BIO": "", "BILOU": "L", "IOBES": "E"}[scheme]
    for tag in tags:
        prefix, _, kind = tag.partition("-")
        if prefix in ("I", last) and prefix:
            if open_type != kind:
                return False
            open_type = None if prefix == last else kind
            continue
        if scheme != "BIO" and open_type is not None:
            return False
        open_type = kind if prefix == "B" else None
    return scheme == "BIO" or open_type is None


@pytest.mark.parametrize(("labels", "scheme"), [(BIO, "BIO"), (BILOU, "BILOU"), (IOBES, "iobes")])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_structures_left_are_the_well_formed_ones(labels: list[str], scheme: str, length: int) -> None:
    k = len(labels)
    chain = LinearChain(torch.zeros(length, k), torch.zeros(k, k))
    constrained = chain.condition(**tagging_constraints(labels, scheme)._asdict())
    sequences = list(itertools.product(range(k), repeat=length))
    legal = [well_formed(tuple(labels[i] for i in z), scheme.upper()) for z in sequences]
    possible = constrained.score(torch.tensor(sequences)) > -torch.inf
    assert possible.tolist() == legal
    assert round(float(constrained.log_count().exp())) == sum(legal)


def test_decoding_obeys_the_constraints() -> None:
    chain = LinearChain(torch.randn(50, 12, 5), torch.randn(5, 5))
    constrained = chain.condition(**tagging_constraints(BIO)._asdict())
    for sequence in torch.cat([constrained.argmax(), constrained.sample()]).tolist():
        assert well_formed(tuple(BIO[i] for i in sequence), "BIO")


def test_labels_without_types() -> None:
    allowed, initial, final = tagging_constraints(["B", "I", "O"])
    assert allowed.tolist() == [[True, True, True], [True, True, True], [True, False, True]]
    assert initial.tolist() == [True, False, True]
    assert final.all()
    assert tagging_constraints([]).allowed_transitions.shape == (0, 0)


@pytest.mark.parametrize("label", ["X-PER", "", "PER", "O-PER", "BB-PER", "L-PER"])
def test_a_label_of_another_scheme(label: str) -> None:
    with pytest.raises(ValueError, match=r"labels must be 'O' or one of B, I, O"):
        tagging_constraints(["O", label])


def test_an_unknown_scheme() -> None:
    with pytest.raises(ValueError, match=r"BIO, BILOU, IOBES.*'IOB1'"):
        tagging_constraints(BIO, "IOB1")
