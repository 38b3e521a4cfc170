"""A structured VAE of a time series: Old Faithful's eruptions, how long they last and how long one waits.

States follow one another as in an HMM, and give a Gaussian value each; what is seen is a curved function of
the value, so that clouds of any shape can belong to one state. Inference alternates between the values and
the states (block coordinate ascent), which the bound's gradient goes through. Johnson et al. 2016; Kim,
Wiseman & Rush 2018, section 6.4.2. Where the data file is missing, a series is drawn from a process like the
geyser's instead.

Ends with a picture of data and values; ``python examples/structured_series.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from structlv import HMM
from structlv.models import StructuredGaussianVAE

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data")) / "timeseries"
STATES = 4


def series() -> Tensor:
    """Minutes of each eruption and of the wait for the next one, (n, 2)."""
    path = DATA / "faithful.csv"
    if path.exists():
        with open(path, newline="") as file:
            return torch.tensor([[float(r["eruptions"]), float(r["waiting"])] for r in csv.DictReader(file)])
    kinds = Independent(Normal(torch.tensor([[2.0, 54.0], [4.3, 80.0]]), torch.tensor([0.35, 6.0])), 1)
    rows = torch.tensor([[0.05, 0.95], [0.55, 0.45]]).log()
    return HMM(torch.zeros(2), rows, kinds).sample((), length=272)


def scatter(points: Tensor, states: Tensor, width: int = 60, height: int = 16) -> str:
    """Points (n, 2) as text, each its state's number."""
    low, high = points.amin(0), points.amax(0)
    places = ((points - low) / (high - low) * torch.tensor([width - 1, height - 1])).round().long()
    lines = [[" "] * width for _ in range(height)]
    for (x, y), state in zip(places.tolist(), states.tolist(), strict=True):
        lines[height - 1 - y][x] = str(state)
    return "\n".join("".join(line) for line in lines)


def draw(x: Tensor, values: Tensor, states: Tensor, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for ax, points in ((left, x), (right, values)):
        ax.scatter(*points.T.numpy(), c=[f"C{z}" for z in states.tolist()], s=12)
    left.set(xlabel="minutes of the eruption", ylabel="minutes until the next", title="what is seen")
    right.set(xlabel="u, first", ylabel="u, second", title="mean of q(u): the values behind")
    figure.savefig(path)


def main(picture: Path | None = None, steps: int = 150) -> tuple[float, Tensor]:
    """Learn; returns the importance-weighted bound in nats per eruption, and the states."""
    torch.manual_seed(0)
    x = series()
    seen = ((x - x.mean(0)) / x.std(0)).unsqueeze(0)
    model = StructuredGaussianVAE(2, num_states=STATES, latent=2, dim=16, iterations=3)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        bound = model.elbo(seen).bound.mean() / len(x)
        optimiser.zero_grad()
        (-bound).backward()
        optimiser.step()
        if (step + 1) % (steps // 3) == 0:
            print(f"step {step + 1}: bound {bound.item():.3f} nats per eruption")
    with torch.no_grad():
        factors = model.factors(seen)
        states, values = factors.states.argmax()[0], factors.values.mean[0]
        bound = model.importance_bound(seen, num_samples=64).item() / len(x)
        rows = model.transition_logits.softmax(-1)
    print(f"importance-weighted bound {bound:.3f} nats per eruption\n")
    for k in states.unique().tolist():
        minutes, wait = x[states == k].mean(0).tolist()
        after = ", ".join(f"{p:.2f}" for p in rows[k])
        count = int((states == k).sum())
        print(
            f"state {k}: {count:3d} eruptions of {minutes:.1f} minutes, {wait:.0f} to the next; then {after}"
        )
    print(f"\nminutes of the eruption (across) and until the next one (up)\n{scatter(x, states)}")
    if picture is not None:
        draw(x, values, states, picture)
    return bound, states


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
