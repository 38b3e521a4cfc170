"""Which way round is the divergence? Wake-sleep and reweighted wake-sleep beside the evidence lower bound.

Two noisy sums of two numbers z are seen. The posterior of z is a narrow, slanting Gaussian; q(z | x) has no
slant. The ELBO minimises KL(q || p): q keeps inside, with the conditional variances 1 / Lambda_ii. The sleep
phase minimises KL(p || q) on dreams of the model: q covers, with the marginal variances Sigma_ii. Reweighted
wake-sleep tries the same on the data, with weighted draws of q, and comes near with many. Where the model
learns as well, all of them turn it (the prior is round, so the likelihood does not mind) until hardly any
slant is left, and q fits. Kim, Wiseman & Rush 2018, section 7.1.

Ends with a picture of the ellipses; ``python examples/wake_sleep.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from structlv.data import Batch
from structlv.learning import EvidenceLowerBound, ReweightedWakeSleep, WakeSleep
from structlv.models import Elbo, elbo_under
from structlv.models.families import diagonal_gaussian

MIX, NOISE = ((1.0, 0.6), (0.5, 0.9)), 0.4
BATCH, STEPS = 256, 120
WAYS: dict[str, Callable[[Any], Any]] = {
    "ELBO": EvidenceLowerBound,
    "reweighted, 4 draws": lambda model: ReweightedWakeSleep(model, num_samples=4),
    "reweighted, 64 draws": lambda model: ReweightedWakeSleep(model, num_samples=64),
    "wake-sleep": WakeSleep,
}
SHADES, ROWS, COLUMNS, REACH = " ░▒▓█", 13, 29, 1.9


class Sums(nn.Module):
    """z ~ N(0, I); x = W z + noise. q(z | x) = N(A x, diag(v)), v the same for all x."""

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(MIX), requires_grad=learned)
        self.reader = nn.Linear(2, 2, bias=False)
        self.log_variance = nn.Parameter(torch.zeros(2))

    def prior(self, context: Any = None) -> Independent:
        return diagonal_gaussian(torch.zeros(2), torch.zeros(2))

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Independent:
        mean = self.reader(x)
        return diagonal_gaussian(mean, self.log_variance.expand_as(mean))

    def sums(self, z: Tensor) -> Independent:
        return Independent(Normal(z @ self.weight.T, NOISE), 1)

    def log_likelihood(self, x: Tensor, lengths: Tensor | None, z: Tensor) -> Tensor:
        return self.sums(z).log_prob(x)

    def generate(self, z: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.sums(z).sample(), torch.full(z.shape[:1], 2)

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        return elbo_under(self.encode(x), self, x, lengths)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z | x), exact."""
        precision = torch.eye(2) + self.weight.T @ self.weight / NOISE**2
        mean = x @ self.weight @ precision.inverse() / NOISE**2
        return MultivariateNormal(mean, precision_matrix=precision)


class Outcome(NamedTuple):
    """Of one way of learning.

    Attributes:
        variances: of q.
        inside, covering: mean KL(q || p(z | x)) and KL(p(z | x) || q), nats.
        correlation: of the model's posterior.
    """

    variances: list[float]
    inside: float
    covering: float
    correlation: float


class Found(NamedTuple):
    """Sigma_ii and 1 / Lambda_ii of the true posterior; outcomes where the model is known, and learns too."""

    marginal: list[float]
    conditional: list[float]
    known: dict[str, Outcome]
    learned: dict[str, Outcome]


def learn(way: Callable[[Any], Any], *, learned: bool) -> Sums:
    """From ever new data of the true model; the encoder, and where ``learned`` the model."""
    torch.manual_seed(0)
    model, truth = Sums(learned=learned), Sums(learned=False)
    objective, lengths = way(model).train(), torch.full((BATCH,), 2)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, STEPS)
    for _ in range(STEPS):
        x, _ = truth.generate(truth.prior().sample((BATCH,)))
        value, _ = objective.nats(Batch(x, lengths, lengths))
        optimiser.zero_grad()
        (-value.mean()).backward()
        optimiser.step()
        schedule.step()
    return model


@torch.no_grad()
def outcome(model: Sums, x: Tensor) -> Outcome:
    p, variances = model.posterior(x), model.log_variance.exp()
    q = MultivariateNormal(model.encode(x).mean, torch.diag(variances))
    (a, c), (_, b) = p.covariance_matrix[0].tolist()
    divergences = (kl_divergence(*pair).mean().item() for pair in ((q, p), (p, q)))
    return Outcome(variances.tolist(), *divergences, c / math.sqrt(a * b))


def ellipse(q: Any, points: int = 80) -> Tensor:
    """Two standard deviations of q from its mean, (points, 2); q a diagonal Gaussian (1, 2)."""
    angle = torch.linspace(0, 2 * math.pi, points)
    return q.mean + 2 * q.stddev * torch.stack([angle.cos(), angle.sin()], -1)


def density(p: MultivariateNormal, rows: int, columns: int) -> Tensor:
    """p (1, 2) on a grid (rows, columns), relative to its maximum; the first row is the highest z_2."""
    down, right = torch.linspace(REACH, -REACH, rows), torch.linspace(-REACH, REACH, columns)
    z = torch.stack(torch.meshgrid(right, down, indexing="xy"), -1)
    return (p.log_prob(z) - p.log_prob(p.mean)).exp()


@torch.no_grad()
def as_text(model: Sums, x: Tensor) -> list[str]:
    """The posterior as shades, q as a ring of o."""
    shades = density(model.posterior(x), ROWS, COLUMNS)
    rows = [[SHADES[math.ceil(4 * p - 0.1)] for p in row] for row in shades.tolist()]
    for right, up in ellipse(model.encode(x)).tolist():
        i, j = (round((1 + v / REACH) / 2 * (n - 1)) for v, n in ((-up, ROWS), (right, COLUMNS)))
        if 0 <= i < ROWS and 0 <= j < COLUMNS:
            rows[i][j] = "o"
    return ["".join(row) for row in rows]


@torch.no_grad()
def draw(models: dict[str, Sums], x: Tensor, path: Path) -> None:
    """Of one x: the posterior, and two standard deviations of q."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(models), 2.8), dpi=130, layout="constrained")
    for ax, (name, model) in zip(figure.subplots(1, len(models)), models.items(), strict=True):
        extent = (-REACH, REACH, -REACH, REACH)
        ax.imshow(density(model.posterior(x), 120, 120).numpy(), extent=extent, cmap="Blues")
        ax.plot(*ellipse(model.encode(x)).T.tolist(), color="C3")
        ax.set(title=name, xlabel="first", ylabel="second")
    figure.savefig(path)


def main(picture: Path | None = None) -> Found:
    """Learn in every way, with the model known and with the model to be learned."""
    torch.manual_seed(0)
    truth = Sums(learned=False)
    x, _ = truth.generate(truth.prior().sample((500,)))
    p = truth.posterior(x[:1])
    marginal = p.covariance_matrix[0].diagonal().tolist()
    conditional = (1 / p.precision_matrix[0].diagonal()).tolist()
    known = {name: learn(way, learned=False) for name, way in WAYS.items()}
    outcomes = {name: outcome(model, x) for name, model in known.items()}
    for name, (first, second) in (("1 / Lambda_ii", conditional), ("Sigma_ii", marginal)):
        print(f"{name:22}    {first:.3f} {second:.3f}")
    print(f"{'learned by':22} variances of q  KL(q || p)  KL(p || q)")
    for name, found in outcomes.items():
        first, second = found.variances
        print(f"{name:22}    {first:.3f} {second:.3f}  {found.inside:10.2f}  {found.covering:10.2f}")
    learned = {name: outcome(learn(way, learned=True), x) for name, way in WAYS.items()}
    print("correlation of p(z | x), of the true model and of learned ones:")
    slants = [f"{found.correlation:.2f} ({name})" for name, found in learned.items()]
    print(f"  {outcomes['ELBO'].correlation:.2f}; {', '.join(slants)}")
    middle = torch.zeros(1, 2)
    panels = [as_text(known[name], middle) for name in ("ELBO", "wake-sleep")]
    print(f"\n{'ELBO':{COLUMNS}} | wake-sleep")
    for pair in zip(*panels, strict=True):
        print(" | ".join(pair).rstrip())
    if picture is not None:
        draw(known, middle, picture)
    return Found(marginal, conditional, outcomes, learned)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
