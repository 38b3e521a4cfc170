"""A training step of a CRF layer with pytorch-crf's interface: what both implementations are timed on."""

from __future__ import annotations

import torch


def step(model, inputs):
    """Forward and backward on emissions (T,B,K), every gradient anew: of the parameters and the emissions."""
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        model.to(tensors["unary"].dtype)
        model.transitions.copy_(tensors["transition"])
        model.start_transitions.copy_(tensors["initial"])
        model.end_transitions.copy_(tensors["final"])
    emissions = tensors["unary"].transpose(0, 1).contiguous().requires_grad_()
    tags = tensors["tags"].long().T.contiguous()
    mask = torch.arange(len(tags))[:, None] < tensors["lengths"]

    def run():
        model.zero_grad()
        emissions.grad = None
        nats = model(emissions, tags, mask, reduction="none")
        nats.sum().backward()
        return nats, emissions.grad.transpose(0, 1), model.transitions.grad

    return run
