"""A CRF layer on a PyTorch network: named entities, tagged in the BIO scheme.

The network scores the labels of each word, `LinearChain` makes a distribution over label sequences of these
scores. Training maximises log p(labels | words); decoding finds the best of the well-formed sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structlv import LinearChain
from structlv.distributions import tagging_constraints

LABELS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
OUTSIDE, PEOPLE, FIRMS = range(20), range(20, 30), range(30, 36)  # word numbers of a toy language
SHARED = range(28, 34)  # words that occur in names of both kinds: only the context tells


class Tagger(nn.Module):
    """Embedding, a bidirectional LSTM, label scores, and transition scores: log-linear CRF on top."""

    def __init__(self, words: int, labels: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.score = nn.Linear(width, labels)
        self.transition = nn.Parameter(torch.zeros(labels, labels))

    def forward(self, words: Tensor, lengths: Tensor) -> LinearChain:
        """words (b, n), lengths (b) -> a distribution over label sequences."""
        hidden, _ = self.lstm(self.embed(words))
        return LinearChain(self.score(hidden), self.transition, lengths=lengths)


def sentence() -> tuple[list[int], list[int]]:
    """Words and labels: plain words, with names of persons after word 0 and of firms after word 1."""
    words, labels = [], []
    for _ in range(int(torch.randint(1, 4, ()))):
        kind = int(torch.randint(2, ()))
        plain = torch.randint(2, len(OUTSIDE), (int(torch.randint(0, 4, ())),)).tolist()
        pool = torch.tensor(sorted({*(PEOPLE if kind == 0 else FIRMS), *SHARED}))
        name = pool[torch.randint(len(pool), (int(torch.randint(1, 4, ())),))].tolist()
        words += [*plain, kind, *name]
        labels += [0] * (len(plain) + 1) + [1 + 2 * kind] + [2 + 2 * kind] * (len(name) - 1)
    return words, labels


def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words (b, n), labels (b, n) with -1 in the padding, lengths (b)."""
    pairs = [sentence() for _ in range(size)]
    lengths = torch.tensor([len(words) for words, _ in pairs])
    words = torch.zeros(size, int(lengths.max()), dtype=torch.int64)
    labels = torch.full_like(words, -1)
    for i, (w, y) in enumerate(pairs):
        words[i, : len(w)], labels[i, : len(y)] = torch.tensor(w), torch.tensor(y)
    return words, labels, lengths


def main(steps: int = 150) -> float:
    """Train, print a tagged sentence, return the share of right labels on new sentences."""
    torch.manual_seed(0)
    model = Tagger(max(FIRMS) + 1, len(LABELS))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        words, labels, lengths = batch(32)
        loss = -model(words, lengths).log_prob(labels).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item():.3f} nats per sentence")

    words, labels, lengths = batch(200)
    with torch.no_grad():
        chain = model(words, lengths)
        well_formed = chain.condition(**tagging_constraints(LABELS)._asdict())
        found = well_formed.argmax()
        legal = (well_formed.log_partition() - chain.log_partition()).exp().mean()
    known = labels >= 0
    accuracy = (found == labels)[known].double().mean().item()
    print(f"probability of well-formed sequences before the constraint: {legal:.4f}")
    print(
        " ".join(
            f"{w}/{LABELS[y]}" for w, y in zip(words[0].tolist(), found[0].tolist(), strict=True) if y >= 0
        )
    )
    print(f"accuracy on new sentences: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
