"""Sentences as points: the words of each from a softmax that is linear in a vector of two numbers.

Reviews are simulated, of two properties that are independent: what it is about (food or music) and how good
it was. Continuous Naive Bayes finds a plane in which both can be read off, and two bounds and two estimates
of log p(x) say how well it knows them, and what its encoder misses. Kim, Wiseman & Rush 2018, sections 3.2
and 6.2.3.

Ends with a picture of the plane; ``python examples/latent_directions.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from structlv.data import Vocabulary
from structlv.learning import annealed_log_likelihood, importance_log_likelihood, inference_gap
from structlv.models import ContinuousNaiveBayes

ABOUT = (["soup", "rice", "bread", "plate", "waiter"], ["song", "drum", "voice", "stage", "choir"])
GOOD = (["bad", "dull", "poor", "sad", "weak"], ["good", "fine", "great", "warm", "superb"])
REVIEWS, WORDS, STEPS = 400, 20, 300


def reviews(vocabulary: Vocabulary) -> tuple[Tensor, Tensor, Tensor]:
    """Words (400, 20), half about the topic and half about the quality; and the two properties."""
    about, good = torch.randint(0, 2, (2, REVIEWS))
    halves = []
    for words, which in ((ABOUT, about), (GOOD, good)):
        table = torch.stack([vocabulary.encode(w) for w in words])[which]
        halves.append(table.gather(1, torch.randint(0, table.shape[1], (REVIEWS, WORDS // 2))))
    return torch.cat(halves, 1), about, good


def draw(mean: Tensor, about: Tensor, good: Tensor, path: Path) -> None:
    """Posterior means; colour is the topic, shape the quality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.4), dpi=130, layout="constrained")
    ax = figure.subplots()
    for a, name in enumerate(("food", "music")):
        for g, quality in enumerate(("bad", "good")):
            points = mean[(about == a) & (good == g)]
            ax.scatter(*points.T.tolist(), s=14, color=f"C{a}", marker="xo"[g], label=f"{name}, {quality}")
    ax.set(xlabel="z, first", ylabel="z, second")
    ax.legend(fontsize=8)
    figure.savefig(path)


def main(picture: Path | None = None) -> tuple[float, list[float]]:
    """Learn; returns the part of reviews with both properties like the nearest one, and estimates."""
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([*ABOUT, *GOOD], min_count=1)
    x, about, good = reviews(vocabulary)
    model = ContinuousNaiveBayes(len(vocabulary), latent=2, encoder_dim=32)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(STEPS):
        optimiser.zero_grad()
        (-model.elbo(x).bound.mean()).backward()
        optimiser.step()
    with torch.no_grad():
        mean = model.encode(x).mean
        nearest = torch.cdist(mean, mean).fill_diagonal_(torch.inf).argmin(-1)
        alike = float(((about[nearest] == about) & (good[nearest] == good)).float().mean())
    few = x[:25]
    gap = inference_gap(model, few, num_samples=500, steps=40)
    estimates = {
        "ELBO of the encoder": gap.elbo,
        "ELBO of the best Gaussian": gap.best,
        "importance sampling, 500 draws": importance_log_likelihood(model, few, num_samples=500),
        "annealed importance sampling": annealed_log_likelihood(model, few, temperatures=50).log_likelihood,
    }
    for name, values in estimates.items():
        print(f"{name:32} {values.mean().item():8.3f} nats per review")
    for row, column in zip(("first", "second"), model.weight.detach().T, strict=True):
        order = column.argsort()
        low, high = (" ".join(vocabulary.decode(words)) for words in (order[:5], order[-5:]))
        print(f"z, {row}: {low}  <->  {high}")
    print(f"{alike:.0%} of the reviews lie next to one of the same topic and quality")
    if picture is not None:
        draw(mean, about, good, picture)
    return alike, [values.mean().item() for values in estimates.values()]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
