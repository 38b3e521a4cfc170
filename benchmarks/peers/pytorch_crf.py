"""pytorch-crf: its normaliser (without the tag scores of its public loss, extra work here) and decoder."""

from __future__ import annotations

import torch
from torchcrf import CRF

PACKAGES = ("pytorch-crf", "torch", "numpy")


def prepare(query, inputs):
    if query in ("marginals", "sample"):
        raise NotImplementedError(f"no {'posterior sampling' if query == 'sample' else query}")
    if query == "dense_grad":
        raise NotImplementedError("no transitions that change with the step")
    unary = torch.from_numpy(inputs["unary"]).transpose(0, 1).contiguous().requires_grad_()
    model = CRF(unary.shape[-1])
    with torch.no_grad():
        model.transitions.copy_(torch.from_numpy(inputs["transition"]))
        model.start_transitions.zero_()
        model.end_transitions.zero_()
    model.to(unary.dtype)
    mask = torch.ones(unary.shape[:2], dtype=torch.bool)

    @torch.no_grad()
    def logz():
        return (model._compute_normalizer(unary, mask),)

    def logz_grad():
        log_z = model._compute_normalizer(unary, mask)
        states, edges = torch.autograd.grad(log_z.sum(), (unary, model.transitions))
        return log_z.detach(), states.transpose(0, 1), edges

    @torch.no_grad()
    def viterbi():
        return (torch.tensor(model.decode(unary, mask)),)

    return {"logz": logz, "logz_grad": logz_grad, "viterbi": viterbi}[query]
