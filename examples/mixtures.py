"""Messages of three kinds sorted without a label, by a mixture; and what its classes say.

Naive Bayes draws the words of a sentence independently given its class: it sorts well and talks badly. A
mixture of recurrent language models talks well, and its classes may be anything, since one such model can
hold several kinds. Kim, Wiseman & Rush 2018, section 3.1.

Ends with a picture of the posteriors; ``python examples/mixtures.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from structlv.data import Vocabulary
from structlv.models import MixtureOfRNNLM, NaiveBayes
from structlv.models.mixture import Mixture

KINDS = {
    "weather": ("in the {a} there will be {b}", ("north", "south", "hills"), ("rain", "snow", "fog", "sun")),
    "kitchen": ("boil the {a} with {b}", ("rice", "beans", "soup"), ("salt", "oil", "garlic", "butter")),
    "travel": ("the {a} to {b} is late", ("train", "bus", "ferry"), ("paris", "rome", "oslo", "bern")),
}


def sentences() -> list[tuple[list[str], int]]:
    """Every message and its kind."""
    return [
        (text.format(a=a, b=b).split(), kind)
        for kind, (text, first, second) in enumerate(KINDS.values())
        for a, b in itertools.product(first, second)
    ]


def learned(make: type[Mixture], x: Tensor, lengths: Tensor, *sizes: int, **options: int) -> Mixture:
    """The likeliest of two starts: a mixture has many local optima. log p(x) is exact, the class summed
    out."""
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(make(*sizes, **options))
        optimiser = torch.optim.Adam(models[-1].parameters(), lr=0.05)
        for _ in range(80):
            optimiser.zero_grad()
            (-models[-1].log_prob(x, lengths).mean()).backward()
            optimiser.step()
    return max(models, key=lambda m: m.log_prob(x, lengths).mean().item())


def matched(posterior: Tensor, kinds: Tensor) -> tuple[Tensor, float]:
    """Columns in the order of the kinds that fits best, and the part of sentences that lie right then."""
    orders = [list(order) for order in itertools.permutations(range(len(KINDS)))]
    right = [float((posterior[:, order].argmax(-1) == kinds).float().mean()) for order in orders]
    place = max(range(len(orders)), key=right.__getitem__)
    return posterior[:, orders[place]], right[place]


def draw(found: dict[str, Tensor], path: Path) -> None:
    """The posterior of every sentence, in the order of the kinds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), dpi=130, layout="constrained")
    for ax, (name, posterior) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        ax.imshow(posterior.T.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("messages: " + ", ".join(KINDS), fontsize=9)
        ax.set_yticks(range(len(KINDS)), [f"class {k}" for k in range(len(KINDS))])
    figure.savefig(path)


def main(picture: Path | None = None) -> dict[str, float]:
    """Learn both without labels; returns which part of the messages each puts with its kind."""
    texts = sentences()
    vocabulary = Vocabulary.build([text for text, _ in texts], min_count=1)
    encoded = [vocabulary.encode(text) for text, _ in texts]
    x, lengths = pad_sequence(encoded, batch_first=True), torch.tensor([len(e) for e in encoded])
    kinds = torch.tensor([kind for _, kind in texts])
    size = len(vocabulary)
    models = {
        "naive Bayes": learned(NaiveBayes, x, lengths, 3, size),
        "mixture of RNN language models": learned(MixtureOfRNNLM, x, lengths, 3, size, word_dim=8, dim=12),
    }
    right, posteriors = {}, {}
    for name, model in models.items():
        with torch.no_grad():
            posteriors[name], right[name] = matched(model.posterior(x, lengths).probs, kinds)
            nats = -model.log_prob(x, lengths).mean().item()
            print(f"{name}: {nats:.1f} nats per message; {right[name]:.0%} lie with their kind; classes say")
            drawn, sizes = model.generate(torch.arange(3), torch.tensor([6, 6, 6]))
            for row, n in zip(drawn, sizes.tolist(), strict=True):
                print("   ", " ".join(vocabulary.decode(row[:n])))
    if picture is not None:
        draw(posteriors, picture)
    return right


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
