"""An HMM with Gaussian emissions, fitted by gradient to the eruptions of a geyser.

Old Faithful's eruptions are short or long, and a short one is nearly always followed by a long one: two
states. Any torch distribution serves as emission. Where the data file is missing, a series is drawn from such
a process instead.
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from structlv import HMM

DATA = Path(os.environ.get("STRUCTLV_DATA", Path(__file__).parents[2] / "shared" / "data")) / "timeseries"


class GaussianHMM(nn.Module):
    """K states, each with a mean and a scale; all parameters free."""

    def __init__(self, means: Tensor, scale: float) -> None:
        super().__init__()
        k = len(means)
        self.initial = nn.Parameter(torch.zeros(k, dtype=means.dtype))
        self.transition = nn.Parameter(torch.zeros(k, k, dtype=means.dtype))
        self.means = nn.Parameter(means.clone())
        self.log_scales = nn.Parameter(torch.full_like(means, math.log(scale)))

    def forward(self) -> HMM:
        return HMM(self.initial, self.transition, Normal(self.means, self.log_scales.exp()))


def series() -> Tensor:
    """Minutes that the eruptions lasted, (n,) float64."""
    path = DATA / "faithful.csv"
    if path.exists():
        with open(path, newline="") as file:
            return torch.tensor(
                [float(row["eruptions"]) for row in csv.DictReader(file)], dtype=torch.float64
            )
    two = torch.tensor([2.0, 4.3], dtype=torch.float64)
    rows = torch.tensor([[0.05, 0.95], [0.55, 0.45]], dtype=torch.float64).log()
    return HMM(torch.zeros(2, dtype=torch.float64), rows, Normal(two, 0.35)).sample((), length=272)


def main(steps: int = 400) -> float:
    """Fit, decode, predict; returns the log-likelihood."""
    torch.manual_seed(0)
    x = series()
    model = GaussianHMM(torch.quantile(x, torch.tensor([0.2, 0.8], dtype=x.dtype)), float(x.std()))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        loss = -model().log_prob(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with torch.no_grad():
        hmm = model()
        log_prob = hmm.log_prob(x).item()
        print(f"log-likelihood of {len(x)} eruptions: {log_prob:.3f}")
        for i, (mean, scale) in enumerate(zip(model.means, model.log_scales.exp(), strict=True)):
            after = ", ".join(f"{p:.2f}" for p in hmm.transition_logits.exp()[i])
            print(f"state {i}: {mean:.2f} ± {scale:.2f} minutes; states 0, 1 follow with {after}")
        print("first twenty states:", *hmm.posterior(x).argmax()[:20].tolist())

        hidden = x.clone()
        observed = torch.ones(len(x), dtype=torch.bool)
        observed[100:103] = False
        hidden[100:103] = torch.nan  # never looked at
        filled = hmm.posterior(hidden, mask=observed).marginals().unary[100:103] @ model.means
        were = [f"{new:.2f} (was {old:.2f})" for new, old in zip(filled, x[100:103], strict=True)]
        print("three missing values:", ", ".join(were))
        ahead = hmm.predict(x, 3).exp() @ model.means
        print("expected next:", ", ".join(f"{v:.2f}" for v in ahead))
    return log_prob


if __name__ == "__main__":
    main()
