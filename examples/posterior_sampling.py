"""A posterior as a distribution: the occasionally dishonest casino.

A casino mostly rolls a fair die and now and then changes to a loaded one (Durbin, Eddy, Krogh & Mitchison
1998, section 3.2). Given the rolls, how often was the die changed? The number of changes is a function of the
whole state sequence: its expectation follows from marginals, its distribution does not. Exact samples from
the posterior give it.
"""

from __future__ import annotations

import torch

from structlv import HMM

FAIR, LOADED = 0, 1


def casino() -> HMM:
    """Fair (state 0) and loaded (state 1) die; the loaded one shows its last face half of the time."""
    initial = torch.tensor([0.5, 0.5]).log()
    transition = torch.tensor([[0.95, 0.05], [0.10, 0.90]]).log()
    faces = torch.tensor([[1 / 6] * 6, [0.1] * 5 + [0.5]]).log()
    return HMM(initial, transition, faces)


def main(samples: int = 4000) -> tuple[float, float]:
    """Roll, look back at the rolls; returns the expected number of changes, exactly and from samples."""
    generator = torch.Generator().manual_seed(4)
    hmm = casino()
    rolls, truth = hmm.sample((), length=120, generator=generator, with_states=True)
    posterior = hmm.posterior(rolls)

    print("rolls  ", "".join(str(r + 1) for r in rolls.tolist()))
    print("die    ", "".join("FL"[z] for z in truth.tolist()))
    print("Viterbi", "".join("FL"[z] for z in posterior.argmax().tolist()))
    print(f"entropy of the posterior: {posterior.entropy():.2f} nats")

    edges = posterior.marginals().transition  # expected number of each kind of step
    exact = (edges[FAIR, LOADED] + edges[LOADED, FAIR]).item()
    drawn = posterior.sample((samples,), generator=generator)  # (samples, 120)
    changes = (drawn[:, 1:] != drawn[:, :-1]).sum(-1)
    estimate = changes.double().mean().item()
    in_truth = int((truth[1:] != truth[:-1]).sum())
    print(f"changes of the die: {in_truth} in truth; expected {exact:.3f}, {estimate:.3f} by samples")
    for count in range(int(changes.max()) + 1):
        share = (changes == count).double().mean().item()
        if share > 0.005:
            print(f"  {count:2d} changes: {share:5.1%} {'#' * round(share * 100)}")
    return exact, estimate


if __name__ == "__main__":
    main()
