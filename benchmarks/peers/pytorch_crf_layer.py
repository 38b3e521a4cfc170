"""pytorch-crf as a layer: its loss, forward and backward."""

from __future__ import annotations

from torchcrf import CRF

from benchmarks.peers.layer_step import step


def prepare(query, inputs):
    return step(CRF(inputs["unary"].shape[-1]), inputs)
