"""From `torch.nn.utils.rnn.PackedSequence`, what recurrent networks give, to padded tensors and lengths."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


class Unpacked(NamedTuple):
    """Right-padded values (b, n, ...), zeros in the padding, and lengths (b) int64 on their device."""

    values: Tensor
    lengths: Tensor


def unpack(packed: PackedSequence) -> Unpacked:
    """The sequences of `packed` in the order in which they were packed; differentiable, O(b n) per feature.

    What comes out goes into every distribution that takes `lengths`: scores into `LinearChain(values,
    transition, lengths=lengths)`, observations into `hmm.log_prob(values, lengths)`.

    Raises:
        TypeError: it is no PackedSequence.
    """
    if not isinstance(packed, PackedSequence):
        raise TypeError(f"expected a torch.nn.utils.rnn.PackedSequence, found {type(packed).__name__}")
    values, lengths = pad_packed_sequence(packed, batch_first=True)
    return Unpacked(values, lengths.to(values.device))
