"""Factorial HMMs over symbols beside ordinary ones: equal numbers of parameters, and nats per event."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from structlv.distributions import FactorialHMM


def num_parameters(sizes: Sequence[int], vocab_size: int) -> int:
    """Free parameters of a factorial HMM with log-linear symbols; of one chain, of an HMM.

    Of each chain k - 1 + k (k - 1); of its scores of symbols one row is zero without loss, and chains
    share a bias.
    """
    chains = sum(k - 1 + k * (k - 1) for k in sizes)
    return chains + (vocab_size - 1) * (1 + sum(k - 1 for k in sizes))


def states_of_equal_parameters(sizes: Sequence[int], vocab_size: int) -> int:
    """The number of states of the HMM whose number of parameters is nearest; of two as near the larger."""
    wanted, k = num_parameters(sizes, vocab_size), 1
    while num_parameters((k + 1,), vocab_size) <= wanted:
        k += 1
    below, above = (num_parameters((states,), vocab_size) for states in (k, k + 1))
    return k if wanted - below < above - wanted else k + 1


def padded(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Right-padded (b, n), and lengths (b)."""
    return pad_sequence(list(sequences), batch_first=True), torch.tensor([len(s) for s in sequences])


@torch.no_grad()
def nats_per_event(model: FactorialHMM, sequences: Sequence[Tensor]) -> float:
    """Minus the mean log probability of an observation, the lengths given."""
    x, lengths = padded(sequences)
    return -float(model.log_prob(x, lengths=lengths).double().sum()) / int(lengths.sum())
