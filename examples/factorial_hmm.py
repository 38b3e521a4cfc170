"""Energy disaggregation: which appliances are on, from nothing but the house's total power.

Every appliance is a chain of its own, and the meter reads the sum: a factorial HMM with additive Gaussian
emissions, learned by EM from the totals alone. The readings are simulated, so what was really on is known.
"""

from __future__ import annotations

import itertools
from functools import partial

import torch
from torch import Tensor

from structlv import AdditiveGaussian, FactorialHMM
from structlv.learning import fit_em, random_gaussian

NAMES = ("fridge", "washing machine", "heater")
POWERS = ([0.0, 0.15], [0.0, 2.1], [0.0, 0.7, 1.4])  # kW of each state
STAY = (0.75, 0.9, 0.85)
NOISE = 0.02


def house() -> FactorialHMM:
    """The simulated house."""
    rows = []
    for powers, stay in zip(POWERS, STAY, strict=True):
        k = len(powers)
        leave = (1 - stay) / (k - 1)
        rows.append((torch.full((k, k), leave) + (stay - leave) * torch.eye(k)).double().log())
    means = [torch.tensor(powers, dtype=torch.float64).unsqueeze(-1) for powers in POWERS]
    noise = torch.tensor([[NOISE**2]], dtype=torch.float64)
    initial = [torch.zeros(len(powers), dtype=torch.float64) for powers in POWERS]
    return FactorialHMM(initial, rows, AdditiveGaussian(means, noise))


def levels(model: FactorialHMM) -> list[Tensor]:
    """What each state of each chain adds to its chain's lowest one, kW: the sums alone are known."""
    return [m.flatten() - m.min() for m in model.emission.means]


def matched(model: FactorialHMM, truth: FactorialHMM) -> list[int]:
    """Which chain of the model is which appliance: sizes agree, and levels are as near as can be."""
    found, real = levels(model), levels(truth)

    def distance(order: tuple[int, ...]) -> float:
        if any(len(found[j]) != len(real[i]) for i, j in enumerate(order)):
            return float("inf")
        pairs = zip(order, real, strict=True)
        return sum(float((found[j].sort().values - levels.sort().values).abs().sum()) for j, levels in pairs)

    return list(min(itertools.permutations(range(len(real))), key=distance))


def main() -> float:
    """Learn, decode, fill in; returns the part of the power that was put down to the right appliance."""
    truth = house()
    generator = torch.Generator().manual_seed(0)
    x, states = truth.sample((10,), length=96, with_states=True, generator=generator)  # days of 96 quarters
    observed = torch.rand(10, 96, generator=generator) > 0.05  # the meter missed some readings
    begin = partial(random_gaussian, (2, 2, 3), x.flatten(0, 1), stay=2.0)
    result = fit_em(begin, x, mask=observed, seeds=range(6), progress=False)
    model = result.model
    print(f"log-likelihood {result.log_likelihood:.1f}, of the true house", end=" ")
    print(f"{float(truth.log_prob(x, mask=observed).sum()):.1f}; start {result.seed} was the best of 6")

    order = matched(model, truth)
    decoded = model.posterior(x, mask=observed).argmax()
    power = [levels(model)[j][decoded[:, j]] for j in order]
    real = [row[states[:, i]] for i, row in enumerate(levels(truth))]
    for name, j, mine, actual in zip(NAMES, order, power, real, strict=True):
        learned = ", ".join(f"{v:.2f}" for v in levels(model)[j].sort().values)
        energy = f"{float(mine.sum()) / 4:.1f} kWh (really {float(actual.sum()) / 4:.1f})"
        print(f"{name}: levels {learned} kW, {energy}")

    wrong = sum(float((a - b).abs().sum()) for a, b in zip(power, real, strict=True))
    right = 1 - wrong / (2 * sum(float(b.sum()) for b in real))
    print(f"{right:.1%} of the energy is with the right appliance, missed readings included")
    return right


if __name__ == "__main__":
    main()
