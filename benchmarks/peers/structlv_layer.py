"""structlv's CRF layer, called exactly as pytorch-crf's."""

from __future__ import annotations

from benchmarks.peers.layer_step import step
from benchmarks.peers.structlv import VALIDATE
from structlv.models import CRF


def prepare(query, inputs):
    return step(CRF(inputs["unary"].shape[-1], validate_args=VALIDATE), inputs)
