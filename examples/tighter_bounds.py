"""Where is the phone? What a richer posterior, or more draws from a poor one, are worth in nats.

Two masts measure a phone's distance, one well and one badly: it is somewhere on an arc. The posterior is a
banana in the plane, and log p(x) a sum over a grid. A network reads the distances and says where the phone
may be, as a diagonal Gaussian or through a flow. What its lower bound lacks of log p(x) has two parts: the
approximation gap, what the best member of the family lacks, found by ascent in the features of each item; and
the amortisation gap, what the network lacks beside it. Flows narrow the first, ascent after the network the
second. Importance weighting needs no better family: with every draw the bound is tighter, and for many draws
the network learns another q, a wide one that is poor for a single draw. Kim, Wiseman & Rush 2018, section
6.3; Cremer, Li & Duvenaud 2018, "Inference suboptimality in variational autoencoders".

Ends with a picture of the posteriors; ``python examples/tighter_bounds.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from structlv.learning import importance_bound, importance_log_likelihood, inference_gap, refine
from structlv.learning.importance import log_joint, log_mean_exp
from structlv.learning.refine import standard
from structlv.models import GaussianFamily, InverseAutoregressiveFlow, PlanarFlow, elbo_under
from structlv.models.families import diagonal_gaussian

MASTS, NOISE = torch.tensor([[0.0, -2.0], [-2.0, 0.0]]), torch.tensor([0.15, 0.8])
ITEMS, BATCH, STEPS, HASTE, FEATURES = 24, 64, 200, 40, 32
DRAWS, ASCENT, REACH = (1, 8, 64), 6, 3.5


class Found(NamedTuple):
    """Nats that lack of log p(x), means over items.

    Attributes:
        families: by name (approximation gap, amortisation gap).
        ascended: by name what the Gaussian of a hasty network lacks, and what ascent makes of it.
        weighted: by the draws that the network learned for what lacks with each of DRAWS.
        log_likelihood, estimates: log p(x) by the grid, and by importance sampling from two Gaussians: the
            best one (as ``inference_gap`` does), a few of whose draws weigh most, and the wide one.
    """

    families: dict[str, tuple[float, float]]
    ascended: dict[str, float]
    weighted: dict[int, list[float]]
    log_likelihood: float
    estimates: dict[str, float]


class Phone(nn.Module):
    """z ~ N(0, I) in the plane; x its two distances, measured. q(z | x) = family(reader(x))."""

    def __init__(self, family: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.reader: nn.Module = nn.Sequential(nn.Linear(2, FEATURES), nn.Tanh())
        self.family = family(FEATURES, 2)

    def prior(self, context: Any = None) -> Independent:
        return diagonal_gaussian(torch.zeros(2), torch.zeros(2))

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Distribution:
        return self.family(self.reader(x))

    def measured(self, z: Tensor) -> Independent:
        distances = (z.unsqueeze(-2) - MASTS).square().sum(-1).sqrt()
        return Independent(Normal(distances, NOISE), 1)

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        return self.measured(z).log_prob(x)

    def draw(self, count: int) -> Tensor:
        return self.measured(self.prior().sample((count,))).sample()


class Fixed(nn.Module):
    """Features of each item, whatever is read."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = nn.Parameter(features.detach())

    def forward(self, x: Tensor) -> Tensor:
        return self.features.repeat(len(x) // len(self.features), 1)


def on_a_grid(model: Phone, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) (b), and p(z | x) (b, 141, 141) where z's second coordinate is the row."""
    line = torch.linspace(-REACH, REACH, 141)
    z = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 1, 2)
    joint = log_joint(model, x, None, z.expand(-1, len(x), -1))
    cell = 2 * (line[1] - line[0]).log()
    return joint.logsumexp(0) + cell, joint.softmax(0).T.reshape(len(x), 141, 141)


def learn(
    objective: Callable[[Tensor], Tensor],
    parameters: Any,
    batch: Callable[[], Tensor],
    *,
    steps: int = STEPS,
    lr: float = 0.02,
) -> None:
    """Maximise the mean of ``objective`` over batches; the rate falls."""
    optimiser = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        (-objective(batch()).mean()).backward()
        optimiser.step()
        schedule.step()


def elbo(model: Phone, x: Tensor) -> Tensor:
    return elbo_under(model.encode(x), model, x).bound


def weighted(model: Phone, x: Tensor) -> Tensor:
    return importance_bound(model, x, num_samples=DRAWS[1])


def after_ascent(model: Phone, x: Tensor) -> Tensor:
    """The ELBO at what a few steps make of the network's output; the network learns through them."""
    return elbo_under(ascended(model, x, through=True), model, x).bound


def ascended(model: Phone, x: Tensor, *, through: bool = False) -> Distribution:
    return refine(model.encode(x), model, x, steps=ASCENT, lr=0.1, num_samples=8, through=through)


def trained(
    family: Callable[[int, int], nn.Module],
    objective: Callable[[Phone, Tensor], Tensor] = elbo,
    steps: int = STEPS,
) -> Phone:
    torch.manual_seed(1)
    model = Phone(family)
    learn(lambda x: objective(model, x), model.parameters(), lambda: model.draw(BATCH), steps=steps)
    return model


def best_of_the_family(model: Phone, x: Tensor) -> Distribution:
    """Of each item: ascent of its ELBO in its features, from the network's (section 5.3)."""
    own = deepcopy(model)
    own.reader = features = Fixed(model.reader(x))
    many = x.repeat(8, 1)
    learn(lambda x: elbo(own, x), [features.features], lambda: many, steps=60)
    return own.encode(x)


@torch.no_grad()
def lacking(model: Phone, x: Tensor, log_p: Tensor, q: Distribution | None = None) -> list[float]:
    """Mean of log p(x) less the importance-weighted bound of each of DRAWS; of one draw it is the ELBO."""
    q = model.encode(x) if q is None else q
    z = q.sample((2048,))
    weights = log_joint(model, x, None, z) - q.log_prob(z)
    bounds = (log_mean_exp(weights.unflatten(0, (-1, k)).movedim(1, 0)) for k in DRAWS)
    return [(log_p - bound.mean(0)).mean().item() for bound in bounds]


def families() -> dict[str, Callable[[int, int], nn.Module]]:
    """Those that are installed."""
    found: dict[str, Callable[[int, int], nn.Module]] = {
        "diagonal Gaussian": GaussianFamily,
        "planar flow": PlanarFlow,
    }
    if find_spec("zuko") is None:
        print("(no inverse autoregressive flow: zuko is not installed)")
    else:
        found["inverse autoregressive"] = lambda features, dim: InverseAutoregressiveFlow(
            features, dim, hidden=16
        )
    return found


def draw(models: dict[str, Phone], item: Tensor, posterior: Tensor, found: Found, path: Path) -> None:
    """Draws of each q of one item over its posterior; what lacks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.8 * len(models) + 3.5, 3.2), dpi=130, layout="constrained")
    *plots, last = figure.subplots(1, len(models) + 1)
    for ax, (name, model) in zip(plots, models.items(), strict=True):
        extent = (-REACH, REACH, -REACH, REACH)
        ax.imshow(posterior.numpy(), origin="lower", extent=extent, cmap="Greys", aspect="equal")
        with torch.no_grad():
            ax.scatter(*model.encode(item).sample((300,))[:, 0].T.tolist(), s=2, alpha=0.6)
        ax.scatter(*MASTS.T.tolist(), marker="^", color="C3", s=24)
        ax.set(xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), title=name, xticks=[], yticks=[])
    names = list(found.families)
    approximation, amortisation = (list(part) for part in zip(*found.families.values(), strict=True))
    last.barh(names, approximation, label="approximation")
    last.barh(names, amortisation, left=approximation, label="amortisation")
    last.invert_yaxis()
    last.set(xlabel="nats", title="what lacks of log p(x)")
    last.legend(fontsize=7, loc="lower right")
    figure.savefig(path)


def main(picture: Path | None = None) -> Found:
    """Train them all on draws of the model; what they lack on others."""
    torch.manual_seed(0)
    x = Phone(GaussianFamily).draw(ITEMS)
    models = {name: trained(family) for name, family in families().items()}
    gaussian = models["diagonal Gaussian"]
    log_p, posteriors = on_a_grid(gaussian, x)
    print(f"{'what lacks of log p(x), nats':28}   all  approximation █, amortisation ░")
    parts = {}
    for name, model in models.items():
        total, best = (lacking(model, x, log_p, q)[0] for q in (None, best_of_the_family(model, x)))
        parts[name] = best, total - best
        print(f"{name:28} {total:5.2f}  {'█' * round(40 * best)}{'░' * round(40 * (total - best))}")
    hasty, semi = (trained(GaussianFamily, objective, HASTE) for objective in (elbo, after_ascent))
    alone = standard(gaussian.encode(x))
    ways = {
        "the network": hasty.encode(x),
        f"and {ASCENT} steps of ascent": ascended(hasty, x),
        "learned for these steps": ascended(semi, x),
        "100 steps from N(0, I)": refine(alone, gaussian, x, steps=100, num_samples=8),
    }
    print(f"the Gaussian, from a network that has learned for {HASTE} steps, not {STEPS}")
    steps = {name: lacking(gaussian, x, log_p, q)[0] for name, q in ways.items()}
    for name, total in steps.items():
        print(f"  {name:26} {total:5.2f}  {'▒' * round(40 * total)}")
    wide = trained(GaussianFamily, weighted)
    rows = {1: lacking(gaussian, x, log_p), DRAWS[1]: lacking(wide, x, log_p)}
    print("the Gaussian, importance-weighted with " + ", ".join(map(str, DRAWS)) + " draws")
    for draws, row in rows.items():
        print(f"  learned with {draws:<13} " + " ".join(f"{total:5.2f}" for total in row))
    estimates = {
        "the best Gaussian": inference_gap(gaussian, x, num_samples=500, steps=50).log_likelihood,
        "the wide one": importance_log_likelihood(wide, x, num_samples=500),
    }
    means = {name: each.mean().item() for name, each in estimates.items()}
    rest = ", ".join(f"{value:.2f} from {name}" for name, value in means.items())
    print(f"log p(x) {log_p.mean().item():.2f}; by 500 draws {rest}")
    found = Found(parts, steps, rows, log_p.mean().item(), means)
    if picture is not None:
        shown = {**models, f"Gaussian, {DRAWS[1]} draws": wide}
        draw(shown, x[:1], posteriors[0], found, picture)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
