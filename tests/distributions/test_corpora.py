"""A supervised tagger from counts, on real text: accuracies and likelihood of an independent implementation.

Recipe: a stop symbol ends each sentence; words seen once in training become <unk>; transitions add 1,
emissions add 0.01 (to every count, the initial row and the stop included).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from structlv.distributions import HMM

pytestmark = pytest.mark.corpora
BATCH = 256


class Corpus(NamedTuple):
    """Right-padded words and tags (b, n), and lengths (b)."""

    words: Tensor
    tags: Tensor
    lengths: Tensor


def sentences(path: Path) -> list[list[tuple[str, str]]]:
    """(word, universal tag) pairs; a blank line ends a sentence."""
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    return [[tuple(line.split("\t")[:2]) for line in block.splitlines()] for block in blocks]  # type: ignore


def encode(data: list[list[tuple[str, str]]], vocabulary: dict[str, int], tagset: dict[str, int]) -> Corpus:
    words = [torch.tensor([vocabulary.get(w, 0) for w, _ in sentence]) for sentence in data]
    tags = [torch.tensor([tagset.get(t, -1) for _, t in sentence]) for sentence in data]
    pad = torch.nn.utils.rnn.pad_sequence
    return Corpus(
        pad(words, batch_first=True, padding_value=-1),
        pad(tags, batch_first=True, padding_value=-1),
        torch.tensor([len(sentence) for sentence in data]),
    )


def counted(corpus: Corpus, k: int, v: int) -> HMM:
    valid = corpus.tags >= 0
    first, last = corpus.tags[:, 0], corpus.tags.gather(1, corpus.lengths.unsqueeze(1) - 1).squeeze(1)
    pairs = (corpus.tags[:, :-1] * k + corpus.tags[:, 1:])[valid[:, 1:]]
    emissions = (corpus.tags * v + corpus.words)[valid]
    transition = pairs.bincount(minlength=k * k).reshape(k, k).double() + 1.0
    emission = emissions.bincount(minlength=k * v).reshape(k, v).double() + 0.01
    initial, final = (x.bincount(minlength=k).double() + 1.0 for x in (first, last))
    return HMM(initial.log(), transition.log(), emission.log(), final_logits=final.log())


@pytest.mark.parametrize(
    ("folder", "viterbi", "posterior", "log_likelihood"),
    [("ud_ewt", 0.8953, 0.8966, -5.9929), ("ud_atis", 0.9793, 0.9798, -4.4407)],
)
def test_a_tagger_from_counts(
    corpora: Path, folder: str, viterbi: float, posterior: float, log_likelihood: float
) -> None:
    train, test = (sentences(corpora / folder / f"{part}.tsv") for part in ("train", "test"))
    frequency = Counter(word for sentence in train for word, _ in sentence)
    kept = sorted(word for word, count in frequency.items() if count > 1)
    vocabulary = {word: i for i, word in enumerate(["<unk>", *kept])}
    tagset = {tag: i for i, tag in enumerate(sorted({tag for sentence in train for _, tag in sentence}))}
    hmm = counted(encode(train, vocabulary, tagset), len(tagset), len(vocabulary)).to(torch.float32)
    correct = torch.zeros(2)
    total, words = 0.0, 0
    held_out = encode(test, vocabulary, tagset)
    for start in range(0, len(test), BATCH):
        batch = Corpus(*(x[start : start + BATCH] for x in held_out))
        chain = hmm.posterior(batch.words, batch.lengths)
        for i, decoded in enumerate((chain.argmax(), chain.posterior_decode())):
            correct[i] += ((decoded == batch.tags) & (decoded >= 0)).sum()
        total += float(chain.log_partition().double().sum())
        words += int(batch.lengths.sum())
    accuracy = [round(float(c) / words, 4) for c in correct]
    assert accuracy == [viterbi, posterior]
    assert total / words == pytest.approx(log_likelihood, abs=5e-4)
