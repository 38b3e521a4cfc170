"""A latent variable that is ignored, and one that is used: posterior collapse in a small text VAE.

The same model of the same orders of food, trained on the plain evidence lower bound, and with KL annealing,
free bits and word dropout. That the KL is large proves nothing, since free bits force it to be: what counts
is the mutual information, the active units, and that the z of another sentence reconstructs worse. Kim,
Wiseman & Rush 2018, sections 6.2.2 and 6.2.3.

Ends with a picture of the training; ``python examples/text_vae.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor

from structlv.data import Batch, Vocabulary
from structlv.learning import evaluate, interpolate
from structlv.learning.elbo import thresholded
from structlv.learning.evaluate import Evaluation
from structlv.learning.schedules import Linear
from structlv.models import TextVAE

WHO = ("i", "we", "they")
WANT = ("want", "order", "take")
COUNT = ("one", "two", "three", "four")
FOOD = ("pizza", "soup", "salad", "rice", "cake")
STEPS, BATCH = 200, 48


def orders() -> list[list[str]]:
    """Every order, such as "we want two pizza"."""
    return [list(words) for words in itertools.product(WHO, WANT, COUNT, FOOD)]


def train(model: TextVAE, x: Tensor, beta: Linear | None, free_bits: float) -> list[tuple[float, float]]:
    """The unthresholded bound and the KL, nats per sentence, every tenth step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    lengths = torch.full((BATCH,), x.shape[1])
    curve = []
    for step in range(STEPS):
        elbo = model.elbo(x[torch.randint(len(x), (BATCH,))], lengths)
        weight = 1.0 if beta is None else beta(step)
        loss = -(elbo.reconstruction - weight * thresholded(elbo, free_bits)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            curve.append((elbo.bound.mean().item(), elbo.kl.mean().item()))
    return curve


def draw(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Bound and KL over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), dpi=130, layout="constrained")
    for i, (ax, what) in enumerate(zip(figure.subplots(1, 2), ("lower bound", "KL"), strict=True)):
        for name, curve in curves.items():
            ax.plot(range(0, STEPS, 10), [row[i] for row in curve], label=name)
        ax.set(xlabel="step", ylabel="nats per sentence", title=what)
        ax.legend(fontsize=8)
    figure.savefig(path)


def main(picture: Path | None = None) -> dict[str, Evaluation]:
    """Train both; returns what they are worth."""
    sentences = orders()
    vocabulary = Vocabulary.build(sentences, min_count=1)
    x = torch.stack([vocabulary.encode(words) for words in sentences])
    lengths = torch.full((len(x),), x.shape[1])
    curves, found = {}, {}
    for name, dropout, beta, free_bits in (
        ("plain", 0.0, None, 0.0),
        ("with remedies", 0.5, Linear(STEPS // 2), 0.5),
    ):
        torch.manual_seed(0)
        model = TextVAE(len(vocabulary), latent=4, word_dim=16, dim=32, encoder_dim=16, word_dropout=dropout)
        curves[name] = train(model, x, beta, free_bits)
        found[name] = evaluate(model, [Batch(x, lengths, lengths)], num_samples=20)
        one = found[name]
        print(f"{name}: log p(x) {one.log_likelihood:.2f}, KL {one.kl:.2f}, mutual information", end=" ")
        print(f"{one.mutual_information.value:.2f} (at most {one.mutual_information.ceiling:.2f}),", end=" ")
        print(f"{one.active_units} active units, z of another sentence costs {one.swapped.gap:.2f} nats")
    model.eval()
    with torch.no_grad():
        ends = model.encode(x[[0, -1]]).mean
        between, sizes = model.generate(interpolate(ends[0], ends[1], 5), max_length=8, greedy=True)
    print("a line in the latent space:")
    for row, n in zip(between, sizes.tolist(), strict=True):
        print("   ", " ".join(vocabulary.decode(row[:n])))
    if picture is not None:
        draw(curves, picture)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
