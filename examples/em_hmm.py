"""The same HMM learned in three ways: by EM, by the gradient of the log-likelihood, by stepwise EM.

Two states, and the letters and blanks of a speech; nobody says what the states are, and from this start (all
three climb to a local maximum) they become vowels and consonants. EM maximises Q(theta, theta_i) =
E[log p(x, z; theta)] under p(z | x; theta_i). At theta_i its gradient is that of the log-likelihood, so that
a small step up either is the same; elsewhere they differ, and where Q is highest its own is 0. Kim, Wiseman &
Rush 2018, sections 5.1 and 5.2; the letters: Cave & Neuwirth 1980, "Hidden Markov models for English".

Ends with a picture of the three climbs, and of Q touching the likelihood from below;
``python examples/em_hmm.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from structlv import HMM
from structlv.learning import Prior, fit_em, fit_stepwise_em, hmm_of_symbols

SPEECH = """
four score and seven years ago our fathers brought forth on this
continent a new nation conceived in liberty and dedicated to the
proposition that all men are created equal now we are engaged in
a great civil war testing whether that nation or any nation so
conceived and so dedicated can long endure we are met on a great
battle field of that war we have come to dedicate a portion of
that field as a final resting place for those who here gave
their lives that that nation might live it is altogether fitting
and proper that we should do this but in a larger sense we can
not dedicate we can not consecrate we can not hallow this ground
the brave men living and dead who struggled here have
consecrated it far above our poor power to add or detract
"""  # Abraham Lincoln, Gettysburg, 1863
PASSES, RATE = (1, 2, 4, 8, 16, 32), 0.02
SHADES = " ░▒▓█"


class Found(NamedTuple):
    """Nats per letter after so many PASSES over the data, and how far the gradients of Q and L are apart."""

    curves: dict[str, list[float]]
    here: float
    elsewhere: float


def by_em(start: HMM, x: Tensor, lengths: Tensor) -> tuple[HMM, list[float]]:
    """The result, and log p(x) after each of PASSES."""
    found = fit_em(start, x, lengths, iterations=PASSES[-1], tolerance=0.0, progress=False)
    return found.model, [found.history[n] for n in PASSES]


def by_gradient(start: HMM, x: Tensor, lengths: Tensor) -> list[float]:
    """Plain ascent of log p(x), a step a pass; at a rate of 0.03 it falls at times."""
    model, history = start, []
    for _ in range(PASSES[-1] + 1):
        parameters = [t.detach().requires_grad_() for t in parameters_of(model)]
        value = HMM(*parameters).log_prob(x, lengths).sum()
        history.append(value.item())
        slopes = torch.autograd.grad(value, parameters)
        model = HMM(*(t.detach() + RATE * slope for t, slope in zip(parameters, slopes, strict=True)))
    return [history[n] for n in PASSES]


def by_stepwise_em(start: HMM, x: Tensor, lengths: Tensor) -> list[float]:
    """An M-step after every line; a letter that the first one lacks must not become impossible."""
    options = {"prior": Prior(emission=0.01), "batch_size": 1, "progress": False}
    return [fit_stepwise_em(start, x, lengths, passes=n, **options).log_likelihood for n in PASSES]


def parameters_of(model: HMM) -> list[Tensor]:
    assert isinstance(model.emission, Tensor)
    return [model.initial_logits, model.transition_logits, model.emission]


def expected(old: HMM, new: HMM, x: Tensor, lengths: Tensor) -> Tensor:
    """Q(new, old): the mean of log p(x, z; new) = log p(x; new) + log p(z | x; new) over p(z | x; old)."""
    posterior = new.posterior(x, lengths)
    return (posterior.log_partition() - old.posterior(x, lengths).cross_entropy(posterior)).sum()


def apart(old: HMM, at: HMM, x: Tensor, lengths: Tensor) -> tuple[float, float, float]:
    """Norms of the gradients, by ``at``'s logits, of Q(at, old), of log p(x; at), and of their difference."""
    parameters = [t.clone().requires_grad_() for t in parameters_of(at)]
    values = (
        expected(old, HMM(*parameters), x, lengths),
        HMM(*parameters).log_prob(x, lengths).sum(),
    )
    of_q, of_l = (torch.cat([g.flatten() for g in torch.autograd.grad(v, parameters)]) for v in values)
    return float(of_q.norm()), float(of_l.norm()), float((of_q - of_l).norm())


def between(old: HMM, new: HMM, share: float) -> HMM:
    """A point of the line through both."""
    pairs = zip(parameters_of(old), parameters_of(new), strict=True)
    return HMM(*(torch.lerp(a, b, share) for a, b in pairs))


def draw(curves: dict[str, list[float]], old: HMM, new: HMM, x: Tensor, lengths: Tensor, path: Path) -> None:
    """The climbs; and along the line from theta_i to theta_(i+1) the likelihood and the bound under it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(PASSES, curve, "o-", ms=3, label=name)
    left.set(xscale="log", xlabel="passes over the data", ylabel="nats per letter", title="log-likelihood")
    left.set_xticks(PASSES, [str(n) for n in PASSES])
    left.legend(fontsize=8)
    letters, entropy = int(lengths.sum()), old.posterior(x, lengths).entropy().sum()
    shares = torch.linspace(-1.0, 2.0, 31).tolist()
    points = [between(old, new, share) for share in shares]
    right.plot(shares, [p.log_prob(x, lengths).sum().item() / letters for p in points], label="log p(x; θ)")
    bounds = [(expected(old, p, x, lengths) + entropy).item() / letters for p in points]
    right.plot(shares, bounds, label="Q(θ, θᵢ) + entropy")
    right.set_xticks([0, 1], ["θᵢ", "θᵢ₊₁"])
    right.set(ylabel="nats per letter", title="what an M-step climbs")
    right.legend(fontsize=8)
    figure.savefig(path)


def main(picture: Path | None = None) -> Found:
    """Learn in all ways; returns the curves, and the gradients' differences."""
    lines = SPEECH.strip().splitlines()
    alphabet = sorted(set("".join(lines)))
    encoded = [torch.tensor([alphabet.index(letter) for letter in line]) for line in lines]
    x, lengths = pad_sequence(encoded, batch_first=True), torch.tensor([len(line) for line in lines])
    letters, counts = int(lengths.sum()), torch.bincount(torch.cat(encoded))
    start = hmm_of_symbols(2, counts, seed=4, spread=0.5)

    model, em = by_em(start, x, lengths)
    curves = {
        name: [value / letters for value in curve]
        for name, curve in (
            ("EM", em),
            ("gradient", by_gradient(start, x, lengths)),
            ("stepwise EM", by_stepwise_em(start, x, lengths)),
        )
    }
    print(f"{'nats per letter after':>24} " + " ".join(f"{n:>7}" for n in PASSES) + "  passes")
    for name, curve in curves.items():
        print(f"{name:>24} " + " ".join(f"{value:7.4f}" for value in curve))

    old, new = (fit_em(start, x, lengths, iterations=n, tolerance=0.0, progress=False).model for n in (4, 5))
    differences = []
    for name, at in (("theta_i", old), ("theta_i+1", new)):
        of_q, of_l, difference = apart(old, at, x, lengths)
        differences.append(difference)
        print(
            f"gradients at {name:9}: of Q {of_q:8.2e}, of log p(x) {of_l:8.2e}, difference {difference:8.2e}"
        )
    states = model.posterior(x, lengths).marginals().unary.flatten(0, 1)
    of_letter = torch.zeros(len(alphabet), 2, dtype=states.dtype).index_add(0, x.flatten(), states)
    share = of_letter / of_letter.sum(-1, keepdim=True)
    order = share[:, 0].argsort().tolist()
    print("the letters' states, as EM found them (_ is between words)")
    print("   " + " ".join(alphabet[i].replace(" ", "_") for i in order))
    for state, column in enumerate(share.T.tolist()):
        print(f" {state} " + " ".join(SHADES[round(4 * column[i])] for i in order))
    if picture is not None:
        draw(curves, old, new, x, lengths, picture)
    return Found(curves, *differences)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
