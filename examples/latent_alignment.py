"""Attention as a latent variable: English numbers into German ones, which say the units before the tens.

Each German word y_t is generated from one English word, the z_t-th; which one is not known. Soft attention
mixes the English words and asks once; with z_t a latent variable the likelihood is summed over z_t exactly,
or, as hard attention does, bounded below by samples and trained with the score function. All three train the
same network. Deng, Kim, Chiu, Guo & Rush, "Latent Alignment and Variational Attention", 2018; Kim, Wiseman &
Rush 2018, section 8.

Ends with a picture of the attention; ``python examples/latent_alignment.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from structlv import LinearChain
from structlv.data import Vocabulary
from structlv.learning.estimators import ScoreFunction

UNITS = "one two three four five six seven eight nine"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
EINER = "ein zwei drei vier fünf sechs sieben acht neun"
ZEHNER = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"
SHADES = " ░▒▓█"
SEEN = 60  # numbers, of 720
STEPS = (10, 20, 40, 80)
WAYS = ("soft", "hard", "exact")


class Pairs(NamedTuple):
    """English x (b, n) and German y (b, m) words, right-padded, and their lengths."""

    x: Tensor
    x_lengths: Tensor
    y: Tensor
    y_lengths: Tensor

    def part(self, chosen: Tensor) -> Pairs:
        return Pairs(*(tensor[chosen] for tensor in self))


def numbers() -> list[tuple[list[str], list[str]]]:
    """21 to 999 without zeros and teens: 'three hundred forty two', 'drei hundert zwei und vierzig'."""
    one, ten, eins, zehn = (words.split() for words in (UNITS, TENS, EINER, ZEHNER))
    pairs = []
    for h in range(10):
        for t in range(8):
            for u in range(9):
                english, german = [ten[t], one[u]], [eins[u], "und", zehn[t]]
                if h:
                    english, german = [one[h - 1], "hundred", *english], [eins[h - 1], "hundert", *german]
                pairs.append((english, german))
    return pairs


class Translator(nn.Module):
    """Scores of alignments, and of German words given the English word they are aligned with."""

    def __init__(self, english: int, german: int, dim: int = 24) -> None:
        super().__init__()
        self.english, self.german = nn.Embedding(english, dim), nn.Embedding(german + 1, dim)  # and a start
        self.place = nn.Embedding(8, dim)
        self.reader = nn.LSTM(dim, dim // 2, bidirectional=True, batch_first=True)
        self.state, self.mixed, self.word = (
            nn.Linear(dim, dim),
            nn.Linear(2 * dim, dim),
            nn.Linear(dim, german),
        )
        self.start = german

    def states(self, y: Tensor) -> Tensor:
        """(b, m, d): the place, and the German word before."""
        before = torch.cat([torch.full_like(y[:, :1], self.start), y[:, :-1]], 1)
        return self.state((self.german(before) + self.place(torch.arange(y.shape[1]))).tanh())

    def scores(self, pairs: Pairs) -> Tensor:
        """(b, m, n), of word t being aligned with word i."""
        keys, _ = self.reader(self.english(pairs.x))
        scores = self.states(pairs.y) @ keys.mT
        return scores.masked_fill(
            (torch.arange(pairs.x.shape[1]) >= pairs.x_lengths[:, None, None]), -torch.inf
        )

    def log_prob(self, pairs: Pairs, values: Tensor) -> Tensor:
        """log p(y_t | what is attended to), (b, m, *) for values (b, m, *, d)."""
        states = self.states(pairs.y).unsqueeze(2).expand(*values.shape[:2], *values.shape[2:])
        logits = self.word(self.mixed(torch.cat([states, values], -1)).relu()).log_softmax(-1)
        index = pairs.y[:, :, None, None].expand(*values.shape[:-1], 1)
        return logits.gather(-1, index).squeeze(-1)

    def alignment(self, pairs: Pairs, evidence: Tensor | None = None) -> LinearChain:
        """p(z | x), or with evidence log p(y_t | z_t = i) p(z | x, y): words are aligned independently."""
        scores = self.scores(pairs).log_softmax(-1)
        free = scores.new_zeros(scores.shape[-1], scores.shape[-1])
        scores = scores if evidence is None else scores + evidence
        return LinearChain(scores, free, lengths=pairs.y_lengths)

    def evidence(self, pairs: Pairs) -> Tensor:
        """log p(y_t | z_t = i), (b, m, n)."""
        values = self.english(pairs.x).unsqueeze(1)
        return self.log_prob(pairs, values.expand(-1, pairs.y.shape[1], -1, -1))

    def objective(self, pairs: Pairs, way: str) -> Tensor:
        """What is maximised, (b) nats."""
        if way == "exact":  # log of the sum over alignments
            return self.alignment(pairs, self.evidence(pairs)).log_partition()
        inside = torch.arange(pairs.y.shape[1]) < pairs.y_lengths[:, None]
        if way == "soft":  # the mean English word
            mean = self.scores(pairs).softmax(-1) @ self.english(pairs.x)
            each = self.log_prob(pairs, mean.unsqueeze(2)).squeeze(-1)
            return torch.where(inside, each, 0.0).sum(-1)
        evidence, prior = self.evidence(pairs), self.alignment(pairs)

        def f(z: Tensor) -> Tensor:  # samples (s, b, m)
            index = z.clamp(min=0).unsqueeze(-1)
            each = evidence.expand(len(z), *evidence.shape).gather(-1, index).squeeze(-1)
            return torch.where(inside, each, 0.0).sum(-1)

        return ScoreFunction(4)(prior, f)


def data() -> tuple[Pairs, Pairs, Vocabulary, Vocabulary]:
    """Some of the numbers to learn from, the rest to be tested on."""
    pairs = numbers()
    english, german = (Vocabulary.build((pair[side] for pair in pairs), min_count=1) for side in (0, 1))
    columns = []
    for side, vocabulary in ((0, english), (1, german)):
        encoded = [vocabulary.encode(pair[side]) for pair in pairs]
        columns += [pad_sequence(encoded, batch_first=True), torch.tensor([len(x) for x in encoded])]
    everything = Pairs(*columns)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    return everything.part(order[:SEEN]), everything.part(order[SEEN:]), english, german


@torch.no_grad()
def nats_per_word(model: Translator, test: Pairs, way: str) -> float:
    """Of unseen numbers; hard attention is judged by the exact sum."""
    total = model.objective(test, "soft" if way == "soft" else "exact").sum()
    return -(total / test.y_lengths.sum()).item()


def fit(way: str, train: Pairs, test: Pairs, sizes: tuple[int, int]) -> tuple[Translator, list[float]]:
    """The model, and nats per German word of unseen numbers after so many STEPS."""
    torch.manual_seed(0)
    model, found = Translator(*sizes), []
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(1, STEPS[-1] + 1):
        loss = -model.objective(train, way).sum() / train.y_lengths.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in STEPS:
            found.append(nats_per_word(model, test, way))
    return model, found


def shown(table: Tensor, rows: list[str], columns: list[str]) -> str:
    """A matrix of probabilities as text, a row a line."""
    width = max(map(len, rows))
    lines = [" " * width + "  " + " ".join(f"{c:>8}" for c in columns)]
    for name, row in zip(rows, table.tolist(), strict=True):
        lines.append(f"{name:>{width}}  " + " ".join(f"{SHADES[round(4 * p)] * 3:>8}" for p in row))
    return "\n".join(lines)


def draw(tables: dict[str, Tensor], rows: list[str], columns: list[str], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(tables), 3.2), dpi=130, layout="constrained")
    for ax, (way, table) in zip(figure.subplots(1, len(tables), sharey=True), tables.items(), strict=True):
        ax.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=1)
        ax.set_title(way, fontsize=11)
        ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
        ax.set_yticks(range(len(rows)), rows)
    figure.savefig(path)


def main(picture: Path | None = None) -> dict[str, float]:
    """Train in the three ways; returns the nats per German word of unseen numbers."""
    train, test, english, german = data()
    example = test.part(test.y_lengths == 5).part(torch.tensor([0]))
    rows, columns = german.decode(example.y[0]), english.decode(example.x[0])
    nats, tables = {}, {}
    print(f"nats per German word of unseen numbers after {', '.join(map(str, STEPS))} steps")
    for way in WAYS:
        model, curve = fit(way, train, test, (len(english), len(german)))
        nats[way] = curve[-1]
        with torch.no_grad():
            prior = model.alignment(test)
            tables[way] = model.alignment(example).marginals().unary[0]
            spread = (prior.entropy().sum() / test.y_lengths.sum()).item()
        print(f"{way:>6}: {', '.join(f'{x:.3f}' for x in curve)}; entropy of an alignment {spread:.3f} nats")
    for way, table in tables.items():
        print(f"\n{way} attention, before the word is known\n{shown(table, rows, columns)}")
    if picture is not None:
        draw(tables, rows, columns, picture)
    return nats


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
